from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.adjustments import (
    NOTHING_CARRIED,
    Adjustment,
    Carried,
    Charged,
    Component,
    CreditPool,
    credit_lines,
    credits_after,
    move_credits,
    pools_after,
    usage_differences,
    with_late_usage,
)
from billing.charges import Graduated, PerUnit, Price, Tier
from billing.credits import Credit, CreditKind
from billing.money import Money
from billing.periods import Cycle, Schedule
from billing.rating import PricedUsage, Prices, rate_usage
from billing.statement import PeriodFacts, state_period
from billing.totals import Tax
from metering.lateness import LateWindow
from metering.meters import Meter
from metering.period import Period
from tests.billing.usage import JUNE, MAY, NOON

SECOND = 10**9
MIDDLE = datetime(2026, 5, 16, tzinfo=UTC)
HALVES = (Period(MAY.start, MIDDLE), Period(MIDDLE, MAY.end))
# 100 s at 1, then 0.005: thousandths, so that lines round.
TIERED = Prices(
    {
        (Meter.CPU, "USD"): Price(
            Graduated((Tier(Decimal(100), Decimal(1)), Tier(None, Decimal("0.005"))))
        ),
        (Meter.GPU, "USD"): Price(PerUnit(Decimal("0.0006"))),
    }
)
FLAT = Prices({(Meter.CPU, "USD"): Price(PerUnit(Decimal("0.0125")))})


def usd(amount: Decimal | int | str) -> Money:
    return Money(Decimal(amount), "USD")


def spans(first: int, second: int, gpu_s: int = 0) -> tuple[PricedUsage, ...]:
    """May's usage at one book's prices in its first half and at another's in the second."""
    return (
        PricedUsage(HALVES[0], {Meter.CPU: first, Meter.GPU: gpu_s * 1000}, TIERED),
        PricedUsage(HALVES[1], {Meter.CPU: second}, FLAT),
    )


def late(quantity: int, at: datetime = NOON, meter: Meter = Meter.CPU) -> LateWindow:
    return LateWindow("sbx-1", 7, meter, at, quantity)


def charged(usage: tuple[PricedUsage, ...], *, discount: str = "0", up_to: str = "0") -> Charged:
    rating = rate_usage(usage, currency="USD")
    discounts = rating.usage_fee.times(Decimal(discount))
    missing = usd(up_to) - (rating.usage_fee - discounts)
    return Charged(rating, discounts, max(usd(0), missing))


def differences(before: Charged, after: Charged) -> dict[tuple[Component, Meter | None], Decimal]:
    return {
        (line.component, line.meter): line.amount.amount
        for line in usage_differences(before, after, billing_period=MAY)
    }


def test_late_usage_is_added_to_the_span_its_window_is_in() -> None:
    whole = with_late_usage(
        spans(5, 7), [late(1), late(2, HALVES[1].start), late(-1, HALVES[1].start)]
    )
    assert [span.usage for span in whole] == [{Meter.CPU: 6}, {Meter.CPU: 8}]


def test_late_usage_of_no_span_or_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="No span"):
        with_late_usage(spans(5, 7), [late(1, MAY.end)])
    with pytest.raises(ValueError, match="Less was used than nothing"):
        with_late_usage(spans(5, 7), [late(-6)])
    # Two that come to nothing together are one fact.
    whole = with_late_usage(spans(5, 7), [late(-5), late(3), late(-3)])
    assert whole[0].usage == {}


def test_a_line_is_the_difference_of_two_rounded_ones() -> None:
    # Costs of 0.0048 and 0.0054 are printed as 0.00 and 0.01.
    before = charged(spans(0, 0, gpu_s=8))
    after = charged(spans(0, 0, gpu_s=9))
    [line] = usage_differences(before, after, billing_period=MAY)
    assert line == Adjustment(
        Component.USAGE, MAY, HALVES[0], usd("0.01"), Meter.GPU, quantity=1000
    )


def test_nothing_late_makes_no_line_and_what_costs_nothing_is_shown() -> None:
    before = charged(spans(0, 0, gpu_s=1))
    assert usage_differences(before, before, billing_period=MAY) == ()
    [line] = usage_differences(before, charged(spans(0, 0, gpu_s=2)), billing_period=MAY)
    assert line.amount == usd(0)
    assert line.quantity == 1000


