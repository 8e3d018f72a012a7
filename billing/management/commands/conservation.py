from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import QuerySet

from billing.conservation import ConservationStatement
from billing.conservation_json import conservation_json
from billing.conservation_queries import conservation_of
from billing.models import Invoice
from billing.queries import invoices_named
from metering.command_line import (
    WrongArgumentError,
    add_json,
    month,
    progress,
    write_json_of_many,
)

INVOICES_AT_A_TIME = 500


class Command(BaseCommand):
    """State whether invoices are what was measured, sum by sum."""

    help = "State whether counters, windows, rated quantities, lines and totals are the same."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take which invoices, and the form of the answer."""
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument("--invoice", help="number of an invoice, or a draft's id")
        which.add_argument(
            "--month", type=month, help="YYYY-MM: final invoices of periods that began in it"
        )
        add_json(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Print the statements. Raises CommandError where one does not hold, after all of them."""
        mismatched = 0
        keys = list(_asked(options).order_by("pk").values_list("pk", flat=True))

        def tell(key: int, statement: ConservationStatement) -> dict[str, Any]:
            nonlocal mismatched
            mismatched += not statement.holds
            return {"invoice": key, **conservation_json(statement)}

        with progress("invoices", len(keys)) as watch:
            found = _statements(keys, watch)
            if options["json"]:
                rows = (tell(*one) for one in found)
                write_json_of_many(
                    self.stdout, "invoices", rows, lambda: {"mismatched": mismatched}
                )
            else:
                for key, statement in found:
                    tell(key, statement)
                    self.stdout.write(
                        f"{statement.number or f'draft {key}'}: {_verdict(statement)}"
                    )
        if mismatched:
            raise CommandError(f"{mismatched} do not add up.")


def _asked(options: dict[str, Any]) -> QuerySet[Invoice]:
    if wanted := options["invoice"]:
        found = invoices_named(wanted)
        if not found:
            raise WrongArgumentError(f"--invoice: there is no invoice {wanted}.")
        return found
    start = datetime.strptime(options["month"], "%Y-%m").replace(tzinfo=UTC)
    end = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    return Invoice.objects.filter(
        number__isnull=False, period_start__gte=start, period_start__lt=end
    )


def _statements(
    keys: Sequence[int], watch: Callable[[int], None]
) -> Iterator[tuple[int, ConservationStatement]]:
    now = datetime.now(UTC)
    for start in range(0, len(keys), INVOICES_AT_A_TIME):
        some = keys[start : start + INVOICES_AT_A_TIME]
        yield from conservation_of(some, now=now).items()
        watch(len(some))


def _verdict(statement: ConservationStatement) -> str:
    if not statement.holds:
        return "; ".join(statement.mismatches)
    without = "" if statement.has_evidence else ", without evidence of its own"
    return f"{len(statement.meters)} meters and {len(statement.equations)} sums hold{without}."
