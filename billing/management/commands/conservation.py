from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Q, QuerySet

from billing.conservation import ConservationStatement
from billing.conservation_json import conservation_json
from billing.conservation_queries import conservation_of
from billing.models import Invoice

INVOICES_AT_A_TIME = 500


class Command(BaseCommand):
    """State whether invoices are what was measured, sum by sum."""

    help = "State whether counters, windows, rated quantities, lines and totals are the same."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take which invoices, and the form of the answer."""
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument("--invoice", help="number of an invoice, or a draft's id")
        which.add_argument("--month", help="YYYY-MM: final invoices of periods that began in it")
        parser.add_argument("--json", action="store_true", help="print JSON, a line an invoice")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Print the statements. Raises CommandError where one does not hold, after all of them."""
        mismatched = 0
        for key, statement in _statements(_asked(options)):
            mismatched += not statement.holds
            if options["json"]:
                self.stdout.write(json.dumps({"invoice": key, **conservation_json(statement)}))
                continue
            self.stdout.write(f"{statement.number or f'draft {key}'}: {_verdict(statement)}")
        if mismatched:
            raise CommandError(f"{mismatched} do not add up.")


def _asked(options: dict[str, Any]) -> QuerySet[Invoice]:
    if wanted := options["invoice"]:
        is_one = Q(number=wanted)
        if wanted.isdecimal():
            is_one |= Q(pk=int(wanted))
        found = Invoice.objects.filter(is_one)
        if not found:
            raise CommandError(f"--invoice: there is no invoice {wanted}.")
        return found
    try:
        start = datetime.strptime(options["month"], "%Y-%m").replace(tzinfo=UTC)
    except ValueError:
        raise CommandError("--month: give a month as YYYY-MM.") from None
    end = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    return Invoice.objects.filter(
        number__isnull=False, period_start__gte=start, period_start__lt=end
    )


def _statements(invoices: QuerySet[Invoice]) -> Iterator[tuple[int, ConservationStatement]]:
    keys = list(invoices.order_by("pk").values_list("pk", flat=True))
    now = datetime.now(UTC)
    for start in range(0, len(keys), INVOICES_AT_A_TIME):
        yield from conservation_of(keys[start : start + INVOICES_AT_A_TIME], now=now).items()


def _verdict(statement: ConservationStatement) -> str:
    if not statement.holds:
        return "; ".join(statement.mismatches)
    without = "" if statement.has_evidence else ", without evidence of its own"
    return f"{len(statement.meters)} meters and {len(statement.equations)} sums hold{without}."
