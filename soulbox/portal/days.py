"""What a billing period cost by local day and meter, for the chart and the table beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from uuid import UUID
from zoneinfo import ZoneInfo

from billing.daily_costs import UsageCost, cost_by_day
from billing.money import Money
from billing.queries import CurrentUsage
from metering.meters import Meter
from metering.summaries import daily_usage

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class DayCosts:
    """Amounts by day, from the first to the last, in the order of `meters`; they add up."""

    currency: str
    meters: Sequence[Meter]
    days: Sequence[date]
    amounts: Mapping[date, Sequence[Decimal]]

    @property
    def rows(self) -> list[tuple[date, list[Money], Money]]:
        """Each day with its amounts and their sum."""
        return [
            (
                day,
                [Money(amount, self.currency) for amount in self.amounts[day]],
                Money(sum(self.amounts[day], Decimal(0)), self.currency),
            )
            for day in self.days
        ]


def cost_of_days(
    account_id: UUID, current: CurrentUsage, zone: ZoneInfo, *, now: datetime
) -> DayCosts:
    """Return what each day of the period up to `now` bears of what its usage costs so far.

    Each meter's cost is rounded once and shared out by the day's quantity. What is not in a
    day's summary yet, which is made every hour, was used on the last day.
    """
    first, last = (at.astimezone(zone).date() for at in (current.period.start, now))
    days = [first + at * _DAY for at in range((last - first).days + 1)]
    usage = {day.day: dict(day.usage) for day in daily_usage(account_id, first, last)}
    costs = {
        meter: Money.rounded(cost, current.total_amount.currency)
        for meter, cost in current.cost_by_meter.items()
    }
    meters = [meter for meter in Meter if costs.get(meter)]
    for meter in meters:
        before = sum(usage.get(day, {}).get(meter, 0) for day in days[:-1])
        usage.setdefault(last, {})[meter] = max(0, current.usage.get(meter, 0) - before)
    shares = cost_by_day([UsageCost(meter, first, last, costs[meter]) for meter in meters], usage)
    amounts = {day: [shares.get((day, meter), Decimal(0)) for meter in meters] for day in days}
    return DayCosts(current.total_amount.currency, meters, days, amounts)


def share_of(part: Money, whole: Money) -> Fraction:
    """Return which part of the whole it is; more than all of it is possible."""
    return Fraction(part.amount) / Fraction(whole.amount)