def test_discounts_and_the_true_up_have_lines_of_their_own() -> None:
    before = charged(spans(50 * SECOND, 0), discount="0.1", up_to="60")
    after = charged(spans(90 * SECOND, 0), discount="0.1", up_to="60")
    assert differences(before, after) == {
        (Component.USAGE, Meter.CPU): 40,
        (Component.DISCOUNT, None): -4,
        # 45 of 60 were missing 15; of 81 nothing is.
        (Component.TRUE_UP, None): -15,
    }
    assert differences(after, before) == {
        key: -amount for key, amount in differences(before, after).items()
    }
    _, *others = usage_differences(before, after, billing_period=MAY)
    assert {(line.billing_period, line.period) for line in others} == {(MAY, MAY)}


def test_lines_come_by_span_and_then_in_the_meters_order() -> None:
    meters = (Meter.CPU, Meter.MEMORY, Meter.GPU)
    book = Prices({(meter, "USD"): Price(PerUnit(Decimal(1))) for meter in meters})
    nothing = tuple(PricedUsage(half, {}, book) for half in HALVES)
    used = tuple(PricedUsage(half, dict.fromkeys(meters, 10**15), book) for half in HALVES)
    lines = usage_differences(charged(nothing), charged(used), billing_period=MAY)
    expected = [(half, meter) for half in HALVES for meter in meters]
    assert [(line.period, line.meter) for line in lines] == expected


quantities = st.integers(0, 300 * SECOND)
windows = st.lists(
    st.builds(
        late,
        st.integers(1, 90 * SECOND),
        st.sampled_from([HALVES[0].start, HALVES[1].start]),
        st.sampled_from([Meter.CPU]),
    ),
    max_size=6,
)


@given(quantities, quantities, windows, st.integers(0, 6))
def test_late_usage_in_two_steps_costs_what_it_costs_in_one(
    first: int, second: int, found: list[LateWindow], at: int
) -> None:
    usage = spans(first, second)
    none, some, all_of_it = (
        charged(with_late_usage(usage, found[:known]), discount="0.05", up_to="120")
        for known in (0, at, len(found))
    )
    steps = [
        *usage_differences(none, some, billing_period=MAY),
        *usage_differences(some, all_of_it, billing_period=MAY),
    ]
    at_once = usage_differences(none, all_of_it, billing_period=MAY)
    # To the cent, since each step is the difference of two rounded sums.
    assert Money.total((line.amount for line in steps), "USD") == Money.total(
        (line.amount for line in at_once), "USD"
    )
    assert sum(line.quantity for line in steps) == sum(window.quantity for window in found)


@given(quantities, quantities, windows)
def test_late_usage_that_goes_away_again_costs_nothing(
    first: int, second: int, found: list[LateWindow]
) -> None:
    usage = spans(first, second)
    without = charged(usage, discount="0.05", up_to="120")
    with_it = charged(with_late_usage(usage, found), discount="0.05", up_to="120")
    there = differences(without, with_it)
    assert differences(with_it, without) == {key: -amount for key, amount in there.items()}


def credit(number: int, left: int, kind: CreditKind = CreditKind.PROMOTIONAL) -> Credit:
    return Credit(number, kind, usd(left), MAY.start, JUNE.start + timedelta(days=number))


def pool(number: int, *, left: int = 0, expired: int = 0, used: int = 0) -> CreditPool:
    return CreditPool(credit(number, left), usd(expired), usd(used))


def moved(pools: list[CreditPool], before: int, after: int) -> dict[int | None, tuple[int, ...]]:
    return {
        move.credit.credit_id: (
            int(move.used.amount),
            int(move.restored.amount),
            int(move.returned.amount),
        )
        for move in move_credits(pools, before=usd(before), after=usd(after))
    }


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (10, 10, {}),
        # What expired unused of the first, then what is left of the second.
        (10, 14, {1: (0, 4, 0)}),
        (10, 22, {1: (0, 5, 0), 2: (7, 0, 0)}),
        # Beyond all credit.
        (10, 99, {1: (0, 5, 0), 2: (8, 0, 0)}),
        # 10 were used; the last used comes back first.
        (10, 9, {2: (0, 0, 1)}),
        (10, 4, {1: (0, 0, 2), 2: (0, 0, 4)}),
        (10, 0, {1: (0, 0, 6), 2: (0, 0, 4)}),
        # More was spent than credit paid: what credit did not pay goes first.
        (30, 12, {}),
        # What it spends is as it was: nothing moves, whatever the credits say.
        (8, 8, {}),
    ],
)
def test_credits_of_the_period_pay_first_and_come_back_last(
    before: int, after: int, expected: dict[int | None, tuple[int, ...]]
) -> None:
    pools = [pool(1, expired=5, used=6), pool(2, left=8, used=4)]
    assert moved(pools, before, after) == expected


