"""What a whole period costs by its quantity, for the charges of which that is a curve."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from math import floor, lcm
from typing import NamedTuple

from billing.charges import ZERO, Graduated, PerUnit, Price, Tier, Volume

CACHED_CURVES = 4096
"""Prices whose curves are kept, of the meters and currencies of all books in use."""


class Curve(NamedTuple):
    """A cost that grows in straight pieces with the quantity, in whole numbers for speed.

    Each piece is an intercept and a slope, and costs (intercept + slope × quantity) ÷
    denominator. Piece i holds above edge i - 1, up to and including edge i, in stored units.
    """

    edges: tuple[int, ...]
    pieces: tuple[tuple[int, int], ...]
    denominator: int


# Each account's prices are read anew and mostly the same; working one out takes far longer
# than looking it up.
@lru_cache(maxsize=CACHED_CURVES)
def curve_of(price: Price, unit_size: int) -> Curve | None:
    """Return the price's curve, without its minimum; None when its charge has none.

    `unit_size` stored units are one shown unit.
    """
    free = Fraction(price.free_units) * unit_size
    match price.charge:
        case PerUnit(unit_price):
            return _graduated_curve([Tier(None, unit_price)], free, unit_size)
        case Graduated(tiers):
            return _graduated_curve(tiers, free, unit_size)
        case Volume(tiers):
            return _volume_curve(tiers, free, unit_size)
        case _:
            return None


def _graduated_curve(tiers: Sequence[Tier], free: Fraction, unit_size: int) -> Curve:
    edges, pieces = [free], [(Fraction(tiers[0].flat_fee), ZERO)]
    cost = ZERO
    for tier in tiers:
        cost += Fraction(tier.flat_fee)
        rate = Fraction(tier.unit_price) / unit_size
        pieces.append((cost - edges[-1] * rate, rate))
        if tier.up_to is not None:
            upper = free + Fraction(tier.up_to) * unit_size
            cost += (upper - edges[-1]) * rate
            edges.append(upper)
    return _curve(edges, pieces)


def _volume_curve(tiers: Sequence[Tier], free: Fraction, unit_size: int) -> Curve:
    edges, pieces = [free], [(Fraction(tiers[0].flat_fee), ZERO)]
    for tier in tiers:
        rate = Fraction(tier.unit_price) / unit_size
        pieces.append((Fraction(tier.flat_fee) - free * rate, rate))
        if tier.up_to is not None:
            edges.append(free + Fraction(tier.up_to) * unit_size)
    return _curve(edges, pieces)


def _curve(edges: Sequence[Fraction], pieces: Sequence[tuple[Fraction, Fraction]]) -> Curve:
    denominator = lcm(*(number.denominator for piece in pieces for number in piece))
    return Curve(
        # A whole quantity is above an edge exactly when it is above the edge rounded down.
        tuple(floor(edge) for edge in edges),
        tuple((int(start * denominator), int(slope * denominator)) for start, slope in pieces),
        denominator,
    )
