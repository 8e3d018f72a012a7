"""Writes what a period comes to into a draft: its figures, lines, parts and discounts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from django.conf import settings
from django.db.models import Model

from billing.adjustments import Adjustment, Component
from billing.charges import ChargePart, PartKind, PerUnit
from billing.copying import copy_in, delete_rows
from billing.discounts import Discount
from billing.fees import FeeKind, FeeLine, Interval
from billing.models import (
    Account,
    BilledLateUsage,
    Invoice,
    InvoiceAdjustment,
    InvoiceDiscount,
    InvoiceLine,
    InvoiceLinePart,
    UnpricedUsage,
)
from billing.money import Money
from billing.periods import Schedule
from billing.rating import RatedLine, Rating
from billing.statement import Statement
from metering.lateness import LateWindow
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
_ADJUSTMENT_DESCRIPTIONS = {
    Component.USAGE: "{meter}, known late",
    Component.DISCOUNT: "Discounts on late usage",
    Component.TRUE_UP: "Up to the committed minimum, changed by late usage",
    Component.CREDIT: "Credit for late usage",
}
_FEE_UNITS = {Interval.MONTHLY: "periods", Interval.ANNUAL: "years"}
# Their quantities are units of the meter; of the others they are packages, events or nothing.
_IN_UNITS = (PartKind.FREE, PartKind.UNITS, PartKind.PERCENT)


@dataclass(frozen=True, slots=True)
class StatementRows:
    """What hangs on one draft, not saved yet."""

    lines: list[InvoiceLine]
    parts: list[InvoiceLinePart]
    discounts: list[InvoiceDiscount]
    # What adjustment lines are about, and the late usage that they settle.
    adjustments: list[InvoiceAdjustment]
    late_usage: list[BilledLateUsage]


def new_draft(account: Account, period: Period, schedule: Schedule, *, now: datetime) -> Invoice:
    """Return a draft of the account's `period`, not saved and without figures."""
    return Invoice(
        account=account,
        # A period that a cancellation cut has its final invoice.
        kind=Invoice.Kind.FINAL if period.end in schedule.cuts else Invoice.Kind.USAGE,
        period_start=period.start,
        period_end=period.end,
        finalise_after=period.end + timedelta(minutes=settings.BILLING_GRACE_MINUTES),
        drafted_at=now,
    )


def write_statement(invoice: Invoice, statement: Statement, *, now: datetime) -> None:
    """Save a draft with the statement's figures, lines and discounts in place of those it had."""
    _set_figures(invoice, statement, now=now)
    invoice.save()
    _clear([invoice])
    rows = _rows_of(invoice, statement)
    InvoiceLine.objects.bulk_create(rows.lines)
    InvoiceLinePart.objects.bulk_create(rows.parts)
    InvoiceDiscount.objects.bulk_create(rows.discounts)
    InvoiceAdjustment.objects.bulk_create(rows.adjustments)
    BilledLateUsage.objects.bulk_create(rows.late_usage)


FIGURES = (
    *("currency", "tax_rate", "tax_is_inclusive", "subscription_fee", "usage_fee", "discounts"),
    *("credits_used", "adjustments", "tax", "credited", "total_amount", "prepaid_used"),
    *("amount_due", "computed_at"),
)
"""The columns of an invoice that a statement fills."""


def replace_statements(
    drafts: Sequence[tuple[Invoice, Statement]], *, now: datetime
) -> list[StatementRows]:
    """Save drafts' lines and discounts in place of those they had; return what each has now.

    Their own figures are set, and left to the caller to save.
    """
    _clear([invoice for invoice, _ in drafts])
    for invoice, statement in drafts:
        _set_figures(invoice, statement, now=now)
    return _copy_rows(drafts)


def unsaved_rows(invoice: Invoice, statement: Statement, *, now: datetime) -> list[Model]:
    """Return a new draft and what hangs on it, in the order in which the rows can be saved."""
    _set_figures(invoice, statement, now=now)
    rows = _rows_of(invoice, statement)
    return [invoice, *rows.lines, *rows.parts, *rows.discounts, *rows.adjustments]


def write_new_statements(drafts: Sequence[tuple[Invoice, Statement]], *, now: datetime) -> None:
    """Save many new drafts with their figures, lines and discounts, a COPY for each table."""
    for invoice, statement in drafts:
        _set_figures(invoice, statement, now=now)
    copy_in([invoice for invoice, _ in drafts])
    _copy_rows(drafts)


def _copy_rows(drafts: Sequence[tuple[Invoice, Statement]]) -> list[StatementRows]:
    """Save what hangs on drafts that have their keys, and return it."""
    rows = [_rows_of(invoice, statement) for invoice, statement in drafts]
    copy_in([line for of_draft in rows for line in of_draft.lines])
    parts = [part for of_draft in rows for part in of_draft.parts]
    adjustments = [adjustment for of_draft in rows for adjustment in of_draft.adjustments]
    for part in parts:
        part.line = part.line  # its line has a key by now
    for adjustment in adjustments:
        adjustment.line = adjustment.line  # as of the parts
    copy_in(parts)
    copy_in([discount for of_draft in rows for discount in of_draft.discounts])
    copy_in(adjustments)
    copy_in([late for of_draft in rows for late in of_draft.late_usage])
    return rows


