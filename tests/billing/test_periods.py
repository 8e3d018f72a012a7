from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.periods import (
    Cycle,
    Schedule,
    add_months,
    cover,
    join_equal,
    window_end,
    windows_from,
    windows_in,
)
from metering.period import WINDOW, Period, window_start

ZONES = [
    "UTC",
    "America/New_York",
    "America/St_Johns",
    "America/Asuncion",
    "Africa/Casablanca",
    "Asia/Kolkata",
    "Pacific/Kiritimati",
    "Asia/Kathmandu",
    "Pacific/Apia",
    "Australia/Lord_Howe",
    "Europe/Berlin",
]
zones = st.sampled_from(ZONES).map(ZoneInfo)
cycles = st.builds(Cycle, zones, st.integers(1, 31))
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
    assert Cycle(ZoneInfo(zone)).containing(utc(moment)) == span(start, end)


@pytest.mark.parametrize(
    ("anchor_day", "zone", "starts"),
    [
        (31, "UTC", ["2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30", "2026-05-31"]),
        (30, "UTC", ["2027-12-30", "2028-01-30", "2028-02-29", "2028-03-30"]),
        (29, "UTC", ["2027-01-29", "2027-02-28", "2027-03-29"]),
        (28, "UTC", ["2026-01-28", "2026-02-28", "2026-03-28"]),
        (15, "Asia/Kolkata", ["2026-01-14T18:30", "2026-02-14T18:30", "2026-03-14T18:30"]),
        # Clocks go forward on 8 March and back on 1 November.
        (8, "America/Los_Angeles", ["2026-02-08T08:00", "2026-03-08T08:00", "2026-04-08T07:00"]),
        (1, "America/St_Johns", ["2026-10-01T02:30", "2026-11-01T02:30", "2026-12-01T03:30"]),
        # Lord Howe's clocks move by half an hour.
        (5, "Australia/Lord_Howe", ["2026-03-04T13:00", "2026-04-04T13:00", "2026-05-04T13:30"]),
        (1, "Pacific/Kiritimati", ["2026-01-31T10:00", "2026-02-28T10:00", "2026-03-31T10:00"]),
    ],
)
def test_the_anchor_day_is_kept_across_short_months(
    anchor_day: int, zone: str, starts: list[str]
) -> None:
    cycle = Cycle(ZoneInfo(zone), anchor_day)
    period = cycle.containing(utc(starts[0]))
    found = [period.start]
    while len(found) < len(starts):
        period = cycle.containing(period.end)
        found.append(period.start)
    assert found == [utc(text) for text in starts]


@pytest.mark.parametrize("anchor_day", [0, 32, -1])
def test_an_anchor_day_that_no_month_has_is_refused(anchor_day: int) -> None:
    with pytest.raises(ValueError, match="1 to 31"):
        Cycle(ZoneInfo("UTC"), anchor_day)


@given(moments, cycles)
def test_a_period_contains_its_moment_and_lies_on_window_edges(
    moment: datetime, cycle: Cycle
) -> None:
    period = cycle.containing(moment)
    assert moment in period
    assert window_start(period.start) == period.start
    assert window_start(period.end) == period.end


@given(moments, cycles)
def test_periods_follow_each_other_without_gap_or_overlap(moment: datetime, cycle: Cycle) -> None:
    period = cycle.containing(moment)
    following = cycle.containing(period.end)
    assert following.start == period.end
    assert cycle.before(period).end == period.start
    assert cycle.before(following) == period


@given(moments, cycles, cycles, st.integers(0, 40), st.lists(st.integers(1, 4000), max_size=3))
def test_a_schedule_has_neither_overlap_nor_hole_whatever_changes(
    moment: datetime, cycle: Cycle, following: Cycle, months: int, quarters: list[int]
) -> None:
    first = cycle.containing(moment)
    changing = first
    for _ in range(months % 5):
        changing = cycle.containing(changing.end)
    cuts = tuple(first.end + WINDOW * count for count in quarters)
    schedule = Schedule(cycle, following, changing.end, cuts)
    period = first
    for _ in range(12):
        after = schedule.starting(period.end)
        assert after.start == period.end
        assert after.end > after.start
        assert schedule.following(first, after.start) == after
        period = after
    assert all(any(cut in (p.start, p.end) for p in _periods(schedule, first)) for cut in cuts)


def _periods(schedule: Schedule, first: Period) -> list[Period]:
    periods = [first]
    for _ in range(20):
        periods.append(schedule.starting(periods[-1].end))
    return periods


