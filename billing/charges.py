"""How a quantity becomes a cost: the charge models, exact and without rounding."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from itertools import pairwise
from math import ceil
from typing import ClassVar, NamedTuple, TypeAlias

ZERO = Fraction(0)
MOST_PERCENT = 100


class ChargeModel(StrEnum):
    """How a charge counts. The value names it in tables and the API."""

    PER_UNIT = "per_unit"
    GRADUATED = "graduated"
    VOLUME = "volume"
    PACKAGE = "package"
    PERCENTAGE = "percentage"


class PartKind(StrEnum):
    """What a part of a cost is for."""

    FREE = "free"
    UNITS = "units"
    FLAT_FEE = "flat_fee"
    PACKAGES = "packages"
    PERCENT = "percent"
    EVENTS = "events"
    MAXIMUM = "maximum"
    MINIMUM = "minimum"


@dataclass(frozen=True, slots=True)
class ChargePart:
    """How a part of a line's cost came about; the parts of a line sum to its cost.

    `quantity` is in shown units, packages or events, and times `unit_price` it is the cost. At a
    limit `unit_price` is the limit, and `cost` what it adds (minimum) or takes off (maximum).
    `tier` counts from 1.
    """

    kind: PartKind
    tier: int | None
    quantity: Fraction
    unit_price: Decimal
    cost: Fraction

    @classmethod
    def of(
        cls, kind: PartKind, quantity: Fraction | int, unit_price: Decimal, tier: int | None = None
    ) -> ChargePart:
        """Return the part of a cost that is `quantity` times `unit_price`."""
        exact = Fraction(quantity)
        return cls(kind, tier, exact, unit_price, exact * Fraction(unit_price))


class Stretch(NamedTuple):
    """Where in its period a span's usage lies, in stored units counted from the period's start.

    It begins with what the spans before it used and ends with its own; `whole` is what all spans
    of the period used. The rest says what the spans before it were charged. By default there
    are none before it.
    """

    start: int
    end: int
    whole: int
    events: int = 0
    is_first: bool = True
    # Until another charge model has priced a part of the period, a volume fee is still to come.
    only_volume_before: bool = True
    volume_fee_charged: bool = False
    percentage_cost: Fraction = ZERO


@dataclass(frozen=True, slots=True)
class Chargeable:
    """A stretch in shown units, counted from where the free units were used up."""

    start: Fraction
    end: Fraction
    whole: Fraction
    stretch: Stretch

    @property
    def quantity(self) -> Fraction:
        """What the span itself used beyond the free units."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Tier:
    """Units up to and including `up_to`, from where the tier before ends. None: all the rest.

    Raises ValueError when a number is negative or none at all.
    """

    up_to: Decimal | None
    unit_price: Decimal
    flat_fee: Decimal = Decimal(0)

    def __post_init__(self) -> None:
        if self.up_to is not None:
            _refuse_unless_above_zero("Tier.up_to", self.up_to)
        _refuse_unless_amount("Tier.unit_price", self.unit_price)
        _refuse_unless_amount("Tier.flat_fee", self.flat_fee)


@dataclass(frozen=True, slots=True)
class PerUnit:
    """Every unit at one price. Raises ValueError when the price is negative."""

    model: ClassVar = ChargeModel.PER_UNIT

    unit_price: Decimal

    def __post_init__(self) -> None:
        _refuse_unless_amount("PerUnit.unit_price", self.unit_price)

    def parts(self, used: Chargeable) -> Iterator[ChargePart]:
        """Yield how the cost comes about."""
        if used.quantity:
            yield ChargePart.of(PartKind.UNITS, used.quantity, self.unit_price)


@dataclass(frozen=True, slots=True)
class Graduated:
    """Each tier's units at the tier's own price, and its flat fee once it is entered.

    Zero usage has entered the first tier. Raises ValueError when the tiers are not in order.
    """

    model: ClassVar = ChargeModel.GRADUATED

    tiers: tuple[Tier, ...]

    def __post_init__(self) -> None:
        _refuse_unless_in_order("Graduated.tiers", self.tiers)

    def parts(self, used: Chargeable) -> Iterator[ChargePart]:
        """Yield how the cost comes about, tier by tier."""
        lower = ZERO
        for number, tier in enumerate(self.tiers, start=1):
            upper = used.end if tier.up_to is None else min(used.end, Fraction(tier.up_to))
            is_entered = used.stretch.is_first if number == 1 else used.start <= lower < used.end
            if is_entered and tier.flat_fee:
                yield ChargePart.of(PartKind.FLAT_FEE, 1, tier.flat_fee, number)
            if (units := upper - max(used.start, lower)) > 0:
                yield ChargePart.of(PartKind.UNITS, units, tier.unit_price, number)
            lower = upper