def test_pools_are_left_as_the_moves_say() -> None:
    pools = [pool(1, left=2, expired=5, used=6), pool(2, left=8, used=4), pool(3, left=9)]
    more = move_credits(pools, before=usd(10), after=usd(20))
    assert pools_after(pools, more) == [
        pool(1, expired=0, used=13),
        pool(2, left=5, used=7),
        pools[2],
    ]
    less = move_credits(pools, before=usd(10), after=usd(5))
    assert pools_after(pools, less) == [
        pool(1, left=3, expired=5, used=5),
        pool(2, left=12),
        pools[2],
    ]


amounts = st.integers(0, 40)


@given(amounts, amounts, amounts, amounts, amounts)
def test_credit_is_drawn_as_if_the_period_had_been_known_whole(
    first: int, second: int, spent: int, known: int, finally_known: int
) -> None:
    # Two credits, of which the period's invoice has used what it could.
    in_all = [first, second]
    used = [min(first, spent), min(second, max(0, spent - first))]
    pools = [
        pool(number, expired=whole - paid, used=paid)
        for number, (whole, paid) in enumerate(zip(in_all, used, strict=True), start=1)
    ]
    steps = [spent, known, finally_known]
    for before, after in pairwise(steps):
        moves = move_credits(pools, before=usd(before), after=usd(after))
        lines = credit_lines(moves, billing_period=MAY)
        assert lines == tuple(
            Adjustment(Component.CREDIT, MAY, MAY, -move.spent, credit_id=move.credit.credit_id)
            for move in moves
        )
        assert Money.total((line.amount for line in lines), "USD") == -Money.total(
            (move.spent for move in moves), "USD"
        )
        pools = pools_after(pools, moves)
    assert sum(one.used.amount for one in pools) == min(finally_known, first + second)
    assert all(one.expired.amount >= 0 and one.credit.balance.amount >= 0 for one in pools)


def test_credits_of_the_next_period_are_as_the_closed_one_leaves_them() -> None:
    in_both, gone = credit(40, 10), replace(credit(2, 0), expires_at=MAY.end)
    spent_up = replace(credit(50, 0), expires_at=None)
    to_come = Credit(None, CreditKind.MONTHLY, usd(100), JUNE.start, JUNE.end)
    pools = [
        CreditPool(in_both, usd(0), usd(0)),
        CreditPool(gone, usd(3), usd(0)),
        CreditPool(spent_up, usd(0), usd(7)),
    ]
    more = move_credits(pools, before=usd(0), after=usd(12))
    assert credits_after([in_both, to_come], more, JUNE) == (credit(40, 0), to_come)
    less = move_credits(pools, before=usd(7), after=usd(2))
    assert credits_after([in_both, to_come], less, JUNE) == (
        in_both,
        to_come,
        replace(spent_up, balance=usd(5)),
    )


def test_credit_that_comes_back_counts_from_nothing_and_not_once_it_has_expired() -> None:
    # Both were drawn to nothing since: neither is among what the next period finds.
    still_good, gone = credit(40, 5), replace(credit(2, 5), expires_at=MAY.end)
    pools = [CreditPool(still_good, usd(0), usd(4)), CreditPool(gone, usd(0), usd(3))]
    moves = move_credits(pools, before=usd(7), after=usd(0))
    assert credits_after([], moves, JUNE) == (replace(still_good, balance=usd(4)),)


def facts(carried: Carried = NOTHING_CARRIED) -> PeriodFacts:
    return PeriodFacts(
        period=JUNE,
        schedule=Schedule(Cycle(ZoneInfo("UTC"))),
        currency="USD",
        tax=Tax(Decimal("0.19")),
        subscriptions=(),
        usage=(PricedUsage(JUNE, {Meter.CPU: 800 * SECOND}, FLAT),),
        carried=carried,
    )


@pytest.mark.parametrize(
    ("amount", "tax", "total", "credited"),
    [("0", "1.90", "11.90", "0"), ("5", "2.85", "17.85", "0"), ("-30", "-3.80", "0", "23.80")],
)
def test_adjustments_are_taxed_and_a_remainder_below_zero_becomes_credit(
    amount: str, tax: str, total: str, credited: str
) -> None:
    line = Adjustment(Component.USAGE, MAY, MAY, usd(amount), Meter.CPU, 1)
    statement = state_period(facts(Carried((line,))))
    assert statement.adjustments == (line,)
    totals = statement.totals
    assert totals.adjustments == usd(amount)
    assert (totals.tax, totals.total_amount, totals.credited) == (
        usd(tax),
        usd(total),
        usd(credited),
    )


def test_nothing_carried_states_the_period_as_it_was() -> None:
    statement = state_period(facts())
    assert statement.totals.total_amount == usd("11.90")
    assert statement.totals.adjustments == usd(0)
    assert Fraction(statement.totals.usage_fee.amount) == 10
