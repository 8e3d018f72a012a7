from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from metering.command_line import (
    WrongArgumentError,
    add_dry_run,
    add_json,
    moment,
    number,
    progress,
    write_json,
)
from payments.models import Difference, Reconciliation, WebhookEvent
from payments.provider import ProviderError
from payments.services.providing import provider
from payments.services.reconciling import (
    begin_reconciliation,
    rehearse_reconciliation,
    take_look,
)

_MOST_DAYS = 3650
_COUNTS = (
    "events_fetched",
    "invoices_compared",
    "payments_compared",
    "refunds_compared",
    "healed",
    "differences",
)


class Command(BaseCommand):
    """Compare Stripe's side with ours, put right what can be, and list the rest."""

    help = (
        "Fetch events that did not come, compare invoices, payments and refunds both ways, put "
        "right what reading again puts right, and list the rest. Status 0: nothing differs; 1: "
        "something does, or it was not done to the end; 2: an argument is wrong. "
        "Cut off, it goes on where it was."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take since when, and the form of the answer."""
        since = parser.add_mutually_exclusive_group()
        since.add_argument(
            "--since", type=moment, help="ISO date or time; without an offset it is UTC"
        )
        since.add_argument("--days", type=number(1, _MOST_DAYS), help="so many days back")
        add_dry_run(parser)
        add_json(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Compare. Raises CommandError with the statuses that the help says."""
        now = datetime.now(UTC)
        since = _since(options, now)
        try:
            provider()
            if options["dry_run"]:
                row = rehearse_reconciliation(since=since, now=now)
            else:
                row = begin_reconciliation(since=since, now=now)
                _look(row)
        except ProviderError as error:
            raise CommandError(str(error)) from error
        if row.ended_at is None and not options["dry_run"]:
            raise CommandError("Another process is comparing. Try again.")
        open_ones = list(Difference.objects.filter(settled_at__isnull=True).order_by("pk"))
        if options["json"]:
            write_json(self.stdout, {"dry_run": options["dry_run"], **_summary(row, open_ones)})
        else:
            if options["dry_run"]:
                self.stdout.write("Nothing is compared: this is a dry run.")
            self.stdout.write("\n".join(_lines(row, open_ones)))
        if open_ones:
            raise CommandError(f"{len(open_ones)} differences are open.")


def _look(row: Reconciliation) -> None:
    with progress("invoices, payments and refunds") as advance:
        done = 0
        while take_look(row.pk, now=datetime.now(UTC)):
            row.refresh_from_db()
            compared = row.invoices_compared + row.payments_compared + row.refunds_compared
            advance(compared - done)
            done = compared
    row.refresh_from_db()


def _since(options: dict[str, Any], now: datetime) -> datetime | None:
    if options["days"] is not None:
        return now - timedelta(days=options["days"])
    since: datetime | None = options["since"]
    if since is not None and since >= now:
        raise WrongArgumentError("--since: give a time in the past.")
    return since


def _failed_events() -> int:
    return WebhookEvent.objects.filter(status=WebhookEvent.Status.FAILED).count()


def _summary(row: Reconciliation, open_ones: list[Difference]) -> dict[str, Any]:
    return {
        "since": row.since.isoformat(),
        "until": row.started_at.isoformat(),
        **{name: getattr(row, name) for name in _COUNTS},
        "failed_events": _failed_events(),
        "open": [
            {
                "kind": one.kind,
                "subject": one.subject,
                "account": str(one.account_id) if one.account_id else None,
                "ours": one.ours,
                "theirs": one.theirs,
                "proposed_action": one.proposed_action,
                "found_at": one.found_at.isoformat(),
            }
            for one in open_ones
        ],
    }


def _lines(row: Reconciliation, open_ones: list[Difference]) -> list[str]:
    compared = (
        f"{row.invoices_compared} invoices, {row.payments_compared} payments, "
        f"{row.refunds_compared} refunds"
    )
    lines = [
        f"Compared since {row.since:%Y-%m-%d %H:%M} UTC: {compared}.",
        f"{row.events_fetched} events had not come; {row.healed} things were put right.",
    ]
    if failed := _failed_events():
        lines.append(f"{failed} events could not be applied: see the admin, or replay_webhooks.")
    for one in open_ones:
        lines += [
            "",
            f"{one.get_kind_display()}: {one.subject}",
            f"  ours:   {one.ours}",
            f"  theirs: {one.theirs}",
            f"  do:     {one.proposed_action}",
        ]
    return [*lines, "", f"{len(open_ones) or 'No'} differences are open."]
