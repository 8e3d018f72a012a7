"""What a month's invoices came to, by plan, by what it was for, and by meter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from billing.models import Invoice, InvoiceLine
from billing.money import Money
from billing.reports.chunks import Plans, final_invoices
from billing.reports.month import Month
from billing.reports.rows import RevenueRow
from metering.period import Period

_JUST_BEFORE = timedelta(microseconds=1)
_ADJUSTMENT = InvoiceLine.Kind.ADJUSTMENT.value
_UNUSED_FEE = InvoiceLine.Kind.UNUSED_FEE.value


class _Key(NamedTuple):
    currency: str
    invoice_kind: str
    plan: str
    component: str
    meter: str


class _Line(NamedTuple):
    invoice_id: int
    kind: str
    meter: str
    amount: Decimal
    discount: Decimal
    start: datetime


def revenue_rows(month: Month) -> Iterator[RevenueRow]:
    """Yield the parts of the month's final invoices; by currency they sum to the totals exactly."""
    amounts: defaultdict[_Key, Decimal] = defaultdict(Decimal)
    invoices: defaultdict[_Key, int] = defaultdict(int)
    for chunk in final_invoices(month):
        for parts in _parts_of(chunk):
            for key, amount in parts.items():
                amounts[key] += amount
                invoices[key] += 1
    for key in sorted(amounts):
        yield RevenueRow(*key, invoices[key], Money(amounts[key], key.currency))


def _parts_of(chunk: Sequence[Invoice]) -> Iterator[dict[_Key, Decimal]]:
    """Yield what each invoice's total is the sum of."""
    if not chunk:
        return
    rows: defaultdict[int, list[_Line]] = defaultdict(list)
    lines = InvoiceLine.objects.filter(invoice__in=chunk)
    for row in lines.values_list(
        "invoice_id", "kind", "meter", "amount", "discount", "period_start"
    ):
        line = _Line(*row)
        rows[line.invoice_id].append(line)
    starts = [line.start for of_invoice in rows.values() for line in of_invoice]
    span = Period(
        min([*starts, *(i.period_start for i in chunk)]) - _JUST_BEFORE,
        max([*starts, *(i.period_end for i in chunk)]) + _JUST_BEFORE,
    )
    plans = Plans({invoice.account_id for invoice in chunk}, span)
    for invoice in chunk:
        yield _parts(invoice, rows[invoice.pk], plans)


def _parts(invoice: Invoice, lines: Sequence[_Line], plans: Plans) -> dict[_Key, Decimal]:
    """Return the parts of one invoice's total.

    A line is of the plan in force at its start, the unused rest of a year of the plan before
    that; what is of the whole invoice is of the plan at the start of its period.
    """
    parts: defaultdict[_Key, Decimal] = defaultdict(Decimal)

    def add(component: str, amount: Decimal, at: datetime, meter: str = "") -> None:
        if amount:
            plan = plans.at(invoice.account_id, at)
            key = _Key(invoice.currency, invoice.kind, plan, component, meter)
            parts[key] += amount

    for line in lines:
        at = line.start - _JUST_BEFORE if line.kind == _UNUSED_FEE else line.start
        add(line.kind, line.amount, at, line.meter)
        add("discount", -line.discount, at, line.meter)
    start = invoice.period_start
    adjusted = sum((line.amount for line in lines if line.kind == _ADJUSTMENT), Decimal(0))
    add(_ADJUSTMENT, invoice.adjustments - adjusted, start)
    add("credits_used", -invoice.credits_used, start)
    add("credited", invoice.credited, start)
    add("tax", invoice.tax, start)
    if invoice.tax_is_inclusive:
        # The lines hold it already.
        add("tax_in_prices", -invoice.tax, start)
    # A figure that this report does not know yet is shown rather than lost.
    add("other", invoice.total_amount - sum(parts.values(), Decimal(0)), start)
    return dict(parts)
