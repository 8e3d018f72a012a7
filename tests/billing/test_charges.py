from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.charges import (
    Charge,
    ChargeModel,
    ChargePart,
    Graduated,
    Package,
    PartKind,
    Percentage,
    PerUnit,
    Price,
    Stretch,
    Tier,
    Volume,
)
from billing.curves import curve_of
from tests.billing.prices import prices, tiers

D = Decimal
OPEN = Tier(None, D(1))


def cost(price: Price | Charge, quantity: str, *, events: int = 0, unit_size: int = 1000) -> str:
    """Return the cost of a period of `quantity` shown units, without a minimum, as a fraction."""
    whole = price if isinstance(price, Price) else Price(price)
    stored = Fraction(quantity) * unit_size
    assert stored.denominator == 1
    stretch = Stretch(0, int(stored), int(stored), events)
    return str(sum(part.cost for part in whole.parts(stretch, unit_size)))


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: PerUnit(D("-0.01")), "PerUnit.unit_price"),
        (lambda: PerUnit(D("NaN")), "PerUnit.unit_price"),
        (lambda: PerUnit(D("Infinity")), "PerUnit.unit_price"),
        (lambda: Tier(D(0), D(1)), "Tier.up_to"),
        (lambda: Tier(D(-1), D(1)), "Tier.up_to"),
        (lambda: Tier(D(1), D(-1)), "Tier.unit_price"),
        (lambda: Tier(D(1), D(1), D(-1)), "Tier.flat_fee"),
        (lambda: Graduated(()), "Graduated.tiers"),
        (lambda: Graduated((Tier(D(1), D(1)),)), "Graduated.tiers"),
        (lambda: Graduated((OPEN, OPEN)), "Graduated.tiers"),
        (lambda: Graduated((Tier(D(2), D(1)), Tier(D(2), D(1)), OPEN)), "Graduated.tiers"),
        (lambda: Volume((Tier(D(2), D(1)), Tier(D(1), D(1)), OPEN)), "Volume.tiers"),
        (lambda: Volume((OPEN, Tier(D(1), D(1)))), "Volume.tiers"),
        (lambda: Package(D(-1), D(1)), "Package.price"),
        (lambda: Package(D(1), D(0)), "Package.size"),
        (lambda: Package(D(1), D(-1)), "Package.size"),
        (lambda: Percentage(D(-1)), "Percentage.percent"),
        (lambda: Percentage(D("100.1")), "Percentage.percent"),
        (lambda: Percentage(D(1), D(-1)), "Percentage.fee_per_event"),
        (lambda: Percentage(D(1), maximum=D(-1)), "Percentage.maximum"),
        (lambda: Price(PerUnit(D(1)), free_units=D(-1)), "Price.free_units"),
        (lambda: Price(PerUnit(D(1)), minimum=D(-1)), "Price.minimum"),
        (lambda: Price(Percentage(D(1), maximum=D(2)), minimum=D(3)), "Price.minimum"),
    ],
)
def test_bad_terms_are_refused_by_the_name_of_their_field(
    make: Callable[[], Any], field: str
) -> None:
    with pytest.raises(ValueError, match=f"^{field}.*\\. [A-Z][a-z ].*\\.$"):
        make()


def test_terms_at_their_limits_are_taken() -> None:
    Percentage(D(100), maximum=D(0))
    Price(Percentage(D(0), maximum=D(2)), minimum=D(2))
    Graduated((Tier(D("0.000000001"), D(0)), Tier(D("0.000000002"), D(0)), OPEN))


def test_each_charge_names_its_model() -> None:
    charges: list[type[Charge]] = [PerUnit, Graduated, Volume, Package, Percentage]
    assert [charge.model for charge in charges] == list(ChargeModel)


# What Stripe, Lago, Kill Bill and Orb print as examples of their own models.
STRIPE = (Tier(D(5), D(7)), Tier(D(10), D("6.5")), Tier(None, D(6)))
LAGO_VOLUME = (
    Tier(D(10_000), D("0.0010"), D(10)),
    Tier(D(50_000), D("0.0008"), D(10)),
    Tier(D(100_000), D("0.0006"), D(10)),
    Tier(None, D("0.0004"), D(10)),
)
LAGO_GRADUATED = (Tier(D(100), D(1)), Tier(D(200), D("0.5")), Tier(None, D("0.1")))


@pytest.mark.parametrize(
    ("price", "quantity", "total"),
    [
        (Volume(STRIPE), "1", "7"),
        (Volume(STRIPE), "5", "35"),
        (Volume(STRIPE), "6", "39"),
        (Volume(STRIPE), "20", "120"),
        (Volume(STRIPE), "25", "150"),
        (Graduated(STRIPE), "5", "35"),
        (Graduated(STRIPE), "6", "83/2"),
        (Graduated(STRIPE), "20", "255/2"),
        (Graduated(STRIPE), "25", "315/2"),
        (Volume(LAGO_VOLUME), "65000", "49"),
        (Graduated(LAGO_GRADUATED), "100", "100"),
        (Graduated(LAGO_GRADUATED), "250", "155"),
        (Price(Package(D(5), D(100)), free_units=D(100)), "201", "10"),
        # What is free does not count towards the tier either.
        (Price(Volume(STRIPE), free_units=D(1)), "6", "35"),
    ],
)
def test_published_examples_come_out(price: Price | Charge, quantity: str, total: str) -> None:
    assert cost(price, quantity) == total


