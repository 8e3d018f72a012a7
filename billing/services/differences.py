"""What a closed period comes to now against all that was invoiced for it, part by part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from django.db.models import QuerySet

from billing.adjustments import Component, CreditMove, move_credits, with_late_usage
from billing.credit_pools import credit_pools
from billing.history import UsageNotKeptError, invoiced_usage, refuse_lost_usage, schedule_in
from billing.late_usage import billed_windows
from billing.lifecycle import NOT_FINAL
from billing.models import (
    Account,
    Correction,
    CorrectionLine,
    Invoice,
    InvoiceAdjustment,
    InvoiceLine,
)
from billing.money import Money
from billing.own_facts import own_facts
from billing.rating import BY_DESIGN, rate_usage
from billing.services.statements import lines_of
from billing.statement import Statement, state_period
from metering.meters import Meter
from metering.period import Period

COMPONENTS = {
    InvoiceLine.Kind.FEE: Component.FEE,
    InvoiceLine.Kind.UNUSED_FEE: Component.FEE,
    InvoiceLine.Kind.FEE_DISCOUNT: Component.FEE_DISCOUNT,
    InvoiceLine.Kind.TRUE_UP: Component.TRUE_UP,
    InvoiceLine.Kind.USAGE: Component.USAGE,
}
"""What of its own period a line is; an adjustment is about another period."""
_NAMED = (Component.FEE, Component.FEE_DISCOUNT)
_OF_THE_PERIOD = (Component.DISCOUNT, Component.TRUE_UP, Component.AMOUNT)
_OF_USAGE = (Component.USAGE, Component.DISCOUNT)
_DESCRIPTIONS = {
    Component.DISCOUNT: "Discounts",
    Component.TRUE_UP: "Up to the committed minimum",
    Component.AMOUNT: "Credited as an amount before",
}


class NotPricedError(ValueError):
    """Usage of the period that should be charged has no price now."""


class _Key(NamedTuple):
    """What a part of a period is told by, on whatever document it is."""

    component: Component
    # Fees have one, usage has a meter.
    name: str
    meter: str
    start: datetime
    end: datetime


class _Part(NamedTuple):
    key: _Key
    amount: Money
    quantity: int = 0
    description: str = ""
    invoice_line_id: int | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """What one part of a period comes to more now, or less below zero, than was invoiced."""

    component: Component
    description: str
    amount: Money
    period: Period
    invoice_line_id: int | None
    meter: Meter | None
    quantity: int


@dataclass(frozen=True, slots=True)
class Rerating:
    """By how much the period differs, and what becomes of its credit because of it."""

    differences: tuple[Difference, ...]
    credit_moves: tuple[CreditMove, ...]


def rerate_period(account: Account, invoice: Invoice) -> Rerating:
    """Return what the invoice's period comes to now less all that was invoiced for it.

    That is its invoice, adjustments of it on later ones, credit notes, and corrections that wait
    for an invoice. Late usage that is not billed yet is in neither. Raises UsageNotKeptError,
    NotPricedError, ValueError.
    """
    period = invoice.period
    statement = _state(account, period)
    now = _merged(_parts_of_lines(lines_of(statement), statement.totals.discounts, period))
    before = _merged(_invoiced(account, invoice))
    differences = []
    for key in sorted(now.keys() | before.keys(), key=_order):
        new, old = now.get(key), before.get(key)
        known = old or new
        nothing = Money.zero(account.currency)
        amount = (new.amount if new else nothing) - (old.amount if old else nothing)
        if known and amount:
            differences.append(
                Difference(
                    key.component,
                    _DESCRIPTIONS.get(key.component) or known.description,
                    amount,
                    Period(key.start, key.end),
                    old.invoice_line_id if old else None,
                    Meter(key.meter) if key.meter else None,
                    (new.quantity if new else 0) - (old.quantity if old else 0),
                )
            )
    moves = move_credits(
        credit_pools(account, period),
        before=_spent(before.values(), account.currency),
        after=_spent(now.values(), account.currency),
    )
    return Rerating(tuple(differences), moves)


def _state(account: Account, period: Period) -> Statement:
    own = own_facts(account, period, schedule=schedule_in(account, period))
    invoiced = invoiced_usage(account.pk, period).get(period.start, {})
    try:
        refuse_lost_usage(rate_usage(own.usage, currency=account.currency), invoiced)
    except UsageNotKeptError:
        raise UsageNotKeptError(
            f"Usage records from {period.start} are not kept any more."
        ) from None
    usage = with_late_usage(own.usage, billed_windows(account.pk, period))
    statement = state_period(replace(own, usage=usage, credits_held=()))
    if mistakes := [one for one in statement.rating.unpriced if one.reason not in BY_DESIGN]:
        raise NotPricedError("; ".join(f"{one.meter}: {one.reason}" for one in mistakes))
    return statement


def _parts_of_lines(
    lines: Iterable[InvoiceLine], discounts: Money, period: Period
) -> Iterator[_Part]:
    """Yield the parts that an invoice's own lines and its discounts are."""
    if discounts:
        yield _Part(_key(Component.DISCOUNT, "", "", period, period), -discounts)
    for line in lines:
        component = COMPONENTS[InvoiceLine.Kind(line.kind)]
        yield _Part(
            _key(component, line.description, line.meter, line.period, period),
            Money(line.amount, discounts.currency),
            int(line.quantity) if line.meter else 0,
            line.description,
            line.pk,
        )


