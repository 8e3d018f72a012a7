"""What a billing period came to: as its invoice says, or as the statement so far does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from fractions import Fraction
from uuid import UUID

from billing.account_terms import period_containing
from billing.facts import period_facts
from billing.history import BILLING_A_PERIOD, billing_periods, last_closed_periods, schedule_in
from billing.lifecycle import NOT_FINAL
from billing.models import Account, Invoice
from billing.money import Money
from billing.own_facts import own_facts
from billing.period_costs import MeterSpan, invoiced_spans
from billing.queries import one_snapshot
from billing.statement import Statement, state_period
from billing.totals import InvoiceTotals
from metering.calendars import calendar_of
from metering.meters import Meter
from metering.period import Period
from metering.settled import quantities_so_far

CURRENT, PREVIOUS = "current", "previous"
PERIOD_NAME = re.compile(r"current|previous|20[0-9]{2}-(0[1-9]|1[0-2])")
_ZERO = Fraction(0)


class NoSuchPeriodError(LookupError):
    """The account has no such billing period; the message says why."""


@dataclass(frozen=True, slots=True)
class PeriodSummary:
    """What was used in a billing period, in base units, and what it came to.

    `raw_cost` is exact. Amounts are the invoice's where there is a final one, else those of an
    invoice made now.
    """

    period: Period
    currency: str
    invoice: Invoice | None
    usage: Mapping[Meter, int]
    cost_by_meter: Mapping[Meter, Fraction]
    raw_cost: Fraction
    subscription_fee: Money
    usage_fee: Money
    discounts: Money
    credits_used: Money
    adjustments: Money
    tax: Money
    total_amount: Money
    prepaid_used: Money
    amount_due: Money


def summarise_period(account_id: UUID, name: str, *, now: datetime) -> PeriodSummary:
    """Return the summary of the billing period that `name` says, one of PERIOD_NAME.

    A month is one of the account's time zone. Where several periods begin in it, as after a
    cancellation, it is the first of them. Raises NoSuchPeriodError, Account.DoesNotExist,
    ValueError.
    """
    with one_snapshot():
        account = Account.objects.get(pk=account_id)
        period = _period_of(account, name, now)
        invoice = (
            Invoice.objects.filter(
                account=account, kind__in=BILLING_A_PERIOD, period_start=period.start
            )
            .exclude(status__in=NOT_FINAL)
            .prefetch_related("lines__parts")
            .first()
        )
        if invoice:
            return _invoiced(invoice)
        if period.start >= account.open_period_start:
            facts = period_facts(account, period, used=quantities_so_far)
            return _stated(state_period(facts))
        facts = own_facts(account, period, schedule=schedule_in(account, period))
        return _stated(state_period(facts))


def _period_of(account: Account, name: str, now: datetime) -> Period:
    if name == CURRENT:
        return period_containing(account, now)
    if name == PREVIOUS:
        return _before(account, period_containing(account, now))
    first = date.fromisoformat(f"{name}-01")
    after = (first + timedelta(days=31)).replace(day=1)
    month = calendar_of(account.pk).span(first, after - timedelta(days=1))
    if month is None or month.start > now:
        raise NoSuchPeriodError(f"The period of {name} has not begun.")
    for period in billing_periods(account, month):
        if period.start >= month.start and period.end > account.opened_at:
            if period.start > now:
                raise NoSuchPeriodError(f"The period of {name} has not begun.")
            return period
    raise NoSuchPeriodError(f"No billing period of the account begins in {name}.")


def _before(account: Account, current: Period) -> Period:
    if current.start > account.open_period_start:
        # Its invoice waits to be made final, and those before it are closed.
        span = Period(account.open_period_start, current.start)
        return billing_periods(account, span)[-1]
    if closed := last_closed_periods(account, 1):
        return closed[-1]
    raise NoSuchPeriodError("The account is in its first billing period.")


def _invoiced(invoice: Invoice) -> PeriodSummary:
    spans = invoiced_spans(list(invoice.lines.all()))

    def money(column: str) -> Money:
        return Money(getattr(invoice, column), invoice.currency)

    return PeriodSummary(
        period=invoice.period,
        currency=invoice.currency,
        invoice=invoice,
        usage=_usage(spans),
        cost_by_meter=_costs(spans),
        raw_cost=sum((span.cost for span in spans), start=_ZERO),
        **{column: money(column) for column in _AMOUNTS},
    )


_AMOUNTS = (
    "subscription_fee",
    "usage_fee",
    "discounts",
    "credits_used",
    "adjustments",
    "tax",
    "total_amount",
    "prepaid_used",
    "amount_due",
)
"""Columns of an invoice, and fields of InvoiceTotals."""


def _stated(statement: Statement) -> PeriodSummary:
    rating, totals = statement.rating, statement.totals
    spans = [MeterSpan(line.meter, line.period, line.quantity, line.cost) for line in rating.lines]
    return PeriodSummary(
        period=statement.facts.period,
        currency=statement.facts.currency,
        invoice=None,
        usage=rating.usage,
        cost_by_meter=_costs(spans),
        raw_cost=rating.raw_cost,
        **{column: _amount(totals, column) for column in _AMOUNTS},
    )


def _amount(totals: InvoiceTotals, column: str) -> Money:
    amount: Money = getattr(totals, column)
    return amount


def _usage(spans: list[MeterSpan]) -> dict[Meter, int]:
    usage: dict[Meter, int] = {}
    for span in spans:
        if span.quantity:
            usage[span.meter] = usage.get(span.meter, 0) + span.quantity
    return usage


def _costs(spans: list[MeterSpan]) -> dict[Meter, Fraction]:
    costs: dict[Meter, Fraction] = {}
    for span in spans:
        costs[span.meter] = costs.get(span.meter, _ZERO) + span.cost
    return costs
