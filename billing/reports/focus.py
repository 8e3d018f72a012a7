"""Final invoices as charges in the FinOps Open Cost and Usage Specification's columns.

Of one invoice the billed costs sum to its total. Discounts on usage are in the billed cost of the
usage they were taken off, as the specification has it; the list cost is before them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from billing.models import Invoice, InvoiceLine
from billing.money import Money
from billing.reports.chunks import final_invoices
from billing.reports.month import Month
from billing.reports.rows import FocusRow
from metering.meters import Meter

PROVIDER: Final = "SoulBox"
SERVICE: Final = "SoulBox Sandboxes"
_SERVICE_CATEGORIES: Final = {
    Meter.NETWORK_EGRESS.value: "Networking",
    Meter.NETWORK_INGRESS.value: "Networking",
    Meter.STORAGE.value: "Storage",
    Meter.DISK_READ.value: "Storage",
    Meter.DISK_WRITE.value: "Storage",
}
_KIND: Final = InvoiceLine.Kind
_RECURRING: Final = (_KIND.FEE, _KIND.UNUSED_FEE, _KIND.FEE_DISCOUNT, _KIND.TRUE_UP)
CORRECTION: Final = "Correction"


@dataclass(frozen=True, slots=True)
class _Charge:
    """What of a row is not the same for the whole invoice."""

    category: str
    description: str
    billed: Money
    # Before discounts; after them where there are none.
    listed: Money
    frequency: str = "One-Time"
    charge_class: str | None = None
    # Money that is paid for later charges, which carry the cost.
    is_prepayment: bool = False
    line: InvoiceLine | None = None


def focus_rows(month: Month, *, seller: str) -> Iterator[FocusRow]:
    """Yield the charges of the month's final invoices."""
    for chunk in final_invoices(month):
        lines: defaultdict[int, list[InvoiceLine]] = defaultdict(list)
        for line in InvoiceLine.objects.filter(invoice__in=chunk).order_by("position"):
            lines[line.invoice_id].append(line)
        for invoice in chunk:
            issuer = str(invoice.seller.get("name") or seller)
            for charge in _charges(invoice, lines[invoice.pk]):
                yield _row(invoice, charge, issuer=issuer)


def _charges(invoice: Invoice, lines: Sequence[InvoiceLine]) -> Iterator[_Charge]:
    total = Money.zero(invoice.currency)
    for charge in (*(_of_line(line, invoice) for line in lines), *_of_invoice(invoice)):
        total += charge.billed
        yield charge
    if rest := Money(invoice.total_amount, invoice.currency) - total:
        # A figure that this report does not know yet, and adjustments without a line, are shown
        # rather than lost.
        yield _Charge("Adjustment", "Other", rest, rest)


def _of_line(line: InvoiceLine, invoice: Invoice) -> _Charge:
    listed = Money(line.amount, invoice.currency)
    billed = listed - Money(line.discount, invoice.currency)
    match line.kind:
        case _KIND.USAGE:
            return _Charge(
                "Usage", line.description, billed, listed, frequency="Usage-Based", line=line
            )
        case kind if kind in _RECURRING:
            return _Charge(
                "Purchase", line.description, billed, listed, frequency="Recurring", line=line
            )
        case _KIND.TOP_UP:
            return _Charge(
                "Purchase", line.description, billed, listed, is_prepayment=True, line=line
            )
        case kind:
            return _Charge(
                "Usage" if line.meter else "Adjustment",
                line.description,
                billed,
                listed,
                frequency="Usage-Based" if line.meter else "One-Time",
                charge_class=CORRECTION if kind == _KIND.ADJUSTMENT else None,
                line=line,
            )


def _of_invoice(invoice: Invoice) -> Iterator[_Charge]:
    figures = (
        ("Credit", "Credit used", -invoice.credits_used),
        ("Credit", "Remainder below zero, given as prepaid credit", invoice.credited),
        # Where prices contain the tax, the charges do too.
        ("Tax", "Tax", Decimal(0) if invoice.tax_is_inclusive else invoice.tax),
    )
    for category, description, amount in figures:
        if amount:
            money = Money(amount, invoice.currency)
            yield _Charge(category, description, money, money)


def _row(invoice: Invoice, charge: _Charge, *, issuer: str) -> FocusRow:
    line = charge.line
    quantity = line.exact_quantity if line else None
    is_usage = line is not None and bool(line.meter)
    unit_price = line.unit_price if line else None
    start, end = _span(invoice, line)
    return FocusRow(
        billed_cost=charge.billed,
        effective_cost=Money.zero(invoice.currency) if charge.is_prepayment else charge.billed,
        list_cost=charge.listed,
        contracted_cost=charge.listed,
        billing_account_id=invoice.account_id,
        billing_account_name=invoice.account.name,
        billing_currency=invoice.currency,
        billing_period_start=invoice.period_start,
        billing_period_end=invoice.period_end,
        charge_period_start=start,
        charge_period_end=end,
        charge_category=charge.category,
        charge_class=charge.charge_class,
        charge_description=charge.description,
        charge_frequency=charge.frequency,
        consumed_quantity=quantity if is_usage else None,
        consumed_unit=line.unit if line and is_usage else None,
        pricing_category="Standard" if line else None,
        pricing_quantity=quantity,
        pricing_unit=line.unit if line else None,
        list_unit_price=unit_price,
        contracted_unit_price=unit_price,
        invoice_id=invoice.number or "",
        invoice_issuer_name=issuer,
        provider_name=PROVIDER,
        publisher_name=PROVIDER,
        region_id=None,
        region_name=None,
        # Invoices add up a meter over all sandboxes; the usage report by sandbox tells them apart.
        resource_id=None,
        resource_name=None,
        resource_type=None,
        service_category=_SERVICE_CATEGORIES.get(line.meter if line else "", "Compute"),
        service_name=SERVICE,
        sku_id=(line.meter or line.kind) if line else None,
        sku_price_id=_sku_price(line) if line else None,
        sub_account_id=None,
        sub_account_name=None,
        tags={},
    )


def _span(invoice: Invoice, line: InvoiceLine | None) -> tuple[datetime, datetime]:
    about = line or invoice
    return about.period_start, about.period_end


def _sku_price(line: InvoiceLine) -> str | None:
    """Return what tells a meter's prices apart: how it is charged for, and the price."""
    if not line.charge:
        return None
    price = "" if line.unit_price is None else f"/{line.unit_price:f}"
    return f"{line.meter}/{line.charge}{price}"
