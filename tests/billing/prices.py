"""Prices for the tests of rating: made by hypothesis, and read from the page."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import strategies as st

from billing.charges import (
    Charge,
    ChargeModel,
    Graduated,
    Package,
    Percentage,
    PerUnit,
    Price,
    Tier,
    Volume,
)

# Small whole and broken numbers, so that edges and quantities meet.
amounts = st.integers(min_value=0, max_value=400).map(lambda count: Decimal(count).scaleb(-2))
sizes = st.integers(min_value=1, max_value=5000).map(lambda count: Decimal(count).scaleb(-3))


@st.composite
def tiers(draw: st.DrawFn) -> tuple[Tier, ...]:
    edges = [*sorted(draw(st.sets(sizes, max_size=3))), None]
    return tuple(Tier(edge, draw(amounts), draw(amounts)) for edge in edges)


charges_that_never_fall: st.SearchStrategy[Charge] = st.one_of(
    st.builds(PerUnit, amounts),
    st.builds(Graduated, tiers()),
    st.builds(Package, amounts, sizes),
    st.builds(Percentage, amounts, amounts, st.none() | amounts.map(lambda amount: amount + 4)),
)
charges: st.SearchStrategy[Charge] = st.one_of(charges_that_never_fall, st.builds(Volume, tiers()))


def prices(charges: st.SearchStrategy[Charge] = charges) -> st.SearchStrategy[Price]:
    nothing = st.just(Decimal(0))
    return st.builds(Price, charges, nothing | sizes, nothing | amounts)


def read_price(model: str, terms: str, free_units: str, minimum: str) -> Price:
    """Return the price that a row of the page describes."""
    return Price(_read_charge(ChargeModel(model), terms), Decimal(free_units), Decimal(minimum))


def _read_charge(model: ChargeModel, terms: str) -> Charge:
    match model:
        case ChargeModel.PER_UNIT:
            return PerUnit(Decimal(terms))
        case ChargeModel.GRADUATED:
            return Graduated(tuple(_read_tier(tier) for tier in terms.split("; ")))
        case ChargeModel.VOLUME:
            return Volume(tuple(_read_tier(tier) for tier in terms.split("; ")))
        case ChargeModel.PACKAGE:
            price, size = terms.split(" for ")
            return Package(Decimal(price), Decimal(size))
        case ChargeModel.PERCENTAGE:
            percent, fee, maximum = terms.split(", ")
            return Percentage(
                Decimal(percent.removesuffix(" percent")),
                Decimal(fee.removesuffix(" each event")),
                Decimal(maximum.removeprefix("at most ")),
            )


def _read_tier(terms: str) -> Tier:
    edge, prices = terms.split(": ")
    unit_price, _, flat_fee = prices.partition(", fee ")
    up_to = None if edge == "rest" else Decimal(edge.removeprefix("to "))
    return Tier(up_to, Decimal(unit_price), Decimal(flat_fee or 0))
