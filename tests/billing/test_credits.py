from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.credits import (
    Credit,
    CreditKind,
    Draw,
    balance_of,
    draw,
    prepaid_credit_for,
    total_of,
    unearned_part,
    usage_credit_for,
)
from billing.money import CurrencyMismatchError, Money
from tests.billing.periods import MAY, credit, dollars, utc
from tests.billing.test_rating import page_rows

MONTHLY, PROMOTIONAL, PREPAID = CreditKind.MONTHLY, CreditKind.PROMOTIONAL, CreditKind.PREPAID
DAY = timedelta(days=1)
TICK = timedelta(microseconds=1)


def page_credit(at: int, row: list[str]) -> Credit:
    _, kind, balance, in_force, priority = row
    start, _, end = in_force.removesuffix(" on").partition(" to ")
    return credit(
        balance,
        kind=CreditKind(kind),
        credit_id=at,
        effective_at=utc(start),
        expires_at=utc(end) if end else None,
        priority=int(priority),
    )


PAGE_ROWS = page_rows("| credit | kind | balance | in force | priority |")
PAGE_CREDITS = [page_credit(at, row) for at, row in enumerate(PAGE_ROWS)]


def told(draws: Iterable[Draw]) -> str:
    names = [f"{PAGE_ROWS[d.credit_id or 0][0]} {d.amount.text}" for d in draws]
    return "; ".join(names) or "none"


@pytest.mark.parametrize(
    ("usage", "rest", "on_usage", "on_the_rest", "due"),
    page_rows("| usage after discounts | fees and tax | credits used | prepaid used | due |"),
)
def test_the_pages_credits_are_used_as_it_says(
    usage: str, rest: str, on_usage: str, on_the_rest: str, due: str
) -> None:
    used = draw(usage_credit_for(PAGE_CREDITS, MAY), dollars(usage))
    left = dollars(usage) - total_of(used, "USD") + dollars(rest)
    prepaid = draw(prepaid_credit_for(PAGE_CREDITS, MAY), left)
    assert (told(used), told(prepaid)) == (on_usage, on_the_rest)
    assert left - total_of(prepaid, "USD") == dollars(due)


def test_the_page_has_credit_of_every_kind() -> None:
    assert {held.kind for held in PAGE_CREDITS} == set(CreditKind)


def test_kinds_are_used_monthly_first_then_promotional_and_prepaid_for_the_rest() -> None:
    # The order of kinds comes before everything else.
    held = [
        credit("1", kind=PREPAID, credit_id=1, priority=-9),
        credit("1", kind=PROMOTIONAL, credit_id=2, priority=0, expires_at=MAY.start + DAY),
        credit("1", kind=MONTHLY, credit_id=3, priority=9),
    ]
    assert [c.credit_id for c in usage_credit_for(held, MAY)] == [3, 2]
    assert [c.credit_id for c in prepaid_credit_for(held, MAY)] == [1]


@pytest.mark.parametrize("kind", CreditKind)
def test_inside_a_kind_priority_then_soonest_expiry_then_oldest(kind: CreditKind) -> None:
    first = credit("1", kind=kind, credit_id=9, priority=-1)
    held = [
        first,
        replace(first, priority=0, expires_at=MAY.end, credit_id=8),
        replace(first, priority=0, expires_at=MAY.end + TICK, effective_at=MAY.start - DAY),
        # Of equal expiry the older, whichever was written first.
        replace(first, priority=0, expires_at=MAY.end + DAY, effective_at=MAY.start - DAY),
        replace(first, priority=0, expires_at=MAY.end + DAY, effective_at=MAY.start, credit_id=1),
        # Without expiry last, the older first.
        replace(first, priority=0, effective_at=MAY.start - DAY, credit_id=3),
        replace(first, priority=0, effective_at=MAY.start, credit_id=1),
        replace(first, priority=0, effective_at=MAY.start, credit_id=2),
        replace(first, priority=1, expires_at=MAY.start + TICK),
    ]
    in_order = prepaid_credit_for if kind is PREPAID else usage_credit_for
    assert in_order(held, MAY) == held
    assert in_order(held[::-1], MAY) == held
    for few in permutations(held[:5]):
        assert in_order(few, MAY) == held[:5]


