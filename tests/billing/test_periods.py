from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.periods import (
    by_window,
    cover,
    join_equal,
    month_containing,
    next_month,
    previous_month,
)
from metering.period import WINDOW, Period, window_start

ZONES = [
    "UTC",
    "America/New_York",
    "America/Asuncion",
    "Asia/Kathmandu",
    "Pacific/Apia",
    "Australia/Lord_Howe",
    "Europe/Berlin",
]
zones = st.sampled_from(ZONES).map(ZoneInfo)
moments = st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=50 * 365)).map(
    lambda since: datetime(2000, 1, 1, tzinfo=UTC) + since
)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def span(start: str, end: str) -> Period:
    return Period(utc(start), utc(end))


@pytest.mark.parametrize(
    ("moment", "zone", "start", "end"),
    [
        ("2026-02-01T00:00", "UTC", "2026-02-01T00:00", "2026-03-01T00:00"),
        ("2026-01-31T23:59:59.999999", "UTC", "2026-01-01T00:00", "2026-02-01T00:00"),
        ("2024-02-29T12:00", "UTC", "2024-02-01T00:00", "2024-03-01T00:00"),
        ("2026-12-31T23:00", "UTC", "2026-12-01T00:00", "2027-01-01T00:00"),
        # The first of March in Berlin begins in February in UTC.
        ("2026-02-28T23:00", "Europe/Berlin", "2026-02-28T23:00", "2026-03-31T22:00"),
        ("2026-02-28T22:59", "Europe/Berlin", "2026-01-31T23:00", "2026-02-28T23:00"),
        # A month in which clocks go forward is an hour short: 31 days less 1 h.
        ("2026-03-15T00:00", "America/New_York", "2026-03-01T05:00", "2026-04-01T04:00"),
        ("2026-06-01T00:00", "Asia/Kathmandu", "2026-05-31T18:15", "2026-06-30T18:15"),
        # Clocks in Paraguay went from midnight to one: the month began at the change.
        ("2017-10-02T00:00", "America/Asuncion", "2017-10-01T04:00", "2017-11-01T03:00"),
        # Samoa left out a whole day at the end of 2011.
        ("2011-12-15T00:00", "Pacific/Apia", "2011-12-01T10:00", "2011-12-31T10:00"),
    ],
)
def test_a_month_runs_between_the_zones_midnights(
    moment: str, zone: str, start: str, end: str
) -> None:
    assert month_containing(utc(moment), ZoneInfo(zone)) == span(start, end)


@given(moments, zones)
def test_a_month_contains_its_moment_and_lies_on_window_edges(
    moment: datetime, zone: ZoneInfo
) -> None:
    month = month_containing(moment, zone)
    assert moment in month
    assert window_start(month.start) == month.start
    assert window_start(month.end) == month.end


@given(moments, zones)
def test_months_follow_each_other_without_gap_or_overlap(moment: datetime, zone: ZoneInfo) -> None:
    month = month_containing(moment, zone)
    assert next_month(month, zone).start == month.end
    assert previous_month(month, zone).end == month.start
    assert previous_month(next_month(month, zone), zone) == month


def test_after_a_move_the_next_period_runs_to_the_new_zones_boundary() -> None:
    january = span("2026-01-01", "2026-02-01")
    following = next_month(january, ZoneInfo("America/New_York"))
    assert following == span("2026-02-01T00:00", "2026-02-01T05:00")


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("2026-01-01T00:00", "2026-01-01T01:00", ("2026-01-01T00:00", "2026-01-01T01:00")),
        ("2026-01-01T00:01", "2026-01-01T01:00", ("2026-01-01T00:15", "2026-01-01T01:00")),
        ("2026-01-01T00:00", "2026-01-01T00:46", ("2026-01-01T00:00", "2026-01-01T01:00")),
        ("2026-01-01T00:01", "2026-01-01T00:14", None),
        ("2026-01-01T00:01", "2026-01-01T00:15", None),
        ("2026-01-01T00:00", "2026-01-01T00:01", ("2026-01-01T00:00", "2026-01-01T00:15")),
    ],
)
def test_a_window_belongs_to_the_span_that_holds_its_start(
    start: str, end: str, expected: tuple[str, str] | None
) -> None:
    assert by_window(span(start, end)) == (span(*expected) if expected else None)


@given(moments, moments, moments)
def test_every_window_belongs_to_exactly_one_of_neighbouring_spans(
    one: datetime, two: datetime, three: datetime
) -> None:
    start, cut, end = sorted([one, two, three])
    if not start < cut < end:
        return
    parts = [by_window(Period(start, cut)), by_window(Period(cut, end))]
    length = sum((part.duration for part in parts if part), start=timedelta(0))
    whole = by_window(Period(start, end))
    assert length == (whole.duration if whole else timedelta(0))
    assert length % WINDOW == timedelta(0)


def test_what_no_piece_covers_is_filled_in_between() -> None:
    whole = span("2026-01-01", "2026-01-10")
    pieces = [
        (span("2025-12-01", "2026-01-02"), "a"),
        (span("2026-01-02", "2026-01-03"), "b"),
        (span("2026-01-05", "2026-02-01"), "c"),
        (span("2026-02-01", "2026-03-01"), "d"),
    ]
    assert cover(whole, pieces, between="-") == [
        (span("2026-01-01", "2026-01-02"), "a"),
        (span("2026-01-02", "2026-01-03"), "b"),
        (span("2026-01-03", "2026-01-05"), "-"),
        (span("2026-01-05", "2026-01-10"), "c"),
    ]


def test_nothing_leaves_all_to_what_is_between() -> None:
    whole = span("2026-01-01", "2026-01-10")
    assert cover(whole, [], between=None) == [(whole, None)]
    assert cover(whole, [(whole, 1)], between=0) == [(whole, 1)]


def test_neighbours_of_one_value_become_one_span() -> None:
    first, second, third = (
        span("2026-01-01", "2026-01-02"),
        span("2026-01-02", "2026-01-03"),
        span("2026-01-04", "2026-01-05"),
    )
    assert join_equal([(first, "a"), (second, "a"), (third, "a")]) == [
        (span("2026-01-01", "2026-01-03"), "a"),
        (third, "a"),
    ]
    assert join_equal([(first, "a"), (second, "b")]) == [(first, "a"), (second, "b")]
