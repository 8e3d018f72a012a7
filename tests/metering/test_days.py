"""Which local day a moment belongs to, also where an account's time zone changed."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.days import Calendar
from metering.period import WINDOW, Period

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
ZONES = (
    "UTC",
    "America/New_York",
    "America/Havana",
    "America/Scoresbysund",
    "Asia/Kathmandu",
    "Asia/Tokyo",
    "Atlantic/Azores",
    "Pacific/Apia",
    "Pacific/Chatham",
    "Pacific/Kiritimati",
    "Pacific/Marquesas",
    "Etc/GMT+12",
)
SINCE = datetime(2026, 1, 1, tzinfo=UTC)
WINDOWS_OF_A_YEAR = 365 * 96


def utc(day: int, hour: int = 0, minute: int = 0, *, month: int = 11) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=UTC)


def calendar(*names: str, changes: tuple[datetime, ...] = ()) -> Calendar:
    return Calendar(tuple(map(ZoneInfo, names)), changes)


def november(day: int) -> date:
    return date(2026, 11, day)


@pytest.mark.parametrize(
    ("zone", "day", "start"),
    [
        ("UTC", november(1), utc(1)),
        ("Asia/Kathmandu", november(1), utc(31, 18, 15, month=10)),
        # The day on which clocks go back at 01:00 to 00:00 starts at the first midnight.
        ("America/Havana", november(1), utc(1, 4)),
        ("America/Havana", november(2), utc(2, 5)),
        # Clocks that skip midnight: the day starts with the change.
        ("Africa/Cairo", date(2026, 4, 24), utc(23, 22, month=4)),
        # A day that a zone left out starts where the next one does.
        ("Pacific/Apia", date(2011, 12, 30), datetime(2011, 12, 30, 10, tzinfo=UTC)),
        ("Pacific/Apia", date(2011, 12, 31), datetime(2011, 12, 30, 10, tzinfo=UTC)),
    ],
)
def test_a_day_starts_at_its_first_moment(zone: str, day: date, start: datetime) -> None:
    assert calendar(zone).start_of(day) == start


@pytest.mark.parametrize(
    ("before", "after", "change", "starts"),
    [
        # At midnight in Tokyo, New York is still on the day before: that one stays as it was, and
        # the first day goes on to New York's midnight.
        (
            "Asia/Tokyo",
            "America/New_York",
            utc(30, 15),
            {30: utc(29, 15), 31: utc(30, 15), 32: utc(2, 5, month=12)},
        ),
        # At midnight in New York, Tokyo is well into the day: the first day is short.
        (
            "America/New_York",
            "Asia/Tokyo",
            utc(10, 5),
            {9: utc(9, 5), 10: utc(10, 5), 11: utc(10, 15), 12: utc(11, 15)},
        ),
        # A whole day is over in the zone after: it is left out.
        (
            "Etc/GMT+12",
            "Pacific/Kiritimati",
            utc(10, 12),
            {9: utc(9, 12), 10: utc(10, 12), 11: utc(10, 12), 12: utc(11, 10)},
        ),
        # In the middle of a day it keeps its beginning.
        ("UTC", "Asia/Tokyo", utc(10, 7), {10: utc(10), 11: utc(10, 15), 12: utc(11, 15)}),
        ("UTC", "Asia/Tokyo", utc(10, 20), {10: utc(10), 11: utc(10, 20), 12: utc(11, 15)}),
        ("UTC", "America/New_York", utc(10, 3), {10: utc(10), 11: utc(11, 5)}),
    ],
)
def test_the_day_of_a_change_goes_on_until_it_is_over_in_the_zone_after(
    before: str, after: str, change: datetime, starts: dict[int, datetime]
) -> None:
    found = calendar(before, after, changes=(change,))
    first = november(1)
    for day, start in starts.items():
        assert found.start_of(first + (day - 1) * DAY) == start, day


def test_a_day_that_is_left_out_has_no_time() -> None:
    found = calendar("Etc/GMT+12", "Pacific/Kiritimati", changes=(utc(10, 12),))
    assert found.span(november(10), november(10)) is None
    assert found.span(november(9), november(10)) == Period(utc(9, 12), utc(10, 12))
    assert found.day_of(utc(10, 11, 59)) == november(9)
    assert found.day_of(utc(10, 12)) == november(11)


moments = st.integers(0, WINDOWS_OF_A_YEAR).map(lambda n: SINCE + n * WINDOW)
zones = st.sampled_from(ZONES)


@st.composite
def calendars(draw: st.DrawFn) -> Calendar:
    changes = sorted(draw(st.lists(moments, max_size=3)))
    # Two changes soon after each other are the odd ones.
    changes += [changes[-1] + draw(st.integers(0, 200)) * WINDOW] if changes else []
    names = draw(st.lists(zones, min_size=len(changes) + 1, max_size=len(changes) + 1))
    return calendar(*names, changes=tuple(changes))


@given(calendars(), moments, st.integers(-300, 300))
def test_each_moment_belongs_to_one_day_and_days_follow_each_other(
    found: Calendar, moment: datetime, windows: int
) -> None:
    moments_ = [moment, *(at + windows * WINDOW for at in found.changes)]
    for at in moments_:
        day = found.day_of(at)
        assert found.start_of(day) <= at < found.start_of(day + DAY)
        assert found.day_of(at + WINDOW) >= day


@given(calendars(), zones, st.integers(0, 5000))
def test_a_change_leaves_what_was_before_it_as_it_was(
    found: Calendar, zone: str, windows: int
) -> None:
    change = (found.changes[-1] if found.changes else SINCE) + windows * WINDOW
    changed = Calendar((*found.zones, ZoneInfo(zone)), (*found.changes, change))
    for n in range(1, 400, 7):
        moment = change - n * WINDOW
        assert changed.day_of(moment) == found.day_of(moment)
    # Days that were over when the zone changed keep all of their time.
    today = found.day_of(change)
    for n in range(1, 5):
        day = today - n * DAY
        assert changed.span(day, day) == found.span(day, day)
    # Two days on, the zone's own days count.
    later = change + 3 * DAY
    assert changed.day_of(later) == later.astimezone(ZoneInfo(zone)).date()


def test_zones_and_changes_have_to_fit() -> None:
    with pytest.raises(ValueError, match="2 zones do not fit 0 changes"):
        calendar("UTC", "Asia/Tokyo")
    with pytest.raises(ValueError, match="not in order"):
        calendar("UTC", "UTC", "UTC", changes=(utc(2), utc(1)))