@pytest.mark.parametrize("make", [Graduated, Volume])
def test_a_flat_fee_is_due_once_its_tier_is_entered(make: type[Graduated | Volume]) -> None:
    charge = make((Tier(D(10), D(0), D(3)), Tier(None, D(0), D(4))))
    after = "7" if make is Graduated else "4"
    assert [cost(charge, quantity) for quantity in ("0", "10", "10.001", "11")] == [
        "3",
        "3",
        after,
        after,
    ]


def test_percent_keeps_every_digit() -> None:
    charge = Percentage(D("1.2345678901234567890123456789012345"))
    assert Fraction(cost(charge, "1")) == Fraction("0.012345678901234567890123456789012345")


@pytest.mark.parametrize("make", [Graduated, Volume])
def test_very_large_quantities_are_exact(make: type[Graduated | Volume]) -> None:
    charge = make((Tier(D(1), D(0)), Tier(None, D("0.000001"))))
    stored = 10**30 + 1
    total = sum(part.cost for part in Price(charge).parts(Stretch(0, stored, stored), 10**9))
    free = 10**9 if make is Graduated else 0
    assert total == Fraction(stored - free, 10**15)


def test_the_parts_say_how_the_cost_came_about() -> None:
    price = Price(Graduated((Tier(D(10), D(2), D(3)), Tier(None, D(1)))), free_units=D(5))
    assert list(price.parts(Stretch(0, 17, 17), 1)) == [
        ChargePart(PartKind.FREE, None, Fraction(5), D(0), Fraction(0)),
        ChargePart(PartKind.FLAT_FEE, 1, Fraction(1), D(3), Fraction(3)),
        ChargePart(PartKind.UNITS, 1, Fraction(10), D(2), Fraction(20)),
        ChargePart(PartKind.UNITS, 2, Fraction(2), D(1), Fraction(2)),
    ]


def test_packages_are_a_part_that_says_how_many_were_started() -> None:
    assert list(Price(Package(D(5), D(100))).parts(Stretch(0, 201, 201), 1)) == [
        ChargePart(PartKind.PACKAGES, None, Fraction(3), D(5), Fraction(15))
    ]


def test_the_maximum_is_a_part_that_takes_off() -> None:
    price = Price(Percentage(D(10), D(1), D(5)))
    assert list(price.parts(Stretch(0, 40, 40, events=3), 1)) == [
        ChargePart(PartKind.PERCENT, None, Fraction(40), D("0.1"), Fraction(4)),
        ChargePart(PartKind.EVENTS, None, Fraction(3), D(1), Fraction(3)),
        ChargePart(PartKind.MAXIMUM, None, Fraction(1), D(5), Fraction(-2)),
    ]


@pytest.mark.parametrize(
    ("fee_per_event", "events", "maximum"),
    # No events, events that are free, and a maximum that is met exactly: none is a part.
    [("1", 0, None), ("0", 3, None), ("0", 0, "4")],
)
def test_what_adds_nothing_is_no_part(fee_per_event: str, events: int, maximum: str | None) -> None:
    price = Price(Percentage(D(10), D(fee_per_event), D(maximum) if maximum else None))
    assert list(price.parts(Stretch(0, 40, 40, events=events), 1)) == [
        ChargePart(PartKind.PERCENT, None, Fraction(40), D("0.1"), Fraction(4))
    ]


quantities = st.integers(min_value=0, max_value=10**6) | st.integers(0, 10**30)


@given(prices(), quantities, st.sampled_from([1, 1000, 2**30]))
def test_a_curve_costs_what_the_parts_sum_to(price: Price, quantity: int, unit_size: int) -> None:
    curve = curve_of(price, unit_size)
    if curve is None:
        assert isinstance(price.charge, Package | Percentage)
        return
    piece = sum(edge < quantity for edge in curve.edges)
    intercept, slope = curve.pieces[piece]
    parts = price.parts(Stretch(0, quantity, quantity), unit_size)
    assert Fraction(intercept + slope * quantity, curve.denominator) == sum(p.cost for p in parts)


@given(tiers(), quantities)
def test_a_volume_price_is_a_graduated_one_in_the_first_tier(
    in_order: tuple[Tier, ...], quantity: int
) -> None:
    if in_order[0].up_to is None or quantity <= in_order[0].up_to:
        graduated, volume = Price(Graduated(in_order)), Price(Volume(in_order))
        stretch = Stretch(0, quantity, quantity)
        assert list(graduated.parts(stretch, 1)) == list(volume.parts(stretch, 1))
