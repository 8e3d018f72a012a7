from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from payments.models import Difference, Reconciliation, WebhookEvent
from payments.provider import ProviderError
from payments.services.providing import provider
from payments.services.reconciling import begin_reconciliation, take_look

DIFFERENT, NOT_DONE = 1, 2
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
        "something does; 2: it was not done to the end. Cut off, it goes on where it was."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take since when, and the form of the answer."""
        since = parser.add_mutually_exclusive_group()
        since.add_argument("--since", help="ISO date or time; without an offset it is UTC")
        since.add_argument("--days", type=int, help="so many days back")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Compare. Raises CommandError with the statuses that the help says."""
        now = datetime.now(UTC)
        since = _since(options, now)
        try:
            provider()
            row = begin_reconciliation(since=since, now=now)
            while take_look(row.pk, now=datetime.now(UTC)):
                pass
        except ProviderError as error:
            raise CommandError(str(error), returncode=NOT_DONE) from error
        row.refresh_from_db()
        if row.ended_at is None:
            raise CommandError("Another process is comparing. Try again.", returncode=NOT_DONE)
        open_ones = list(Difference.objects.filter(settled_at__isnull=True).order_by("pk"))
        if options["json"]:
            self.stdout.write(json.dumps(_summary(row, open_ones), indent=2))
        else:
            self.stdout.write("\n".join(_lines(row, open_ones)))
        if open_ones:
            raise CommandError(f"{len(open_ones)} differences are open.", returncode=DIFFERENT)


def _since(options: dict[str, Any], now: datetime) -> datetime | None:
    if options["days"] is not None:
        if not 0 < options["days"] <= 3650:
            raise CommandError("--days: give a number from 1 to 3650.", returncode=NOT_DONE)
        return now - timedelta(days=options["days"])
    if options["since"] is None:
        return None
    try:
        since = datetime.fromisoformat(options["since"])
    except ValueError:
        raise CommandError("--since: give an ISO date or time.", returncode=NOT_DONE) from None
    since = since.astimezone(UTC) if since.tzinfo else since.replace(tzinfo=UTC)
    if since >= now:
        raise CommandError("--since: give a time in the past.", returncode=NOT_DONE)
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
