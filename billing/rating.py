"""What usage costs: exact, and the same function for the current cost and for the invoice."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from math import ceil, lcm
from typing import Any, NamedTuple

from billing.charges import ZERO, ChargePart, Graduated, PartKind, PerUnit, Price, Stretch
from billing.curves import curve_of
from billing.money import Money, decimals_of, rounded_units
from metering.meters import UNITS, Meter
from metering.period import Period

SHOWN_DECIMALS = 12
"""How far an exact quantity or cost is written out; storage's GB-hours need not end at all."""


class Unpriced(StrEnum):
    """Why usage has no price."""

    METER_NOT_CHARGED = "meter_not_charged"
    NO_PRICE_IN_CURRENCY = "no_price_in_currency"
    NO_PRICES_IN_FORCE = "no_prices_in_force"


# A price book leaves a meter out on purpose; the other reasons are mistakes of ours, and an
# invoice that passed over them would give the usage away without anybody deciding so.
BY_DESIGN = frozenset({Unpriced.METER_NOT_CHARGED})


class _Rate(NamedTuple):
    """A price made ready for the quantities of its meter; see billing.curves.Curve."""

    meter: Meter
    price: Price
    edges: tuple[int, ...]
    pieces: tuple[tuple[int, int], ...]
    denominator: int
    # The numerators of one smallest unit of the currency and of half of it: both are whole.
    unit: int
    half_unit: int
    # The curve does not rule where it comes to this numerator or less.
    least: int

    def numerator(self, quantity: int) -> int:
        """Return the cost of a period's first `quantity`, times the denominator."""
        intercept, slope = self.pieces[bisect_left(self.edges, quantity)]
        return intercept + slope * quantity


class _Rates(NamedTuple):
    """A version's prices in one currency, in the meters' order, and why the others have none."""

    priced: dict[Meter, _Rate]
    unpriced: dict[Meter, Unpriced]


@dataclass(frozen=True, slots=True)
class Prices:
    """The prices of one version of a price book, by meter and currency."""

    prices: Mapping[tuple[Meter, str], Price]
    _rates: dict[str, _Rates] = field(default_factory=dict, init=False, repr=False, compare=False)

    def find(self, meter: Meter, currency: str) -> Price | Unpriced:
        """Return the meter's price in `currency`, or why it has none."""
        if (price := self.prices.get((meter, currency))) is not None:
            return price
        if any(priced is meter for priced, _ in self.prices):
            return Unpriced.NO_PRICE_IN_CURRENCY
        return Unpriced.METER_NOT_CHARGED

    def rates(self, currency: str) -> _Rates:
        """Return the prices in `currency`, made ready at the first call."""
        if (rates := self._rates.get(currency)) is None:
            found = {meter: self.find(meter, currency) for meter in Meter}
            rates = self._rates[currency] = _Rates(
                {
                    meter: _rate(meter, price, currency)
                    for meter, price in found.items()
                    if isinstance(price, Price)
                },
                {meter: why for meter, why in found.items() if isinstance(why, Unpriced)},
            )
        return rates


@dataclass(frozen=True, slots=True)
class PricedUsage:
    """What was used in a span of time in which one version of the prices was in force.

    Quantities are in the meter's stored unit. `prices` is None where no version was in force.
    `events` is how many sandboxes were started.
    """

    period: Period
    usage: Mapping[Meter, int]
    prices: Prices | None
    events: int = 0


class RatedLine(NamedTuple):
    """One meter's usage in one span, at one price. `quantity` is in the meter's stored unit.

    The exact cost is `numerator` ÷ `denominator`, and `minor_units` is that in whole smallest
    units of the currency, rounded once. A tuple of whole numbers, because making Fraction and
    Money for every line would be most of the work of rating.
    """

    meter: Meter
    period: Period
    quantity: int
    price: Price
    currency: str
    numerator: int
    denominator: int
    minor_units: int
    # None: the span is the whole period, and nothing in it is out of the ordinary.
    stretch: Stretch | None = None
    # What the period's minimum adds to the cost.
    added_by_minimum: Fraction = ZERO

    @property
    def cost(self) -> Fraction:
        """The exact cost."""
        return Fraction(self.numerator, self.denominator)

    @property
    def amount(self) -> Money:
        """What an invoice asks for: the cost, rounded once and nowhere after."""
        return Money.of_minor_units(self.minor_units, self.currency)

    @property
    def parts(self) -> tuple[ChargePart, ...]:
        """How the cost came about; the parts sum to it exactly."""
        stretch = self.stretch or Stretch(0, self.quantity, self.quantity)
        parts = tuple(self.price.parts(stretch, UNITS[self.meter].size))
        if not self.added_by_minimum:
            return parts
        return (
            *parts,
            ChargePart(
                PartKind.MINIMUM, None, Fraction(1), self.price.minimum, self.added_by_minimum
            ),
        )


