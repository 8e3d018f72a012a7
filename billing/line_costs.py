"""What an invoice's lines cost exactly, from what is written on them.

Rating made the lines; this reads them back and reckons anew, so that both can be compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Final, Protocol

from billing.charges import ZERO, ChargeModel, PartKind

USAGE: Final = "usage"
UNUSED_FEE: Final = "unused_fee"
FEE_DISCOUNT: Final = "fee_discount"
_RECKONED: Final = ("fee", UNUSED_FEE, FEE_DISCOUNT, USAGE)


class LineRow(Protocol):
    """A line as its row has it. `quantity` is in base units, `unit_size` of which are one unit."""

    @property
    def kind(self) -> str:
        """What it is for."""

    @property
    def meter(self) -> str:
        """Of usage."""

    @property
    def charge(self) -> str:
        """Of usage: how it counts."""

    @property
    def quantity(self) -> Decimal:
        """In base units."""

    @property
    def unit_size(self) -> Decimal:
        """How many base units the unit of the price has."""

    @property
    def unit_price(self) -> Decimal | None:
        """Of one unit; None where the parts say how, or nothing does."""


class PartRow(Protocol):
    """A part of a line's cost as its row has it."""

    @property
    def kind(self) -> str:
        """What it is for."""

    @property
    def tier(self) -> int | None:
        """Which tier, from 1."""

    @property
    def quantity(self) -> Decimal:
        """In base units, packages or events."""

    @property
    def unit_size(self) -> Decimal:
        """How many base units the unit of the price has."""

    @property
    def unit_price(self) -> Decimal:
        """Of one unit; of a limit, the limit."""


@dataclass(frozen=True, slots=True)
class PartCost:
    """A part of a line's exact cost. `quantity` is in shown units, packages or events."""

    kind: str
    tier: int | None
    quantity: Fraction
    unit_price: Decimal
    cost: Fraction


def line_costs(
    lines: Sequence[tuple[LineRow, Sequence[PartRow]]],
) -> list[tuple[PartCost, ...] | None]:
    """Return the parts of each line's exact cost, in the order of the lines.

    `lines` are all lines of one invoice in their order: minimums and maximums count over all
    lines of a meter. None where a line does not say what it was reckoned from: a true-up, an
    adjustment, a top-up, a mirrored fee.
    """
    costs: list[tuple[PartCost, ...] | None] = [None] * len(lines)
    by_meter: defaultdict[str, list[int]] = defaultdict(list)
    for at, (line, parts) in enumerate(lines):
        if line.kind not in _RECKONED or (line.unit_price is None and not parts):
            continue
        if line.kind == USAGE and parts:
            by_meter[line.meter].append(at)
        else:
            costs[at] = (_at_one_price(line),)
    for meter, places in by_meter.items():
        plain = sum(
            (_sum(costs[at]) for at, (line, _) in enumerate(lines) if line.meter == meter),
            start=ZERO,
        )
        for at, found in zip(places, _of_meter([lines[at] for at in places], plain), strict=True):
            costs[at] = found
    return costs


def _at_one_price(line: LineRow) -> PartCost:
    quantity = Fraction(int(line.quantity), int(line.unit_size))
    price = line.unit_price or Decimal(0)
    sign = -1 if line.kind in (UNUSED_FEE, FEE_DISCOUNT) else 1
    return PartCost(PartKind.UNITS, None, quantity, price, sign * quantity * Fraction(price))


def _of_meter(
    lines: Sequence[tuple[LineRow, Sequence[PartRow]]], plain: Fraction
) -> list[tuple[PartCost, ...]]:
    """Return the parts of one meter's lines; `plain` is what its lines without parts cost."""
    found: list[list[PartCost]] = []
    percentage_cost = ZERO
    for line, parts in lines:
        of_line = list(_before_minimum(parts, percentage_cost))
        if line.charge == ChargeModel.PERCENTAGE:
            percentage_cost += _sum(of_line)
        found.append(of_line)
    # The period's minimum makes up for what all lines of the meter fall short of it.
    below = plain + sum((_sum(of_line) for of_line in found), start=ZERO)
    for of_line, (_, parts) in zip(found, lines, strict=True):
        for part in parts:
            if part.kind == PartKind.MINIMUM:
                missing = Fraction(part.unit_price) - below
                of_line.append(_limit(part, missing))
                below += missing
    return [tuple(of_line) for of_line in found]


def _before_minimum(parts: Sequence[PartRow], percentage_cost: Fraction) -> Iterator[PartCost]:
    cost = ZERO
    for part in parts:
        if part.kind == PartKind.MINIMUM:
            continue
        if part.kind == PartKind.MAXIMUM:
            # The maximum holds for the period: what earlier lines cost is off it.
            left = max(ZERO, Fraction(part.unit_price) - percentage_cost)
            yield _limit(part, left - cost)
            cost = left
            continue
        quantity = Fraction(part.quantity) / Fraction(part.unit_size)
        worth = quantity * Fraction(part.unit_price)
        yield PartCost(part.kind, part.tier, quantity, part.unit_price, worth)
        cost += worth


def _limit(part: PartRow, adds: Fraction) -> PartCost:
    return PartCost(part.kind, part.tier, Fraction(1), part.unit_price, adds)


def _sum(parts: Sequence[PartCost] | None) -> Fraction:
    return sum((part.cost for part in parts or ()), start=ZERO)
