"""Shares the exact cost of usage out over slices of time, by quantity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

_ZERO = Fraction(0)


@dataclass(frozen=True, slots=True)
class CostedSpan:
    """What so much of a meter cost, in a span of time. Spans follow one another."""

    quantity: int
    cost: Fraction


@dataclass(frozen=True, slots=True)
class SharedCost:
    """What each slice bears, in their order, and what was due where nothing was used."""

    costs: Sequence[Fraction]
    without_usage: Fraction


def share_in_order(spans: Sequence[CostedSpan], used: Sequence[int]) -> SharedCost:
    """Return what each slice bears of the spans' cost; all of it together is that cost.

    Spans and slices divide the same time, both in order. So a span pays for what is used from
    where the one before ended: of a slice that lies in two spans, the first bears what is left
    of it. Where the slices do not add up to the spans, the spans are stretched to fit.
    """
    without_usage = sum((span.cost for span in spans if not span.quantity), start=_ZERO)
    paying = [span for span in spans if span.quantity]
    in_all = sum(used)
    if not in_all:
        due = sum((span.cost for span in paying), start=without_usage)
        return SharedCost([_ZERO] * len(used), due)
    stretch = Fraction(in_all, sum(span.quantity for span in paying) or 1)
    costs = []
    place = iter(paying)
    left: int | Fraction = 0
    price = _ZERO
    for quantity in used:
        if quantity <= left:
            # Mostly it lies in one span; and mostly in whole numbers, which are quick.
            costs.append(quantity * price if quantity else _ZERO)
            left -= quantity
            continue
        cost, wanted = _ZERO, Fraction(quantity) if stretch != 1 else quantity
        while wanted > left and (span := next(place, None)):
            cost += left * price
            wanted -= left
            left = span.quantity * stretch if stretch != 1 else span.quantity
            price = span.cost / left
        taken = min(wanted, left)
        costs.append(cost + taken * price)
        left -= taken
    return SharedCost(costs, without_usage)
