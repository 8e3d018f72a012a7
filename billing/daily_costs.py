"""Shares the cost of usage out over its days."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

from billing.money import Money
from metering.meters import Meter

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class UsageCost:
    """What the usage of a meter on the local days `first` to `last`, both included, came to."""

    meter: Meter
    first: date
    last: date
    amount: Money

    def __post_init__(self) -> None:
        if self.last < self.first:
            raise ValueError(f"{self.last} is before {self.first}.")


def cost_by_day(
    costs: Iterable[UsageCost], usage: Mapping[date, Mapping[Meter, int]]
) -> dict[tuple[date, Meter], Decimal]:
    """Return what each day bears of the costs, by quantity, as amounts in their currency.

    The days of a cost add up to it, to the last digit. Where the quantities of its days are not
    known, they bear as equal parts of it as can be. Costs are of one currency.
    """
    by_day: defaultdict[tuple[date, Meter], Decimal] = defaultdict(Decimal)
    for cost in costs:
        days = [cost.first + at * _DAY for at in range((cost.last - cost.first).days + 1)]
        # A correction may leave a day less than nothing; it bears nothing then.
        weights = [max(0, usage.get(day, {}).get(cost.meter, 0)) for day in days]
        for day, part in zip(days, cost.amount.split(weights), strict=True):
            if part:
                by_day[day, cost.meter] += part.amount
    return dict(by_day)
