"""Whose cost it is: a period's exact cost shared out by quantity."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, TypeVar

from billing.rating import RatedLine
from metering.meters import Meter
from metering.period import Period

K = TypeVar("K")


class UsageNotAttributedError(Exception):
    """The parts that a line's cost is shared out over do not sum to what they are parts of."""


@dataclass(frozen=True, slots=True)
class UsedPart(Generic[K]):
    """What each key used in a span of time, in base units, and what all used together."""

    period: Period
    total: Mapping[Meter, int]
    by_key: Mapping[K, Mapping[Meter, int]]


@dataclass(frozen=True, slots=True)
class AttributedCost(Generic[K]):
    """An exact cost by key and meter.

    `without_usage` is what is due at zero usage, as a minimum is, and so is nobody's share.
    """

    by_key: Mapping[K, Mapping[Meter, Fraction]]
    without_usage: Fraction

    @property
    def raw_cost(self) -> Fraction:
        """The exact cost of all."""
        keyed = (sum(costs.values(), start=Fraction(0)) for costs in self.by_key.values())
        return sum(keyed, start=self.without_usage)


def attribute_cost(
    lines: Iterable[RatedLine], parts: Mapping[Period, UsedPart[K]]
) -> AttributedCost[K]:
    """Return each key's share of the lines' cost: the line's cost × its quantity ÷ the line's.

    `parts` holds, by the lines' spans, what was used in them, or in the part of them that is
    asked about. Raises UsageNotAttributedError when the keys' quantities are not the part's.
    """
    by_key: defaultdict[K, defaultdict[Meter, Fraction]] = defaultdict(
        lambda: defaultdict(Fraction)
    )
    without_usage = Fraction(0)
    for line in lines:
        if (part := parts.get(line.period)) is None:
            continue
        if not line.quantity:
            if part.period == line.period:
                without_usage += line.cost
            continue
        shared = {key: used.get(line.meter, 0) for key, used in part.by_key.items()}
        total = part.total.get(line.meter, 0)
        if sum(shared.values()) != total or total > line.quantity:
            raise UsageNotAttributedError(
                f"{line.meter} in {part.period}: the parts are {sum(shared.values())}, "
                f"the whole is {total}."
            )
        cost_of_one = line.cost / line.quantity
        for key, quantity in shared.items():
            if quantity:
                by_key[key][line.meter] += cost_of_one * quantity
    return AttributedCost({key: dict(costs) for key, costs in by_key.items()}, without_usage)