@pytest.mark.parametrize(
    ("effective_at", "expires_at", "is_eligible"),
    [
        (MAY.start, MAY.end, True),
        (MAY.start - DAY, None, True),
        (MAY.end - TICK, None, True),
        (MAY.end, None, False),
        (MAY.end + TICK, None, False),
        (MAY.start - DAY, MAY.start + TICK, True),
        (MAY.start - DAY, MAY.start, False),
        (MAY.start - DAY, MAY.start - TICK, False),
        # In force for a day of it: it pays for all of the period's usage.
        (MAY.start + DAY, MAY.start + 2 * DAY, True),
    ],
)
def test_a_credit_pays_for_a_period_in_which_it_is_in_force(
    effective_at: datetime,
    expires_at: datetime | None,
    is_eligible: bool,  # noqa: FBT001 - a column of the table
) -> None:
    for kind in CreditKind:
        held = credit("1", kind=kind, effective_at=effective_at, expires_at=expires_at)
        assert held.is_eligible(MAY) is is_eligible
        found = [*usage_credit_for([held], MAY), *prepaid_credit_for([held], MAY)]
        assert found == ([held] if is_eligible else [])


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("0", []),
        ("-5", []),
        ("0.01", ["0.01"]),
        ("10", ["10.00"]),
        ("10.01", ["10.00", "0.01"]),
        ("15", ["10.00", "5.00"]),
        ("15.01", ["10.00", "5.00"]),
        ("1000000000", ["10.00", "5.00"]),
    ],
)
def test_a_credit_gives_what_it_has_and_no_more_than_is_asked(asked: str, given: list[str]) -> None:
    held = [credit("10"), credit("0", credit_id=2), credit("5", credit_id=3)]
    assert [drawn.amount.text for drawn in draw(held, dollars(asked))] == given


def test_of_equals_a_credit_that_is_not_written_yet_comes_first() -> None:
    written = credit("10", kind=MONTHLY)
    to_come = replace(written, credit_id=None)
    for both in ([written, to_come], [to_come, written]):
        assert usage_credit_for(both, MAY) == [to_come, written]


def test_a_draw_names_its_credit_also_one_that_is_not_written_yet() -> None:
    to_come = replace(credit("10", kind=MONTHLY), credit_id=None)
    assert draw([to_come], dollars("3")) == (Draw(None, MONTHLY, dollars("3")),)


def test_credit_of_another_currency_does_not_pay() -> None:
    with pytest.raises(CurrencyMismatchError):
        draw([credit("10")], Money(Decimal(1), "EUR"))


@pytest.mark.parametrize(
    ("granted", "earned", "balance", "unearned"),
    [
        ("100", "40", "100", "60"),
        # Some of it is used: what is left goes first towards what was earned.
        ("100", "40", "60", "60"),
        ("100", "40", "59.99", "59.99"),
        ("100", "40", "0", "0"),
        ("100", "100", "100", "0"),
        ("100", "100.01", "50", "0"),
    ],
)
def test_what_was_not_earned_goes_back_as_far_as_it_is_left(
    granted: str, earned: str, balance: str, unearned: str
) -> None:
    part = unearned_part(granted=dollars(granted), earned=dollars(earned), balance=dollars(balance))
    assert part == dollars(unearned)


def test_no_part_of_a_grant_of_another_currency_is_told() -> None:
    with pytest.raises(CurrencyMismatchError):
        unearned_part(granted=dollars("1"), earned=dollars("0"), balance=Money(Decimal(1), "EUR"))


cents = st.integers(0, 10**6).map(lambda count: Decimal(count).scaleb(-2))
moments = st.integers(-40, 40).map(lambda days: MAY.start + days * DAY)
held = st.lists(
    st.builds(
        credit,
        cents,
        kind=st.sampled_from(CreditKind),
        credit_id=st.integers(1, 5),
        effective_at=moments,
        expires_at=st.none() | moments,
        priority=st.integers(-1, 1),
    ),
    max_size=6,
)


@given(held, cents)
def test_what_is_drawn_is_what_is_asked_or_all_there_is(held: list[Credit], asked: Decimal) -> None:
    eligible = usage_credit_for(held, MAY)
    draws = draw(eligible, dollars(asked))
    there = balance_of(eligible, "USD")
    assert total_of(draws, "USD") == min(dollars(asked), there)
    assert all(drawn.amount.amount > 0 for drawn in draws)
    assert PREPAID not in {drawn.kind for drawn in draws}
    # Whoever comes later gives only when those before are used up.
    given = [drawn.amount for drawn in draws]
    with_something = [c.balance for c in eligible if c.balance]
    assert given[:-1] == with_something[: len(given)][:-1]
    assert all(
        one.amount <= balance.amount for one, balance in zip(given, with_something, strict=False)
    )


@given(held)
def test_the_order_does_not_depend_on_how_the_credits_come(held: list[Credit]) -> None:
    held = [replace(one, credit_id=at) for at, one in enumerate(held)]
    found = usage_credit_for(held, MAY)
    assert usage_credit_for(held[::-1], MAY) == found
    kinds = [one.kind for one in found]
    assert kinds == sorted(kinds, key=[MONTHLY, PROMOTIONAL].index)