@dataclass(frozen=True, slots=True)
class UnpricedUsage:
    """Usage that is shown and not charged, with the reason."""

    meter: Meter
    period: Period
    quantity: int
    reason: Unpriced


class Rating(NamedTuple):
    """The price of a period's usage, line by line. A tuple for the reason RatedLine is one."""

    currency: str
    # The lines' fields; they get their names when somebody asks for them.
    rows: tuple[tuple[Any, ...], ...]
    unpriced: tuple[UnpricedUsage, ...]
    # The sum of the rows' minor_units.
    usage_fee_units: int

    @property
    def lines(self) -> tuple[RatedLine, ...]:
        """A line per span and meter, in their order."""
        return tuple(RatedLine(*row) for row in self.rows)

    @property
    def raw_cost(self) -> Fraction:
        """The exact cost of all lines."""
        return sum((line.cost for line in self.lines), start=Fraction(0))

    @property
    def usage_fee(self) -> Money:
        """The sum of the rounded lines: what is printed adds up."""
        return Money.of_minor_units(self.usage_fee_units, self.currency)

    @property
    def usage(self) -> dict[Meter, int]:
        """All usage that was rated, priced or not, in stored units."""
        total: Counter[Meter] = Counter()
        for line in self.lines:
            total[line.meter] += line.quantity
        for entry in self.unpriced:
            total[entry.meter] += entry.quantity
        # A line of something that is due all the same has a quantity of zero.
        return dict(+total)

    def cost_of(self, *meters: Meter) -> Fraction:
        """Return the exact cost of some of the meters."""
        return sum((line.cost for line in self.lines if line.meter in meters), start=Fraction(0))


def rate_usage(spans: Sequence[PricedUsage], *, currency: str) -> Rating:
    """Return the price of the usage in `spans`: a line per span and meter, in their order.

    `spans` are the whole of one period, in order. Tiers, allowances, packages, minimums and
    maximums count a meter's priced usage from the period's start and go on across the spans.
    A meter without usage in a span has a line there only if something is due all the same.
    Raises ValueError on a negative quantity.
    """
    if len(spans) != 1 or not (prices := spans[0].prices):
        return _rate_spans(spans, currency)
    # Nearly every account has one span a month, and its cost follows from its quantity.
    period, usage = spans[0].period, spans[0].usage
    priced, unpriced = prices.rates(currency)
    rows: list[tuple[Any, ...]] = []
    fee_units = 0
    for meter, price, edges, pieces, denominator, unit, half_unit, least in priced.values():
        quantity = usage.get(meter, 0)
        intercept, slope = pieces[bisect_left(edges, quantity)]
        numerator = intercept + slope * quantity
        if numerator > least:
            units = (numerator + half_unit) // unit
            rows.append((meter, period, quantity, price, currency, numerator, denominator, units))
            fee_units += units
        elif quantity or least:
            for line in _rate_meter(meter, spans, currency).values():
                rows.append(line)
                fee_units += line.minor_units
    shown = () if unpriced.keys().isdisjoint(usage) else _unpriced_in(spans[0], currency)
    return Rating(currency, tuple(rows), shown, fee_units)


def _rate_spans(spans: Sequence[PricedUsage], currency: str) -> Rating:
    by_meter = [_rate_meter(meter, spans, currency) for meter in Meter]
    lines = [lines[at] for at in range(len(spans)) for lines in by_meter if at in lines]
    unpriced = tuple(entry for span in spans for entry in _unpriced_in(span, currency))
    return Rating(currency, tuple(lines), unpriced, sum(line.minor_units for line in lines))


def _rate_meter(meter: Meter, spans: Sequence[PricedUsage], currency: str) -> dict[int, RatedLine]:
    """Return the meter's lines by the place of their span."""
    priced = [
        (at, span, rate)
        for at, span in enumerate(spans)
        if span.prices and (rate := span.prices.rates(currency).priced.get(meter))
    ]
    lines: dict[int, RatedLine] = {}
    stretch = Stretch(0, 0, sum(_quantity(span, meter) for _, span, _ in priced))
    for at, span, rate in priced:
        quantity = span.usage.get(meter, 0)
        stretch = stretch._replace(end=stretch.start + quantity, events=span.events)
        numerator, denominator = _cost(rate, stretch)
        lines[at] = RatedLine(
            meter,
            span.period,
            quantity,
            rate.price,
            currency,
            numerator,
            denominator,
            rounded_units(numerator, denominator, currency),
            stretch,
        )
        stretch = rate.price.next_stretch(stretch, numerator, denominator, UNITS[meter].size)
    _add_minimum(lines)
    return {at: line for at, line in lines.items() if line.quantity or line.numerator}


