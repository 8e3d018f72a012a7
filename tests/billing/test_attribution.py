from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.attribution import (
    AttributedCost,
    UsageNotAttributedError,
    UsedPart,
    attribute_cost,
)
from billing.charges import PerUnit, Price
from billing.rating import PricedUsage, Prices, RatedLine, decimal_text, rate_usage
from metering.meters import Meter
from metering.period import Period
from tests.billing.periods import MAY
from tests.billing.prices import prices
from tests.billing.test_rating import PAGE_PRICES, page_rows

CPU, GPU, DISK = Meter.CPU, Meter.GPU, Meter.DISK_READ
MIDDLE = MAY.start + timedelta(days=10)
FIRST, LAST = Period(MAY.start, MIDDLE), Period(MIDDLE, MAY.end)
Used = Mapping[str, Mapping[Meter, int]]


def sum_of(used: Used) -> dict[Meter, int]:
    meters = {meter for of_key in used.values() for meter in of_key}
    return {meter: sum(of_key.get(meter, 0) for of_key in used.values()) for meter in meters}


def part(used: Used, period: Period = MAY) -> UsedPart[str]:
    return UsedPart(period, sum_of(used), used)


def lines_of(used: Used, price: Price, period: Period = MAY) -> tuple[RatedLine, ...]:
    priced = Prices({(meter, "USD"): price for meter in (CPU, GPU, DISK)})
    return rate_usage([PricedUsage(period, sum_of(used), priced)], currency="USD").lines


@pytest.mark.parametrize(
    ("price", "units", "whole", "shares", "without_usage"),
    page_rows("| price | units by sandbox | cost | by sandbox | without usage |"),
)
def test_the_pages_shares_are_what_it_says(
    price: str, units: str, whole: str, shares: str, without_usage: str
) -> None:
    used = {
        str(at): {CPU: int(Decimal(of_sandbox) * 10**9)}
        for at, of_sandbox in enumerate(units.split("; "))
    }
    lines = lines_of(used, PAGE_PRICES[price])
    found = attribute_cost((line for line in lines if line.meter is CPU), {MAY: part(used)})
    told = [decimal_text(found.by_key.get(key, {}).get(CPU, Fraction(0))) for key in used]
    assert "; ".join(told) == shares
    assert decimal_text(found.without_usage) == without_usage
    assert decimal_text(found.raw_cost) == whole


def test_a_share_is_by_quantity_and_by_meter() -> None:
    used = {"a": {DISK: 30, GPU: 2}, "b": {DISK: 10}, "c": {DISK: 0}, "d": {}}
    lines = lines_of(used, Price(PerUnit(Decimal("0.5"))))
    gpu = next(line.cost for line in lines if line.meter is GPU)
    assert attribute_cost(lines, {MAY: part(used)}) == AttributedCost(
        {"a": {DISK: Fraction(15), GPU: gpu}, "b": {DISK: Fraction(5)}}, Fraction(0)
    )


def test_thirds_are_exact() -> None:
    used = {key: {DISK: 1} for key in "abc"}
    lines = lines_of(used, Price(PerUnit(Decimal(0)), minimum=Decimal(1)))
    disk = [line for line in lines if line.quantity]
    found = attribute_cost(disk, {MAY: part(used)})
    assert {key: costs[DISK] for key, costs in found.by_key.items()} == dict.fromkeys(
        "abc", Fraction(1, 3)
    )
    assert found.raw_cost == 1


def test_what_is_due_without_usage_is_nobodys() -> None:
    lines = lines_of({}, Price(PerUnit(Decimal(1)), minimum=Decimal("7.5")))
    found = attribute_cost(lines, {MAY: part({})})
    assert found == AttributedCost({}, Fraction("22.5"))  # of three meters
    # In a part of the span it is not said whose time it is for.
    assert attribute_cost(lines, {MAY: part({}, FIRST)}).raw_cost == 0


def test_a_part_of_a_span_bears_its_part_of_the_cost() -> None:
    whole = {"a": {DISK: 30}, "b": {DISK: 10}}
    lines = lines_of(whole, Price(PerUnit(Decimal("0.5"))))
    some = UsedPart(FIRST, {DISK: 12}, {"a": {DISK: 12}})
    assert attribute_cost(lines, {MAY: some}).by_key == {"a": {DISK: Fraction(6)}}
    # A line of a span that is not asked about is nobody's here.
    assert attribute_cost(lines, {}).raw_cost == 0
    assert attribute_cost(lines, {LAST: part(whole, LAST)}).raw_cost == 0


def test_what_a_part_did_not_use_or_no_part_holds_stops_nothing() -> None:
    whole = {"a": {DISK: 30, GPU: 2}, "b": {DISK: 10}}
    price = Price(PerUnit(Decimal("0.5")))
    lines = [*lines_of(whole, price, FIRST), *lines_of(whole, price, LAST)]
    # The first span is not asked about, and in this part of the last no device was held.
    some = UsedPart(LAST, {DISK: 12}, {"a": {DISK: 12}})
    assert attribute_cost(lines, {LAST: some}).by_key == {"a": {DISK: Fraction(6)}}


@pytest.mark.parametrize(
    "wrong",
    [
        UsedPart(MAY, {DISK: 40}, {"a": {DISK: 30}}),
        UsedPart(MAY, {DISK: 40}, {"a": {DISK: 30}, "b": {DISK: 11}}),
        UsedPart(MAY, {DISK: 40}, {}),
        UsedPart(MAY, {}, {"a": {DISK: 30}}),
        # They sum, to more than the line has.
        UsedPart(MAY, {DISK: 41}, {"a": {DISK: 41}}),
    ],
)
def test_parts_that_are_not_the_whole_are_refused(wrong: UsedPart[str]) -> None:
    lines = lines_of({"a": {DISK: 30}, "b": {DISK: 10}}, Price(PerUnit(Decimal(1))))
    with pytest.raises(UsageNotAttributedError, match="disk_read"):
        attribute_cost(lines, {MAY: wrong})


keys = st.sampled_from("abc")
quantities = st.dictionaries(st.sampled_from([CPU, DISK]), st.integers(0, 20) | st.just(10**20))
used_by_key = st.dictionaries(keys, quantities, max_size=3)


@given(used_by_key, used_by_key, prices(), prices())
def test_the_shares_sum_to_the_raw_cost_exactly(
    early: Used, late: Used, price: Price, later_price: Price
) -> None:
    rating = rate_usage(
        [
            PricedUsage(period, sum_of(used), Prices({(m, "USD"): of for m in (CPU, GPU, DISK)}))
            for period, used, of in ((FIRST, early, price), (LAST, late, later_price))
        ],
        currency="USD",
    )
    parts = {FIRST: part(early, FIRST), LAST: part(late, LAST)}
    found = attribute_cost(rating.lines, parts)
    assert found.raw_cost == rating.raw_cost
    by_meter = {
        meter: sum((c.get(meter, Fraction(0)) for c in found.by_key.values()), start=Fraction(0))
        for meter in (CPU, GPU, DISK)
    }
    unused = [line for line in rating.lines if not line.quantity]
    for meter, shared in by_meter.items():
        nobodys = sum((line.cost for line in unused if line.meter is meter), start=Fraction(0))
        assert shared + nobodys == rating.cost_of(meter)
