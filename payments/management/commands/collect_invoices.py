from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser

from billing.models import Invoice
from metering.command_line import WrongArgumentError, add_dry_run, add_json, progress, write_json
from payments.models import Collection
from payments.provider import NotSetUpError
from payments.services.collecting import take_step
from payments.services.collections import begin_collecting, invoices_to_collect
from payments.services.providing import provider
from payments.services.sweeps import INVOICES_A_SWEEP, begin_due_collections, due_steps

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
        add_dry_run(parser)
        add_json(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Collect. Raises CommandError, which says what is missing or was refused."""
        started = datetime.now(UTC)
        invoice = _invoice(options["invoice"]) if options["invoice"] else None
        try:
            provider()
        except NotSetUpError as error:
            raise CommandError(str(error)) from error
        if options["dry_run"]:
            self._rehearse(invoice, started, is_json=options["json"])
            return
        due = _begin(invoice, started)
        with progress("collections", len(due)) as advance:
            for collection_id in due:
                for _ in range(MOST_STEPS):
                    if not take_step(collection_id, now=datetime.now(UTC)):
                        break
                advance(1)
        rows = _rows(due)
        if options["json"]:
            write_json(self.stdout, {"dry_run": False, "collections": rows})
        else:
            self.stdout.write("\n".join(_line(row) for row in rows) or "Nothing is due.")
        if refused := [row for row in rows if row["status"] == Collection.Status.REFUSED]:
            raise CommandError(f"{len(refused)} were refused: look at the differences.")

    def _rehearse(self, invoice: Invoice | None, now: datetime, *, is_json: bool) -> None:
        keys = invoices_to_collect(most=INVOICES_A_SWEEP)
        begin = Invoice.objects.filter(pk__in=keys, **({"pk": invoice.pk} if invoice else {}))
        numbers = list(begin.order_by("number").values_list("number", flat=True))
        rows = _rows(_due(invoice, now))
        if is_json:
            write_json(self.stdout, {"dry_run": True, "begin": numbers, "collections": rows})
            return
        for number in numbers:
            self.stdout.write(f"{number}: would begin to be collected")
        for row in rows:
            self.stdout.write(f"{_line(row)}: would take its next step")
        if not (numbers or rows):
            self.stdout.write("Nothing is due.")


def _invoice(number: str) -> Invoice:
    try:
        return Invoice.objects.get(number=number)
    except Invoice.DoesNotExist:
        raise WrongArgumentError(f"--invoice: there is no invoice {number}.") from None


def _begin(invoice: Invoice | None, now: datetime) -> list[UUID]:
    if invoice:
        begin_collecting(invoice.pk, now=now)
    else:
        begin_due_collections(now)
    return _due(invoice, now)


def _due(invoice: Invoice | None, now: datetime) -> list[UUID]:
    due = due_steps(now)
    if invoice is None:
        return due
    parts = Collection.objects.filter(parts__invoice=invoice)
    return [collection_id for collection_id in due if parts.filter(pk=collection_id)]


def _rows(keys: list[UUID]) -> list[dict[str, str]]:
    collections = Collection.objects.filter(pk__in=keys).select_related("account")
    return [_row(collection) for collection in collections]


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
