from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.cost_flow import CostedSpan, share_in_order


def span(quantity: int, cost: str) -> CostedSpan:
    return CostedSpan(quantity, Fraction(cost))


@pytest.mark.parametrize(
    ("spans", "used", "costs", "without_usage"),
    [
        ([], [], [], "0"),
        ([], [5], ["0"], "0"),
        ([span(10, "1")], [10], ["1"], "0"),
        ([span(10, "1")], [0, 4, 6], ["0", "0.4", "0.6"], "0"),
        # The second slice lies in both spans: 2 at 0.1, then 3 at 0.5.
        ([span(10, "1"), span(5, "2.5")], [8, 5, 2], ["0.8", "1.7", "1"], "0"),
        ([span(1, "1"), span(1, "2"), span(1, "4")], [3], ["7"], "0"),
        # A minimum, due where nothing was used.
        ([span(0, "3")], [0, 0], ["0", "0"], "3"),
        ([span(0, "3"), span(2, "1")], [2], ["1"], "3"),
        # What the slices do not know of is shared out over what they do.
        ([span(10, "1")], [3, 2], ["0.6", "0.4"], "0"),
        ([span(10, "1")], [0, 0], ["0", "0"], "1"),
    ],
)
def test_spans_pay_in_order_for_what_is_used(
    spans: list[CostedSpan], used: list[int], costs: list[str], without_usage: str
) -> None:
    shared = share_in_order(spans, used)
    assert list(shared.costs) == [Fraction(cost) for cost in costs]
    assert shared.without_usage == Fraction(without_usage)


@given(
    st.lists(st.tuples(st.integers(0, 10**15), st.fractions(0, 1000)), max_size=5),
    st.lists(st.integers(0, 10**15), max_size=10),
)
def test_nothing_of_the_cost_is_lost(lines: list[tuple[int, Fraction]], used: list[int]) -> None:
    spans = [CostedSpan(quantity, cost) for quantity, cost in lines]
    shared = share_in_order(spans, used)
    total = sum((s.cost for s in spans), start=Fraction(0))
    assert sum(shared.costs, start=shared.without_usage) == total


@given(
    st.lists(st.tuples(st.integers(0, 6), st.fractions(0, 1000, max_denominator=7)), max_size=5),
    st.lists(st.integers(0, 30), max_size=6),
)
def test_each_unit_costs_what_its_span_says(
    lines: list[tuple[int, Fraction]], cuts: list[int]
) -> None:
    spans = [CostedSpan(quantity, cost) for quantity, cost in lines]
    units = [one.cost / one.quantity for one in spans for _ in range(one.quantity)]
    bounds = sorted({0, len(units), *(min(cut, len(units)) for cut in cuts)})
    slices = [units[start:end] for start, end in pairwise(bounds)]
    shared = share_in_order(spans, [len(one) for one in slices])
    assert list(shared.costs) == [sum(one, start=Fraction(0)) for one in slices]
