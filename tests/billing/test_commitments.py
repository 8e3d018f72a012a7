from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.fees import (
    Commitment,
    FeeKind,
    FeeLine,
    Interval,
    Subscribed,
    commitment_end,
    commitments_in,
    true_up_line,
)
from billing.proration import share
from metering.period import Period
from tests.billing.periods import (
    IN_UTC,
    MAY,
    dollars,
    monthly,
    page_amounts,
    utc,
)
from tests.billing.test_fees import change_of_zone, seconds_of_may
from tests.billing.test_rating import page_rows


def committed(minimum: str, start: str, end: str | None = None, *, term: int = 12) -> Subscribed:
    commitment = Commitment(dollars(minimum), term, utc(start))
    return monthly("99", start, end, commitment=commitment)


def true_up_of(spent: str, *subscriptions: Subscribed, period: Period = MAY) -> FeeLine | None:
    return true_up_line(subscriptions, dollars(spent), period=period, schedule=IN_UTC)


@pytest.mark.parametrize(
    ("minimum", "days", "spent", "true_up"),
    page_rows("| minimum | days of 31 | usage fee after discounts | true-up |"),
)
def test_the_pages_true_ups_are_what_it_says(
    minimum: str, days: str, spent: str, true_up: str
) -> None:
    start = MAY.end - timedelta(days=int(days))
    found = true_up_of(spent, committed(minimum, start.replace(tzinfo=None).isoformat()))
    assert ([found.amount] if found else []) == page_amounts(true_up)


@pytest.mark.parametrize(
    ("start", "end", "spent", "true_up"),
    [
        ("2026-05-01", None, "0", "310.00"),
        ("2026-05-01", None, "309.99", "0.01"),
        ("2026-05-01", None, "310", None),
        ("2026-05-01", None, "310.01", None),
        ("2026-05-17", None, "100", "50.00"),
        ("2026-05-17", None, "150", None),
        ("2026-05-01", "2026-05-17", "100", "60.00"),
        # The last day of the term, and the day after it.
        ("2025-05-02", None, "0", "10.00"),
        ("2025-05-01", None, "0", None),
        ("2025-05-01T00:01", None, "0", "0.01"),
        ("2026-06-01", None, "0", None),
    ],
)
def test_spend_below_the_minimum_is_lifted_to_it(
    start: str, end: str | None, spent: str, true_up: str | None
) -> None:
    found = true_up_of(spent, committed("310", start, end))
    assert (found.amount.text if found else None) == true_up


def test_a_true_up_names_the_minimum_and_the_time_it_is_for() -> None:
    found = true_up_of("100", committed("310", "2026-05-17"))
    assert found == FeeLine(
        kind=FeeKind.TRUE_UP,
        plan="Plan",
        interval=Interval.MONTHLY,
        period=Period(utc("2026-05-17"), MAY.end),
        seconds=15 * 86_400,
        whole_seconds=31 * 86_400,
        rate=dollars("310"),
        amount=dollars("50"),
    )


@pytest.mark.parametrize(
    ("subscribed", "agreed", "true_up"),
    [("2026-04-01", "2026-05-17", "150.00"), ("2026-05-17", "2026-04-01", "150.00")],
)
def test_a_commitment_holds_from_its_start_and_with_its_subscription(
    subscribed: str, agreed: str, true_up: str
) -> None:
    commitment = Commitment(dollars("310"), 12, utc(agreed))
    found = true_up_of("0", monthly("99", subscribed, commitment=commitment))
    assert found
    assert found.amount.text == true_up


def test_the_minimums_of_one_period_add_up_and_are_rounded_once() -> None:
    before, after = committed("100", "2026-05-01", "2026-05-17"), committed("200", "2026-05-17")
    # 51.6129… and 96.7741… are 148.387…: rounded one by one they would be 148.38.
    found = true_up_of("0", before, after)
    assert found
    assert found.amount == dollars("148.39")
    assert true_up_of("148.39", before, after) is None
    assert true_up_of("0", monthly("99", "2026-05-01")) is None
    assert true_up_of("0") is None


@pytest.mark.parametrize(
    ("start", "term", "end"),
    [
        ("2026-05-01", 12, "2027-05-01"),
        ("2026-01-31", 1, "2026-02-28"),
        ("2024-02-29", 12, "2025-02-28"),
        ("2024-02-29", 48, "2028-02-29"),
    ],
)
def test_a_term_ends_on_the_same_day_of_its_last_month(start: str, term: int, end: str) -> None:
    subscription = committed("1", start, term=term)
    assert subscription.commitment
    assert commitment_end(subscription.commitment, IN_UTC) == utc(end)


def test_a_term_is_counted_in_the_local_days_that_are_told_or_in_the_schedules() -> None:
    # The evening of 30 January in New York is the 31st in UTC.
    term = Commitment(dollars("1"), 3, utc("2026-01-31T02:00"))
    moved = change_of_zone("UTC", "America/New_York", "2026-01-15")
    not_yet = change_of_zone("UTC", "America/New_York", "2026-02-15")
    in_utc, in_new_york = utc("2026-04-30T02:00"), utc("2026-05-01T01:00")
    assert commitment_end(term, IN_UTC, zone=ZoneInfo("America/New_York")) == in_new_york
    assert commitment_end(term, moved, zone=ZoneInfo("UTC")) == in_utc
    assert commitment_end(term, moved) == in_new_york
    assert commitment_end(term, not_yet) == in_utc
    # The subscription's own zone says whether it holds in an hour of May.
    in_its_zone = monthly("99", "2026-01-31T02:00", commitment=term)
    for zone, holding in ((None, []), (ZoneInfo("America/New_York"), [term])):
        told = replace(in_its_zone, zone=zone)
        assert commitments_in([told], period=MAY, schedule=IN_UTC) == holding


def test_the_commitments_of_a_period_are_those_that_hold_in_it() -> None:
    over, holding, to_come = (
        committed("1", "2025-05-01"),
        committed("2", "2026-05-31T23:59:59"),
        committed("3", "2026-06-01"),
    )
    plain = monthly("99", "2026-05-01")
    found = commitments_in([over, holding, to_come, plain], period=MAY, schedule=IN_UTC)
    assert found == [holding.commitment]


@pytest.mark.parametrize(("minimum", "term"), [("-0.01", 12), ("1", 0), ("1", -1)])
def test_a_commitment_without_minimum_or_term_is_refused(minimum: str, term: int) -> None:
    with pytest.raises(ValueError, match="Commitment"):
        Commitment(dollars(minimum), term, MAY.start)


@given(seconds_of_may, st.integers(0, 10**8), st.integers(0, 10**8))
def test_with_its_true_up_a_period_comes_to_the_minimum_or_more(
    second: int, minimum: int, spent: int
) -> None:
    start = MAY.start + timedelta(seconds=second)
    least = dollars(Decimal(minimum).scaleb(-2))
    terms = Subscribed("Plan", start, None, least, least, commitment=Commitment(least, 12, start))
    used = dollars(Decimal(spent).scaleb(-2))
    found = true_up_line([terms], used, period=MAY, schedule=IN_UTC)
    due = least.times(share(Period(start, MAY.end), MAY))
    assert (used + found.amount if found else used) == max(used, due)