def _cost(rate: _Rate, stretch: Stretch) -> tuple[int, int]:
    """Return the numerator and denominator of what the stretch costs, without a minimum."""
    if isinstance(rate.price.charge, PerUnit | Graduated):
        before = 0 if stretch.is_first else rate.numerator(stretch.start)
        return rate.numerator(stretch.end) - before, rate.denominator
    parts = rate.price.parts(stretch, UNITS[rate.meter].size)
    return sum((part.cost for part in parts), start=ZERO).as_integer_ratio()


def _add_minimum(lines: dict[int, RatedLine]) -> None:
    """Let the last price with a minimum make up for what the period's lines fall short of it."""
    for at, line in reversed(lines.items()):
        if minimum := line.price.minimum:
            missing = Fraction(minimum) - sum((line.cost for line in lines.values()), start=ZERO)
            if missing > 0:
                numerator, denominator = (line.cost + missing).as_integer_ratio()
                lines[at] = line._replace(
                    numerator=numerator,
                    denominator=denominator,
                    minor_units=rounded_units(numerator, denominator, line.currency),
                    added_by_minimum=missing,
                )
            return


def _unpriced_in(span: PricedUsage, currency: str) -> tuple[UnpricedUsage, ...]:
    reasons = (
        span.prices.rates(currency).unpriced
        if span.prices
        else dict.fromkeys(Meter, Unpriced.NO_PRICES_IN_FORCE)
    )
    return tuple(
        UnpricedUsage(meter, span.period, quantity, why)
        for meter, why in reasons.items()
        if (quantity := _quantity(span, meter))
    )


def _quantity(span: PricedUsage, meter: Meter) -> int:
    quantity = span.usage.get(meter, 0)
    if quantity < 0:
        raise ValueError(f"The usage of {meter} in {span.period} is negative: {quantity}.")
    return quantity


def _rate(meter: Meter, price: Price, currency: str) -> _Rate:
    curve = curve_of(price, UNITS[meter].size)
    if curve is None:
        # A curve that never rules.
        return _Rate(meter, price, (), ((0, 0),), 1, 1, 1, least=1)
    # Rounding is then a sum and a division: a half of the smallest unit has a whole numerator.
    doubled_scale = 2 * 10 ** decimals_of(currency)
    times = lcm(curve.denominator, doubled_scale) // curve.denominator
    denominator = times * curve.denominator
    half_unit = denominator // doubled_scale
    return _Rate(
        meter,
        price,
        # The piece before the first is for a negative quantity, which the curve does not rule.
        (-1, *curve.edges),
        ((0, 0), *((times * intercept, times * slope) for intercept, slope in curve.pieces)),
        denominator,
        2 * half_unit,
        half_unit,
        # A whole number is below the minimum exactly when it is below the minimum rounded up.
        max(0, ceil(Fraction(price.minimum) * denominator) - 1),
    )


def decimal_text(exact: Fraction) -> str:
    """Return `exact` written out: to its end, or to SHOWN_DECIMALS, a half away from zero."""
    return ratio_text(exact.numerator, exact.denominator)


def ratio_text(numerator: int, denominator: int) -> str:
    """Return what `decimal_text` does of a ratio, which need not be in lowest terms."""
    scale: int = 10**SHOWN_DECIMALS
    units = (2 * abs(numerator) * scale + denominator) // (2 * denominator)
    if not units:
        return "0"
    whole, decimals = divmod(units, scale)
    text = f"{whole}.{decimals:0{SHOWN_DECIMALS}d}".rstrip("0") if decimals else f"{whole}."
    return ("-" if numerator < 0 else "") + text.rstrip(".")


def exact_sum(amounts: Iterable[Fraction]) -> Fraction:
    """Return the sum; of many it is quicker than one addition after another."""
    each = list(amounts)
    denominator = lcm(*(amount.denominator for amount in each))
    return Fraction(
        sum(amount.numerator * (denominator // amount.denominator) for amount in each), denominator
    )
