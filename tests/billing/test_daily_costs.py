from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.daily_costs import UsageCost, cost_by_day
from metering.meters import Meter
from tests.billing.periods import dollars

MONDAY, TUESDAY, WEDNESDAY = (date(2026, 5, day) for day in (4, 5, 6))


@pytest.mark.parametrize(
    ("quantities", "expected"),
    [
        ({MONDAY: 1, TUESDAY: 3}, {MONDAY: "2.50", TUESDAY: "7.50"}),
        ({WEDNESDAY: 7}, {WEDNESDAY: "10.00"}),
        # A correction below zero bears nothing.
        ({MONDAY: -5, TUESDAY: 1}, {TUESDAY: "10.00"}),
        # Nothing is known of the days: the larger parts come first.
        ({}, {MONDAY: "3.34", TUESDAY: "3.33", WEDNESDAY: "3.33"}),
    ],
)
def test_a_cost_is_shared_out_by_quantity(
    quantities: dict[date, int], expected: dict[date, str]
) -> None:
    cost = UsageCost(Meter.CPU, MONDAY, WEDNESDAY, dollars("10"))
    usage = {day: {Meter.CPU: quantity} for day, quantity in quantities.items()}
    assert cost_by_day([cost], usage) == {
        (day, Meter.CPU): Decimal(amount) for day, amount in expected.items()
    }


def test_a_day_bears_its_own_costs_only() -> None:
    early = UsageCost(Meter.CPU, MONDAY, MONDAY, dollars("1"))
    late = UsageCost(Meter.CPU, TUESDAY, TUESDAY, dollars("2"))
    memory = UsageCost(Meter.MEMORY, TUESDAY, TUESDAY, dollars("4"))
    usage = {MONDAY: {Meter.CPU: 1000}, TUESDAY: {Meter.CPU: 1, Meter.MEMORY: 1}}
    assert cost_by_day([early, late, memory], usage) == {
        (MONDAY, Meter.CPU): Decimal(1),
        (TUESDAY, Meter.CPU): Decimal(2),
        (TUESDAY, Meter.MEMORY): Decimal(4),
    }


def test_a_cost_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ValueError, match="before"):
        UsageCost(Meter.CPU, TUESDAY, MONDAY, dollars("1"))


@given(
    st.integers(0, 10**7),
    st.lists(st.integers(0, 10**15), min_size=3, max_size=3),
)
def test_the_days_add_up_to_the_cost(cents: int, quantities: list[int]) -> None:
    amount = dollars(Decimal(cents).scaleb(-2))
    days = (MONDAY, TUESDAY, WEDNESDAY)
    usage = {day: {Meter.CPU: used} for day, used in zip(days, quantities, strict=True)}
    shared = cost_by_day([UsageCost(Meter.CPU, MONDAY, WEDNESDAY, amount)], usage)
    assert sum(shared.values()) == amount.amount
