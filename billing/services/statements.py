"""Writes what a period comes to into a draft: its figures, lines, parts and discounts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal

from billing.charges import ChargePart, PartKind, PerUnit
from billing.discounts import Discount
from billing.fees import FeeKind, FeeLine, Interval
from billing.models import (
    Account,
    Invoice,
    InvoiceDiscount,
    InvoiceLine,
    InvoiceLinePart,
    UnpricedUsage,
)
from billing.money import Money
from billing.rating import RatedLine, Rating
from billing.statement import Statement
from metering.meters import UNITS, Meter
from metering.period import Period

_DESCRIPTIONS = {
    Meter.CPU: "CPU time",
    Meter.MEMORY: "Memory",
    Meter.NETWORK_EGRESS: "Network egress",
    Meter.NETWORK_INGRESS: "Network ingress",
    Meter.STORAGE: "Storage",
    Meter.GPU: "GPU time",
    Meter.DISK_READ: "Disk reads",
    Meter.DISK_WRITE: "Disk writes",
    Meter.CPU_ALLOCATED: "Allocated CPU",
    Meter.MEMORY_ALLOCATED: "Allocated memory",
}
_FEE_DESCRIPTIONS = {
    FeeKind.FEE: "{plan} plan",
    FeeKind.UNUSED_FEE: "{plan} plan, unused part of the year",
    FeeKind.TRUE_UP: "{plan} plan, up to the committed minimum",
}
_FEE_UNITS = {Interval.MONTHLY: "periods", Interval.ANNUAL: "years"}
# Their quantities are units of the meter; of the others they are packages, events or nothing.
_IN_UNITS = (PartKind.FREE, PartKind.UNITS, PartKind.PERCENT)


def write_statement(invoice: Invoice, statement: Statement, *, now: datetime) -> None:
    """Save a draft with the statement's figures, lines and discounts in place of those it had."""
    totals, tax = statement.totals, statement.facts.tax
    invoice.currency = statement.facts.currency
    invoice.tax_rate, invoice.tax_is_inclusive = tax.rate, tax.is_inclusive
    invoice.subscription_fee = totals.subscription_fee.amount
    invoice.usage_fee = totals.usage_fee.amount
    invoice.discounts = totals.discounts.amount
    invoice.credits_used = totals.credits_used.amount
    invoice.adjustments = totals.adjustments.amount
    invoice.tax = totals.tax.amount
    invoice.credited = totals.credited.amount
    invoice.total_amount = totals.total_amount.amount
    invoice.prepaid_used = totals.prepaid_used.amount
    invoice.amount_due = totals.amount_due.amount
    invoice.computed_at = now
    invoice.save()
    _clear(invoice)
    _write_lines(invoice, statement)
    InvoiceDiscount.objects.bulk_create(_discounts(invoice, statement))


def has_lines(statement: Statement) -> bool:
    """Return whether there is anything to invoice."""
    return bool(statement.fees or statement.rating.lines)


def discard_draft(invoice: Invoice) -> None:
    """Delete a draft with all that hangs on it."""
    _clear(invoice)
    invoice.delete()


def note_unpriced(account: Account, period: Period, rating: Rating, *, now: datetime) -> None:
    """Keep which usage of `period` has no price, in place of what was noted before."""
    account.unpriced_usage.filter(billing_period_start=period.start).delete()
    UnpricedUsage.objects.bulk_create(
        UnpricedUsage(
            account=account,
            billing_period_start=period.start,
            meter=unpriced.meter,
            reason=unpriced.reason,
            quantity=unpriced.quantity,
            period_start=unpriced.period.start,
            period_end=unpriced.period.end,
            noted_at=now,
        )
        for unpriced in rating.unpriced
    )


def _clear(invoice: Invoice) -> None:
    InvoiceLinePart.objects.filter(line__invoice=invoice).delete()
    invoice.lines.all().delete()
    invoice.applied_discounts.all().delete()


def _write_lines(invoice: Invoice, statement: Statement) -> None:
    fees = [_fee_line(fee) for fee in statement.fees]
    fees += [_fee_discount_line(discount, statement) for discount in statement.fee_discounts]
    usage = [
        _usage_line(line, discount)
        for line, discount in zip(statement.rating.lines, statement.line_discounts, strict=True)
    ]
    lines = [*fees, *usage]
    for position, line in enumerate(lines, start=1):
        line.invoice, line.position = invoice, position
    InvoiceLine.objects.bulk_create(lines)
    InvoiceLinePart.objects.bulk_create(
        part
        for row, rated in zip(usage, statement.rating.lines, strict=True)
        if row.unit_price is None
        for part in _line_parts(row, rated.parts)
    )


def _fee_line(fee: FeeLine) -> InvoiceLine:
    return InvoiceLine(
        kind=fee.kind,
        description=_FEE_DESCRIPTIONS[fee.kind].format(plan=fee.plan),
        quantity=fee.seconds,
        base_unit="seconds",
        unit=_FEE_UNITS[fee.interval],
        unit_size=fee.whole_seconds,
        unit_price=fee.rate.amount,
        amount=fee.amount.amount,
        period_start=fee.period.start,
        period_end=fee.period.end,
    )


def _fee_discount_line(discount: Discount, statement: Statement) -> InvoiceLine:
    period = statement.facts.period
    return InvoiceLine(
        kind=InvoiceLine.Kind.FEE_DISCOUNT,
        description=discount.name,
        quantity=1,
        base_unit="discounts",
        unit="discounts",
        unit_size=1,
        unit_price=discount.amount.amount,
        amount=-discount.amount.amount,
        period_start=period.start,
        period_end=period.end,
    )


def _usage_line(line: RatedLine, discount: Money) -> InvoiceLine:
    unit, charge = UNITS[line.meter], line.price.charge
    is_plain = not (line.price.free_units or line.price.minimum)
    return InvoiceLine(
        kind=InvoiceLine.Kind.USAGE,
        description=_DESCRIPTIONS[line.meter],
        meter=line.meter,
        charge=charge.model,
        quantity=line.quantity,
        base_unit=unit.stored,
        unit=unit.shown,
        unit_size=unit.size,
        unit_price=charge.unit_price if is_plain and isinstance(charge, PerUnit) else None,
        amount=line.amount.amount,
        discount=discount.amount,
        period_start=line.period.start,
        period_end=line.period.end,
    )


def _line_parts(row: InvoiceLine, parts: Sequence[ChargePart]) -> Iterator[InvoiceLinePart]:
    for position, part in enumerate(parts, start=1):
        size = row.unit_size if part.kind in _IN_UNITS else 1
        stored = part.quantity * int(size)
        yield InvoiceLinePart(
            line=row,
            position=position,
            kind=part.kind,
            tier=part.tier,
            quantity=Decimal(stored.numerator) / Decimal(stored.denominator),
            unit_size=size,
            unit_price=part.unit_price,
        )


def _discounts(invoice: Invoice, statement: Statement) -> Iterator[InvoiceDiscount]:
    applied = [
        *((InvoiceDiscount.Base.USAGE_FEE, discount) for discount in statement.discounts),
        *((InvoiceDiscount.Base.ANNUAL_FEE, discount) for discount in statement.fee_discounts),
    ]
    for position, (base, discount) in enumerate(applied, start=1):
        yield InvoiceDiscount(
            invoice=invoice,
            position=position,
            rule_id=discount.rule_id,
            name=discount.name,
            base=base,
            base_amount=discount.base.amount,
            percent=discount.percent,
            fixed_amount=discount.fixed,
            amount=discount.amount.amount,
        )