@dataclass(frozen=True, slots=True)
class Volume:
    """All units at the price of the tier that the whole period reached, and its flat fee alone.

    Zero usage reaches the first tier. Raises ValueError when the tiers are not in order.
    """

    model: ClassVar = ChargeModel.VOLUME

    tiers: tuple[Tier, ...]

    def __post_init__(self) -> None:
        _refuse_unless_in_order("Volume.tiers", self.tiers)

    def parts(self, used: Chargeable) -> Iterator[ChargePart]:
        """Yield how the cost comes about."""
        at = bisect_left(self._edges, used.whole)
        tier, number = self.tiers[at], at + 1
        if tier.flat_fee and self.charges_fee_in(used):
            yield ChargePart.of(PartKind.FLAT_FEE, 1, tier.flat_fee, number)
        if used.quantity:
            yield ChargePart.of(PartKind.UNITS, used.quantity, tier.unit_price, number)

    def charges_fee_in(self, used: Chargeable) -> bool:
        """Return whether the flat fee of the tier reached is due in this span.

        It is due once a period, in the span that entered the tier. Where versions differ in
        their tiers, it may be that none entered the tier its own version says was reached; then
        it is due in the first span that finds itself there.
        """
        edges = self._edges
        at = bisect_left(edges, used.whole)
        is_there = at == 0 or used.end > edges[at - 1]
        was_there = at == 0 or used.start > edges[at - 1]
        return (
            is_there
            and not used.stretch.volume_fee_charged
            and (used.stretch.only_volume_before or not was_there)
        )

    @property
    def _edges(self) -> list[Fraction]:
        return [Fraction(tier.up_to) for tier in self.tiers if tier.up_to is not None]


@dataclass(frozen=True, slots=True)
class Package:
    """`price` for each package of `size` units; one that is started is billed whole.

    Raises ValueError when the price is negative or the size not above zero.
    """

    model: ClassVar = ChargeModel.PACKAGE

    price: Decimal
    size: Decimal

    def __post_init__(self) -> None:
        _refuse_unless_amount("Package.price", self.price)
        _refuse_unless_above_zero("Package.size", self.size)

    def parts(self, used: Chargeable) -> Iterator[ChargePart]:
        """Yield how the cost comes about."""
        size = Fraction(self.size)
        if started := ceil(used.end / size) - ceil(used.start / size):
            yield ChargePart.of(PartKind.PACKAGES, started, self.price)


@dataclass(frozen=True, slots=True)
class Percentage:
    """`percent` of the quantity, taken as money, and a fee for each event; at most `maximum`.

    The maximum holds for the period. Raises ValueError when a number is negative or the percent
    above 100.
    """

    model: ClassVar = ChargeModel.PERCENTAGE

    percent: Decimal
    fee_per_event: Decimal = Decimal(0)
    maximum: Decimal | None = None

    def __post_init__(self) -> None:
        _refuse_unless_amount("Percentage.percent", self.percent)
        if self.percent > MOST_PERCENT:
            raise ValueError(f"Percentage.percent is {self.percent}. Give {MOST_PERCENT} or less.")
        _refuse_unless_amount("Percentage.fee_per_event", self.fee_per_event)
        if self.maximum is not None:
            _refuse_unless_amount("Percentage.maximum", self.maximum)

    def parts(self, used: Chargeable) -> Iterator[ChargePart]:
        """Yield how the cost comes about."""
        cost = ZERO
        if used.quantity:
            yield (part := ChargePart.of(PartKind.PERCENT, used.quantity, self._unit_price))
            cost += part.cost
        if used.stretch.events and self.fee_per_event:
            yield (part := ChargePart.of(PartKind.EVENTS, used.stretch.events, self.fee_per_event))
            cost += part.cost
        if self.maximum is not None:
            left = max(ZERO, Fraction(self.maximum) - used.stretch.percentage_cost)
            if cost > left:
                yield ChargePart(
                    PartKind.MAXIMUM, None, Fraction(1), self.maximum, cost=left - cost
                )

    @property
    def _unit_price(self) -> Decimal:
        # Not divided by 100, because a division rounds to the context's precision.
        sign, digits, exponent = self.percent.as_tuple()
        return Decimal((sign, digits, int(exponent) - 2))