def has_lines(statement: Statement) -> bool:
    """Return whether there is anything to invoice."""
    return bool(statement.fees or statement.rating.lines or statement.adjustments)


def lines_of(statement: Statement) -> list[InvoiceLine]:
    """Return the lines that an invoice of the statement has, not saved and of no invoice."""
    return _rows_of(Invoice(), statement).lines


def discard_drafts(drafts: Sequence[Invoice]) -> None:
    """Delete drafts with all that hangs on them."""
    _clear(drafts)
    Invoice.objects.filter(pk__in=[draft.pk for draft in drafts]).delete()


def note_unpriced(account: Account, period: Period, rating: Rating, *, now: datetime) -> None:
    """Keep which usage of `period` has no price, in place of what was noted before."""
    account.unpriced_usage.filter(billing_period_start=period.start).delete()
    UnpricedUsage.objects.bulk_create(_unpriced_rows(account, period, rating, now=now))


def note_unpriced_of(noted: Sequence[tuple[Account, Period, Rating]], *, now: datetime) -> None:
    """Do what `note_unpriced` does for many accounts, one period of each."""
    UnpricedUsage.objects.filter(
        account__in=[account for account, _, _ in noted],
        billing_period_start__in={period.start for _, period, _ in noted},
    ).delete()
    copy_in([row for one in noted for row in _unpriced_rows(*one, now=now)])


def _unpriced_rows(
    account: Account, period: Period, rating: Rating, *, now: datetime
) -> list[UnpricedUsage]:
    return [
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
    ]


def _clear(drafts: Sequence[Invoice]) -> None:
    keys = [draft.pk for draft in drafts]
    InvoiceLinePart.objects.filter(line__invoice__in=keys).delete()
    InvoiceAdjustment.objects.filter(line__invoice__in=keys).delete()
    # Not by way of the models: the lines would be read first, to look for what hangs on them.
    for model in (BilledLateUsage, InvoiceLine, InvoiceDiscount):
        delete_rows(model, "invoice_id", keys)


def _set_figures(invoice: Invoice, statement: Statement, *, now: datetime) -> None:
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


def _rows_of(invoice: Invoice, statement: Statement) -> StatementRows:
    """Return the rows of a draft that has its key."""
    rated = statement.rating.lines
    usage = [
        _usage_line(line, discount)
        for line, discount in zip(rated, statement.line_discounts, strict=True)
    ]
    adjusted = [_adjustment_line(adjustment) for adjustment in statement.adjustments]
    lines = [
        *(_fee_line(fee) for fee in statement.fees),
        *(_fee_discount_line(discount, statement) for discount in statement.fee_discounts),
        *usage,
        *adjusted,
    ]
    for position, line in enumerate(lines, start=1):
        line.invoice, line.position = invoice, position
    parts = [
        part
        for row, line in zip(usage, rated, strict=True)
        if row.unit_price is None
        for part in _line_parts(row, line.parts)
    ]
    return StatementRows(
        lines,
        parts,
        list(_discounts(invoice, statement)),
        [
            _adjustment(line, adjustment)
            for line, adjustment in zip(adjusted, statement.adjustments, strict=True)
        ],
        [_late_usage(invoice, window) for window in statement.facts.carried.late_usage],
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


def _adjustment_line(adjustment: Adjustment) -> InvoiceLine:
    meter = adjustment.meter
    description = adjustment.description or _ADJUSTMENT_DESCRIPTIONS[adjustment.component].format(
        meter=meter and _DESCRIPTIONS[meter]
    )
    unit = UNITS[meter] if meter else None
    return InvoiceLine(
        kind=InvoiceLine.Kind.ADJUSTMENT,
        description=description,
        meter=meter or "",
        quantity=adjustment.quantity if unit else 1,
        base_unit=unit.stored if unit else "adjustments",
        unit=unit.shown if unit else "adjustments",
        unit_size=unit.size if unit else 1,
        # A difference has no price: its quantity may lie in several tiers.
        unit_price=None,
        amount=adjustment.amount.amount,
        period_start=adjustment.period.start,
        period_end=adjustment.period.end,
    )


def _adjustment(line: InvoiceLine, adjustment: Adjustment) -> InvoiceAdjustment:
    return InvoiceAdjustment(
        line=line,
        component=adjustment.component,
        billing_period_start=adjustment.billing_period.start,
        billing_period_end=adjustment.billing_period.end,
        grant_id=adjustment.credit_id,
        correction_line_id=adjustment.correction_line_id,
    )


def _late_usage(invoice: Invoice, window: LateWindow) -> BilledLateUsage:
    return BilledLateUsage(
        invoice=invoice,
        meter=window.meter,
        sandbox_id=window.sandbox_id,
        life_id=window.life_id,
        window_start=window.window_start,
        quantity=window.quantity,
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
