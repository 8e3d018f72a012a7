"""Facts of a period, for tests of what it comes to."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from billing.charges import PerUnit, Price
from billing.credits import Credit, CreditKind
from billing.discounts import DiscountRule
from billing.fees import Subscribed
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


def dollars(text: str | Decimal) -> Money:
    """Return an amount of dollars."""
    return Money(Decimal(text), "USD")


def monthly_credit(amount: str | Decimal, credit_id: int = 1) -> Credit:
    """Return the credit of May that comes with a plan."""
    return Credit(credit_id, CreditKind.MONTHLY, dollars(amount), MAY.start, MAY.end)


def facts(  # one argument a part of the facts
    usage: Mapping[Meter, int],
    *,
    subscriptions: tuple[Subscribed, ...] = (),
    rules: tuple[DiscountRule, ...] = (),
    credits_held: tuple[Credit, ...] = (),
    tax: Tax | None = None,
    prices: Prices | None = DEFAULT,
) -> PeriodFacts:
    """Return what an account's May depends on."""
    return PeriodFacts(
        period=MAY,
        schedule=IN_UTC,
        currency="USD",
        tax=tax or Tax(),
        subscriptions=subscriptions,
        usage=(PricedUsage(MAY, usage, prices),),
        rules=rules,
        credits_held=credits_held,
    )
