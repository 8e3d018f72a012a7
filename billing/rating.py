"""What usage costs: exact, and the same function for the current cost and for the invoice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from billing.charges import Price
from billing.money import Money
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


@dataclass(frozen=True, slots=True)
class Prices:
    """The prices of one version of a price book, by meter and currency."""

    prices: Mapping[tuple[Meter, str], Price]

    def find(self, meter: Meter, currency: str) -> Price | Unpriced:
        """Return the meter's price in `currency`, or why it has none."""
        if (price := self.prices.get((meter, currency))) is not None:
            return price
        if any(priced is meter for priced, _ in self.prices):
            return Unpriced.NO_PRICE_IN_CURRENCY
        return Unpriced.METER_NOT_CHARGED


@dataclass(frozen=True, slots=True)
class PricedUsage:
    """What was used in a span of time in which one version of the prices was in force.

    Quantities are in the meter's stored unit. `prices` is None where no version was in force.
    """

    period: Period
    usage: Mapping[Meter, int]
    prices: Prices | None


@dataclass(frozen=True, slots=True)
class RatedLine:
    """One meter's usage in one span, at one price. `quantity` is in the meter's stored unit."""

    meter: Meter
    period: Period
    quantity: int
    price: Price
    currency: str

    @property
    def cost(self) -> Fraction:
        """The exact cost."""
        return self.price.cost(self.quantity, unit_size=UNITS[self.meter].size)

    @property
    def amount(self) -> Money:
        """What an invoice asks for: the cost, rounded here and nowhere after."""
        return Money.rounded(self.cost, self.currency)


@dataclass(frozen=True, slots=True)
class UnpricedUsage:
    """Usage that is shown and not charged, with the reason."""

    meter: Meter
    period: Period
    quantity: int
    reason: Unpriced


@dataclass(frozen=True, slots=True)
class Rating:
    """The price of a period's usage, line by line."""

    currency: str
    lines: tuple[RatedLine, ...]
    unpriced: tuple[UnpricedUsage, ...]

    @property
    def raw_cost(self) -> Fraction:
        """The exact cost of all lines."""
        return sum((line.cost for line in self.lines), start=Fraction(0))

    @property
    def usage_fee(self) -> Money:
        """The sum of the rounded lines: what is printed adds up."""
        return Money.total((line.amount for line in self.lines), self.currency)

    @property
    def usage(self) -> dict[Meter, int]:
        """All usage that was rated, priced or not, in stored units."""
        total: Counter[Meter] = Counter()
        for line in self.lines:
            total[line.meter] += line.quantity
        for entry in self.unpriced:
            total[entry.meter] += entry.quantity
        return dict(total)

    def cost_of(self, *meters: Meter) -> Fraction:
        """Return the exact cost of some of the meters."""
        return sum((line.cost for line in self.lines if line.meter in meters), start=Fraction(0))


@dataclass(frozen=True, slots=True)
class Discount:
    """What one rule takes off the usage fee, already rounded."""

    name: str
    amount: Money


@dataclass(frozen=True, slots=True)
class CostBreakdown:
    """What the usage of a period costs. Costs are exact; amounts of money are rounded.

    final_cost = usage_fee - total_discount - credits_used.
    """

    cpu_cost: Fraction
    memory_cost: Fraction
    network_cost: Fraction
    storage_cost: Fraction
    gpu_cost: Fraction
    raw_cost: Fraction
    usage_fee: Money
    discounts: tuple[Discount, ...]
    total_discount: Money
    credits_used: Money
    final_cost: Money


def rate_usage(spans: Sequence[PricedUsage], *, currency: str) -> Rating:
    """Return the price of the usage in `spans`: a line per span and meter, in their order.

    Raises ValueError on a negative quantity.
    """
    lines: list[RatedLine] = []
    unpriced: list[UnpricedUsage] = []
    for span in spans:
        for meter in Meter:
            quantity = span.usage.get(meter, 0)
            if quantity < 0:
                raise ValueError(f"The usage of {meter} in {span.period} is negative: {quantity}.")
            if quantity == 0:
                continue
            found = (
                Unpriced.NO_PRICES_IN_FORCE
                if span.prices is None
                else span.prices.find(meter, currency)
            )
            if isinstance(found, Unpriced):
                unpriced.append(UnpricedUsage(meter, span.period, quantity, found))
            else:
                lines.append(RatedLine(meter, span.period, quantity, found, currency))
    return Rating(currency, tuple(lines), tuple(unpriced))


def break_down_cost(
    rating: Rating, *, credits_available: Money, discounts: Sequence[Discount] = ()
) -> CostBreakdown:
    """Return what the rated usage costs after discounts and credits; never below zero.

    Discounts stop at the usage fee, and credits pay what the discounts leave. Where a price book
    charges for it, disk traffic counts as storage, and what is allocated as cpu and memory.
    """
    nothing = Money.zero(rating.currency)
    usage_fee = rating.usage_fee
    total_discount = min(
        usage_fee, Money.total((discount.amount for discount in discounts), rating.currency)
    )
    credits_used = max(nothing, min(credits_available, usage_fee - total_discount))
    return CostBreakdown(
        cpu_cost=rating.cost_of(Meter.CPU, Meter.CPU_ALLOCATED),
        memory_cost=rating.cost_of(Meter.MEMORY, Meter.MEMORY_ALLOCATED),
        network_cost=rating.cost_of(Meter.NETWORK_EGRESS, Meter.NETWORK_INGRESS),
        storage_cost=rating.cost_of(Meter.STORAGE, Meter.DISK_READ, Meter.DISK_WRITE),
        gpu_cost=rating.cost_of(Meter.GPU),
        raw_cost=rating.raw_cost,
        usage_fee=usage_fee,
        discounts=tuple(discounts),
        total_discount=total_discount,
        credits_used=credits_used,
        final_cost=usage_fee - total_discount - credits_used,
    )


def decimal_text(exact: Fraction) -> str:
    """Return `exact` written out: to its end, or to SHOWN_DECIMALS, a half away from zero."""
    sign = "-" if exact < 0 else ""
    scale: int = 10**SHOWN_DECIMALS
    units = (2 * abs(exact.numerator) * scale + exact.denominator) // (2 * exact.denominator)
    whole, decimals = divmod(units, scale)
    text = f"{whole}.{decimals:0{SHOWN_DECIMALS}d}".rstrip("0").rstrip(".")
    return text if text == "0" else sign + text