Charge: TypeAlias = PerUnit | Graduated | Volume | Package | Percentage


@dataclass(frozen=True, slots=True)
class Price:
    """What a meter costs in one currency, in one version of a price book.

    The first `free_units` of a period cost nothing, and tiers and packages count what is left;
    a period costs at least `minimum`, used or not. Raises ValueError when a number is negative
    or the minimum above the charge's maximum.
    """

    charge: Charge
    free_units: Decimal = Decimal(0)
    minimum: Decimal = Decimal(0)

    def __post_init__(self) -> None:
        _refuse_unless_amount("Price.free_units", self.free_units)
        _refuse_unless_amount("Price.minimum", self.minimum)
        maximum = self.charge.maximum if isinstance(self.charge, Percentage) else None
        if maximum is not None and self.minimum > maximum:
            raise ValueError(
                f"Price.minimum {self.minimum} is above the charge's maximum {maximum}. "
                "Lower the minimum or raise the maximum."
            )

    def parts(self, stretch: Stretch, unit_size: int) -> Iterator[ChargePart]:
        """Yield how the cost of a span comes about, but for the period's minimum.

        `unit_size` stored units are one shown unit.
        """
        used = self._chargeable(stretch, unit_size)
        if free := Fraction(stretch.end - stretch.start, unit_size) - used.quantity:
            yield ChargePart.of(PartKind.FREE, free, Decimal(0))
        yield from self.charge.parts(used)

    def next_stretch(
        self, stretch: Stretch, numerator: int, denominator: int, unit_size: int
    ) -> Stretch:
        """Return where the next span begins, when `stretch` had this price and that cost."""
        fee_charged, percentage_cost = stretch.volume_fee_charged, stretch.percentage_cost
        is_volume = isinstance(self.charge, Volume)
        if isinstance(self.charge, Volume) and not fee_charged:
            fee_charged = self.charge.charges_fee_in(self._chargeable(stretch, unit_size))
        elif isinstance(self.charge, Percentage):
            percentage_cost += Fraction(numerator, denominator)
        return Stretch(
            stretch.end,
            stretch.end,
            stretch.whole,
            is_first=False,
            only_volume_before=stretch.only_volume_before and is_volume,
            volume_fee_charged=fee_charged,
            percentage_cost=percentage_cost,
        )

    def _chargeable(self, stretch: Stretch, unit_size: int) -> Chargeable:
        free = Fraction(self.free_units)
        return Chargeable(
            max(ZERO, Fraction(stretch.start, unit_size) - free),
            max(ZERO, Fraction(stretch.end, unit_size) - free),
            max(ZERO, Fraction(stretch.whole, unit_size) - free),
            stretch,
        )


def _refuse_unless_in_order(name: str, tiers: Sequence[Tier]) -> None:
    edges = [tier.up_to for tier in tiers if tier.up_to is not None]
    if not tiers or tiers[-1].up_to is not None:
        raise ValueError(f"{name} do not cover every quantity. Add a last tier with up_to None.")
    if len(edges) < len(tiers) - 1:
        raise ValueError(f"{name} have more than one open tier. Give up_to to all but the last.")
    for lower, upper in pairwise(edges):
        if upper <= lower:
            raise ValueError(f"{name}: up_to {upper} follows {lower}. Let up_to rise by tier.")


def _refuse_unless_amount(name: str, value: Decimal) -> None:
    if not value.is_finite():
        raise ValueError(f"{name} is {value}. Give a number.")
    if value < 0:
        raise ValueError(f"{name} is negative: {value}. Give zero or more.")


def _refuse_unless_above_zero(name: str, value: Decimal) -> None:
    _refuse_unless_amount(name, value)
    if not value:
        raise ValueError(f"{name} is zero. Give a number above zero.")