def _invoiced(account: Account, invoice: Invoice) -> Iterator[_Part]:
    """Yield what was asked for the invoice's period: by it, by later ones, and by corrections."""
    period, currency = invoice.period, invoice.currency
    own = invoice.lines.filter(kind__in=COMPONENTS)
    yield from _parts_of_lines(own, Money(invoice.discounts, currency), period)
    for adjustment in _adjustments_of(account, period).filter(correction_line__isnull=True):
        yield _of_adjustment(adjustment, Money(adjustment.line.amount, currency), period)
    corrected = (
        CorrectionLine.objects.filter(correction__status=Correction.Status.APPLIED)
        .exclude(component=Component.CREDIT)
        .select_related("invoice_line__adjustment")
    )
    for line in corrected.filter(
        correction__invoice__account=account,
        correction__invoice__period_start=period.start,
        correction__invoice__period_end=period.end,
    ):
        # What was credited of an adjustment is about the period that it adjusts.
        if line.invoice_line is None or line.invoice_line.kind in COMPONENTS:
            yield _Part(
                _key(
                    Component(line.component),
                    line.description,
                    line.meter,
                    Period(line.period_start, line.period_end),
                    period,
                ),
                Money(line.amount, currency),
                int(line.quantity),
                line.description,
                line.invoice_line_id,
            )
    adjustments = {row.line_id: row for row in _adjustments_of(account, period)}
    for line in corrected.filter(invoice_line__in=list(adjustments)):
        if line.invoice_line_id in adjustments:
            adjustment = adjustments[line.invoice_line_id]
            yield _of_adjustment(adjustment, Money(line.amount, currency), period)._replace(
                quantity=int(line.quantity)
            )


def _adjustments_of(account: Account, period: Period) -> QuerySet[InvoiceAdjustment]:
    return (
        InvoiceAdjustment.objects.filter(
            line__invoice__account=account,
            billing_period_start=period.start,
            billing_period_end=period.end,
        )
        .exclude(component=Component.CREDIT)
        .exclude(line__invoice__status__in=NOT_FINAL)
        .select_related("line")
    )


def _of_adjustment(adjustment: InvoiceAdjustment, amount: Money, period: Period) -> _Part:
    line = adjustment.line
    component = Component(adjustment.component)
    return _Part(
        _key(component, line.description, line.meter, line.period, period),
        amount,
        int(line.quantity) if line.meter else 0,
        line.description,
    )


def _key(component: Component, name: str, meter: str, part: Period, period: Period) -> _Key:
    """Return what the part is told by; discounts and the true-up are the whole period's."""
    if component in _OF_THE_PERIOD:
        part = period
    named = name if component in _NAMED else ""
    return _Key(component, named, str(meter), part.start, part.end)


def _merged(parts: Iterable[_Part]) -> dict[_Key, _Part]:
    merged: dict[_Key, _Part] = {}
    for part in parts:
        if known := merged.get(part.key):
            merged[part.key] = known._replace(
                amount=known.amount + part.amount, quantity=known.quantity + part.quantity
            )
        else:
            merged[part.key] = part
    return merged


def _spent(parts: Iterable[_Part], currency: str) -> Money:
    """Return what credit may pay: the usage fee after discounts."""
    return Money.total((part.amount for part in parts if part.key.component in _OF_USAGE), currency)


def _order(key: _Key) -> tuple[int, datetime, int, str]:
    meters = list(Meter)
    at = meters.index(Meter(key.meter)) if key.meter else 0
    return list(Component).index(key.component), key.start, at, key.name
