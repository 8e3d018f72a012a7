from __future__ import annotations

import json
from argparse import ArgumentTypeError
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandParser

from billing import services

BY_COMMAND = services.Because("Billing run by command")


class Command(BaseCommand):
    """Draft and finalise the invoices that are due, as the sweep does."""

    help = "Draft and finalise the invoices that are due. Safe to repeat."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take which accounts and periods, and whether to write at all."""
        parser.add_argument("--period", type=_month, help="YYYY-MM: periods that start in it.")
        parser.add_argument(
            "--account", type=_account, action="append", default=[], help="An account's id."
        )
        parser.add_argument("--dry-run", action="store_true", help="Say what drafting comes to.")
        parser.add_argument("--json", action="store_true", help="For programs.")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Do it until nothing is left, and tell what was done."""
        scope = services.Scope(tuple(options["account"]), options["period"] or "")
        now = datetime.now(UTC)
        if options["dry_run"]:
            report = services.rehearse_invoices(scope, now=now)
        else:
            report = services.generate_invoices(scope, now=now, because=BY_COMMAND)
            while report.has_more:
                more = services.generate_invoices(scope, now=now, because=BY_COMMAND)
                report.has_more = False
                report = services.RunReport.of([report, more])
        if options["json"]:
            self.stdout.write(json.dumps(report.as_json(), indent=2))
        else:
            self.stdout.writelines(_told(report, is_rehearsal=options["dry_run"]))


def _told(report: services.RunReport, *, is_rehearsal: bool) -> Iterator[str]:
    """Yield the report line by line, for people."""
    said = report.as_json()
    sums = ", ".join(f"{amount} {currency}" for currency, amount in said["totals"].items())
    if is_rehearsal:
        yield f"{report.drafted} invoices to draft: {sums or 'nothing'}.\n"
    else:
        yield (
            f"{report.drafted} drafted, {report.finalised} finalised ({sums or 'nothing'}), "
            f"{report.empty} periods closed without an invoice.\n"
        )
    for entry in said["waiting"]:
        yield f"{entry['account']} waits for {entry['for']}\n"
    for entry in said["parked"]:
        yield f"{entry['account']} is parked: {entry['reason']}\n"


def _month(text: str) -> str:
    if services.is_month(text):
        return text
    raise ArgumentTypeError(f"{text!r} is not a month. Write it as in 2026-10.")


def _account(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not an account's id.") from None
