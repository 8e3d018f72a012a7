"""Facts of a period, for tests of what it comes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from billing.charges import PerUnit, Price
from billing.credits import Credit, CreditKind
from billing.discounts import DiscountRule, RuleKind
from billing.fees import Commitment, Interval, Subscribed
from billing.money import Money
from billing.periods import Cycle, Schedule
from billing.rating import PricedUsage, Prices
from billing.statement import PeriodFacts
from billing.totals import Tax
from metering.meters import GB, Meter
from metering.period import Period

MAY = Period(datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC))
IN_UTC = Schedule(Cycle(ZoneInfo("UTC")))
DEFAULT = Prices(
    {
        (Meter.CPU, "USD"): Price(PerUnit(Decimal("0.000012"))),
        (Meter.MEMORY, "USD"): Price(PerUnit(Decimal("0.000004"))),
        (Meter.STORAGE, "USD"): Price(PerUnit(Decimal("0.0001"))),
        (Meter.NETWORK_EGRESS, "USD"): Price(PerUnit(Decimal("0.02"))),
        (Meter.GPU, "USD"): Price(PerUnit(Decimal("0.0006"))),
    }
)
FIRST_INVOICE = {
    Meter.CPU: 3600 * 10**9,
    Meter.MEMORY: 7200 * GB * 1000,
    Meter.NETWORK_EGRESS: 10 * GB,
    Meter.STORAGE: 100 * GB * 3_600_000,
}
"""Costs 0.282 exactly, and 0.28 by the line."""
LARGE_ACCOUNT = {
    Meter.CPU: 36_000_000 * 10**9,
    Meter.MEMORY: 72_000_000 * GB * 1000,
    Meter.NETWORK_EGRESS: 1000 * GB,
    Meter.STORAGE: 10_000 * GB * 3_600_000,
}
"""Costs 741 exactly."""

SEEDED_RULES = (
    DiscountRule("Volume 500", RuleKind.VOLUME, Decimal(5), min_amount=Decimal(500)),
    DiscountRule("Volume 2,000", RuleKind.VOLUME, Decimal(10), min_amount=Decimal(2000)),
)
"""The volume rules that every installation begins with."""


def dollars(text: str | Decimal) -> Money:
    """Return an amount of dollars."""
    return Money(Decimal(text), "USD")


def utc(text: str) -> datetime:
    """Return a moment written without its zone."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def monthly(  # one argument a term
    fee: str | Decimal,
    start: str,
    end: str | None = None,
    *,
    credits_: str = "100",
    trial_end: datetime | None = None,
    commitment: Commitment | None = None,
    ends_period: bool = False,
) -> Subscribed:
    """Return a subscription with a fee for each period."""
    return Subscribed(
        plan="Plan",
        start=utc(start),
        end=utc(end) if end else None,
        fee=dollars(fee),
        monthly_credits=dollars(credits_),
        trial_end=trial_end,
        commitment=commitment,
        ends_period=ends_period,
    )


def annual(
    fee: str | Decimal,
    start: str,
    end: str | None = None,
    *,
    trial_end: datetime | None = None,
    ends_period: bool = False,
) -> Subscribed:
    """Return a subscription with a fee for each year."""
    terms = monthly(fee, start, end, trial_end=trial_end, ends_period=ends_period)
    return replace(terms, interval=Interval.ANNUAL)


def credit(  # one argument a term
    balance: str | Decimal,
    *,
    kind: CreditKind = CreditKind.PROMOTIONAL,
    credit_id: int = 1,
    effective_at: datetime = MAY.start,
    expires_at: datetime | None = None,
    priority: int = 0,
) -> Credit:
    """Return so many dollars of credit; they are in force in May."""
    return Credit(credit_id, kind, dollars(balance), effective_at, expires_at, priority)


def monthly_credit(amount: str | Decimal, credit_id: int = 1) -> Credit:
    """Return the credit of May that comes with a plan."""
    return credit(amount, kind=CreditKind.MONTHLY, credit_id=credit_id, expires_at=MAY.end)


def facts(  # one argument a part of the facts
    usage: Mapping[Meter, int],
    *,
    subscriptions: tuple[Subscribed, ...] = (),
    rules: tuple[DiscountRule, ...] = (),
    credits_held: tuple[Credit, ...] = (),
    tax: Tax | None = None,
    prices: Prices | None = DEFAULT,
    period: Period = MAY,
) -> PeriodFacts:
    """Return what an account's May, or another period, depends on."""
    return PeriodFacts(
        period=period,
        schedule=IN_UTC,
        currency="USD",
        tax=tax or Tax(),
        subscriptions=subscriptions,
        usage=(PricedUsage(period, usage, prices),),
        rules=rules,
        credits_held=credits_held,
    )


def page_amounts(cell: str) -> list[Money]:
    """Return the dollars that a cell of the page names."""
    return [] if cell == "none" else [dollars(text) for text in cell.split("; ")]


def page_period(cell: str) -> Period:
    """Return the span that a cell of the page names."""
    start, end = cell.split(" to ")
    return Period(utc(start), utc(end))
