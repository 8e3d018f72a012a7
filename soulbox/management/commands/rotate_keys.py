from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from metering.bearer_keys import LONGEST_OVERLAP
from metering.command_line import (
    WrongArgumentError,
    add_dry_run,
    add_json,
    number,
    rehearsal,
    row_id,
    write_json,
)
from soulbox import key_rotation
from soulbox.key_rotation import Rotated, RotationRefusedError

MOST_HOURS = LONGEST_OVERLAP // timedelta(hours=1)
DEFAULT_HOURS = 24


class Command(BaseCommand):
    """List the secrets there are and how each is rotated, or give one a successor."""

    help = (
        "List what secrets there are and how to rotate each; with one named, make its successor "
        "and show it, this once. The old one works beside it for --overlap-hours."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take which one, and for how long both work."""
        which = parser.add_mutually_exclusive_group()
        which.add_argument(
            "--metering-key", type=number(1, 2**62), metavar="ID", help="a runtime's key"
        )
        which.add_argument("--operator-key", metavar="NAME", help="an operator's key")
        which.add_argument(
            "--api-key", type=number(1, 2**62), metavar="ID", help="a customer's key"
        )
        which.add_argument(
            "--webhook-endpoint", type=row_id, metavar="ID", help="what signs to a customer"
        )
        parser.add_argument(
            "--overlap-hours",
            type=number(0, MOST_HOURS),
            help=f"how long both work, 0 to {MOST_HOURS}; {DEFAULT_HOURS} if absent",
        )
        add_dry_run(parser)
        add_json(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        """List or rotate. Raises WrongArgumentError."""
        now = datetime.now(UTC)
        if options["webhook_endpoint"] and options["overlap_hours"] is not None:
            raise WrongArgumentError(
                "--overlap-hours: a webhook endpoint's secrets always overlap by 24 hours."
            )
        try:
            with rehearsal(is_dry=options["dry_run"]):
                rotated = _rotate(options, now)
        except RotationRefusedError as error:
            raise WrongArgumentError(str(error)) from None
        if rotated is None:
            self._list(now, is_json=options["json"])
        else:
            self._show(rotated, is_dry=options["dry_run"], is_json=options["json"])

    def _list(self, now: datetime, *, is_json: bool) -> None:
        kept = key_rotation.secrets_kept(now=now)
        if is_json:
            write_json(self.stdout, {"secrets": [one.as_json() for one in kept]})
            return
        for one in kept:
            self.stdout.write(f"{one.name}: {one.count or 'none'}, {one.state}\n  {one.how}")

    def _show(self, rotated: Rotated, *, is_dry: bool, is_json: bool) -> None:
        until = f"{rotated.old_works_until:%Y-%m-%dT%H:%MZ}"
        # One that was taken back opens nothing, so it is not shown.
        secret = {} if is_dry else {"secret": rotated.secret}
        if is_json:
            answer = {"dry_run": is_dry, "rotated": rotated.what, "old_works_until": until}
            write_json(self.stdout, answer | secret)
            return
        if is_dry:
            self.stdout.write(f"There would be another; the one there is would work until {until}.")
            return
        self.stderr.write(f"The {rotated.what} is new; the one before works until {until}.")
        self.stderr.write("Copy it now. It is not kept and cannot be shown again.")
        self.stdout.write(rotated.secret)


def _rotate(options: dict[str, Any], now: datetime) -> Rotated | None:
    hours = options["overlap_hours"]
    overlap = timedelta(hours=DEFAULT_HOURS if hours is None else hours)
    if options["metering_key"]:
        return key_rotation.rotate_metering(options["metering_key"], overlap=overlap, now=now)
    if options["operator_key"]:
        return key_rotation.rotate_operator(options["operator_key"], overlap=overlap, now=now)
    if options["api_key"]:
        return key_rotation.rotate_api(options["api_key"], overlap=overlap, now=now)
    if options["webhook_endpoint"]:
        return key_rotation.rotate_endpoint(options["webhook_endpoint"], now=now)
    return None