def test_after_a_move_the_next_period_runs_to_the_new_zones_boundary() -> None:
    january = span("2026-01-01", "2026-02-01")
    schedule = Schedule(Cycle(ZoneInfo("UTC")), Cycle(ZoneInfo("America/New_York")), january.end)
    assert schedule.starting(january.end) == span("2026-02-01T00:00", "2026-02-01T05:00")
    assert schedule.whole(january.end) == span("2026-01-01T05:00", "2026-02-01T05:00")
    east = Schedule(Cycle(ZoneInfo("UTC")), Cycle(ZoneInfo("Asia/Kolkata")), january.end)
    assert east.starting(january.end) == span("2026-02-01T00:00", "2026-02-28T18:30")


def test_before_the_change_the_old_cycle_holds() -> None:
    schedule = Schedule(Cycle(ZoneInfo("UTC")), Cycle(ZoneInfo("UTC"), 15), utc("2026-03-01T00:00"))
    january = span("2026-01-01", "2026-02-01")
    assert schedule.following(january, utc("2026-02-20T00:00")) == span("2026-02-01", "2026-03-01")
    assert schedule.following(january, utc("2026-03-02T00:00")) == span("2026-03-01", "2026-03-15")
    assert schedule.following(january, utc("2026-03-20T00:00")) == span("2026-03-15", "2026-04-15")
    assert schedule.following(january, utc("2025-12-20T00:00")) == span("2025-12-01", "2026-01-01")


def test_a_cut_ends_a_period_and_the_next_goes_on_to_the_boundary() -> None:
    cut = utc("2026-01-10T10:15")
    schedule = Schedule(Cycle(ZoneInfo("UTC")), cuts=(cut,))
    january = schedule.starting(utc("2026-01-01T00:00"))
    assert january == span("2026-01-01T00:00", "2026-01-10T10:15")
    assert schedule.starting(january.end) == span("2026-01-10T10:15", "2026-02-01T00:00")


@pytest.mark.parametrize(
    ("moment", "months", "zone", "day", "expected"),
    [
        ("2026-01-31T12:00", 1, "UTC", None, "2026-02-28T12:00"),
        ("2026-02-28T12:00", 1, "UTC", 31, "2026-03-31T12:00"),
        ("2028-02-29T00:00", 12, "UTC", None, "2029-02-28T00:00"),
        ("2028-02-29T00:00", 48, "UTC", 29, "2032-02-29T00:00"),
        ("2026-12-15T00:00", 1, "UTC", None, "2027-01-15T00:00"),
        # Ten in the morning in New York, before and after clocks go forward.
        ("2026-02-20T15:00", 1, "America/New_York", None, "2026-03-20T14:00"),
        # To half past one, which there is twice on 1 November: the first, from the second too.
        ("2026-10-01T05:30", 1, "America/New_York", None, "2026-11-01T05:30"),
        ("2026-11-01T06:30", 132, "America/New_York", None, "2037-11-01T05:30"),
    ],
)
def test_so_many_months_on_is_the_same_local_day_and_time(
    moment: str, months: int, zone: str, day: int | None, expected: str
) -> None:
    assert add_months(utc(moment), months, ZoneInfo(zone), day=day) == utc(expected)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("2026-01-01T00:07", "2026-01-01T01:00", ("2026-01-01T00:00", "2026-01-01T01:00")),
        ("2026-01-01T00:00", "2026-01-01T00:59", ("2026-01-01T00:00", "2026-01-01T00:45")),
        ("2026-01-01T00:01", "2026-01-01T00:14", None),
    ],
)
def test_a_plan_holds_from_the_window_it_starts_in(
    start: str, end: str, expected: tuple[str, str] | None
) -> None:
    assert windows_from(utc(start), utc(end)) == (span(*expected) if expected else None)


def test_an_edge_is_in_the_window_that_it_starts() -> None:
    assert window_end(utc("2026-01-01T00:14:59.999999")) == utc("2026-01-01T00:15")
    assert window_end(utc("2026-01-01T00:15")) == utc("2026-01-01T00:30")


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
    assert windows_in(span(start, end)) == (span(*expected) if expected else None)


@given(moments, moments, moments)
def test_every_window_belongs_to_exactly_one_of_neighbouring_spans(
    one: datetime, two: datetime, three: datetime
) -> None:
    start, cut, end = sorted([one, two, three])
    if not start < cut < end:
        return
    parts = [windows_in(Period(start, cut)), windows_in(Period(cut, end))]
    length = sum((part.duration for part in parts if part), start=timedelta(0))
    whole = windows_in(Period(start, end))
    assert length == (whole.duration if whole else timedelta(0))
    assert length % WINDOW == timedelta(0)


def test_what_no_piece_covers_is_filled_in_between() -> None:
    whole = span("2026-01-01", "2026-01-10")
    pieces = [
        (span("2025-11-01", "2025-12-01"), "z"),
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
