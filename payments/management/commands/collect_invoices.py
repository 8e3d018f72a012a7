from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from billing.models import Invoice
from payments.models import Collection
from payments.provider import NotSetUpError
from payments.services.collecting import take_step
from payments.services.collections import begin_collecting
from payments.services.providing import provider
from payments.services.sweeps import begin_due_collections, due_steps

MOST_STEPS = 20
"""Of a collection: making and paying it takes five."""


class Command(BaseCommand):
    """Collect what is due now, as the workers do, and say what became of it."""

    help = (
        "Begin to collect the invoices that are due, take every step that is due, and say what "
        "became of each. Safe to repeat, also while workers run. Status 1: something was refused."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take one invoice, and the form of the answer."""
        parser.add_argument("--invoice", metavar="NUMBER", help="this invoice alone")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Collect. Raises CommandError, which says what is missing or was refused."""
        started = datetime.now(UTC)
        try:
            provider()
        except NotSetUpError as error:
            raise CommandError(str(error)) from error
        if options["invoice"]:
            begin_collecting(_invoice(options["invoice"]).pk, now=started)
        else:
            begin_due_collections(started)
        due = due_steps(started)
        if options["invoice"]:
            parts = Collection.objects.filter(parts__invoice__number=options["invoice"])
            due = [collection_id for collection_id in due if parts.filter(pk=collection_id)]
        for collection_id in due:
            for _ in range(MOST_STEPS):
                if not take_step(collection_id, now=datetime.now(UTC)):
                    break
        collections = list(Collection.objects.filter(pk__in=due).select_related("account"))
        rows = [_row(collection) for collection in collections]
        if options["json"]:
            self.stdout.write(json.dumps(rows, indent=2))
        else:
            self.stdout.write("\n".join(_line(row) for row in rows) or "Nothing is due.")
        if refused := [row for row in rows if row["status"] == Collection.Status.REFUSED]:
            raise CommandError(f"{len(refused)} were refused: look at the differences.")


def _invoice(number: str) -> Invoice:
    try:
        return Invoice.objects.get(number=number)
    except Invoice.DoesNotExist:
        raise CommandError(f"--invoice: there is no invoice {number}.") from None


def _row(collection: Collection) -> dict[str, str]:
    attempt = collection.attempts.first()
    return {
        "account": str(collection.account),
        "invoices": ", ".join(str(part) for part in collection.parts.select_related("invoice")),
        "amount": f"{collection.amount:.2f} {collection.currency}",
        "status": collection.status,
        "attempt": attempt.status if attempt else "",
        "why": (attempt.decline_code or attempt.failure_code if attempt else "")
        or collection.waiting_for,
    }


def _line(row: dict[str, str]) -> str:
    why = f" ({row['why']})" if row["why"] else ""
    return (
        f"{row['account']}: {row['invoices']}, {row['amount']}: {row['status']}, "
        f"attempt {row['attempt']}{why}"
    )
