"""Billing periods: calendar months in an account's time zone."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import TypeVar
from zoneinfo import ZoneInfo

from metering.period import WINDOW, Period, window_start

T = TypeVar("T")

_MONTHS = 12


def month_containing(moment: datetime, zone: ZoneInfo) -> Period:
    """Return the calendar month of `zone` that `moment` falls into."""
    local = moment.astimezone(zone)
    return _month(local.year, local.month, zone)


def next_month(period: Period, zone: ZoneInfo) -> Period:
    """Return the span from the end of `period` to the zone's next first of a month.

    A whole month when `period` ended on the zone's own boundary. Else, because the account
    has moved to this zone since, a shorter one: the two never overlap and leave no gap.
    """
    return Period(period.end, month_containing(period.end, zone).end)


def previous_month(period: Period, zone: ZoneInfo) -> Period:
    """Return the calendar month before the one in which `period` starts."""
    local = period.start.astimezone(zone)
    return _month(local.year, local.month - 1, zone)


def _month(year: int, month: int, zone: ZoneInfo) -> Period:
    """Return a month by number, where 0 is December of the year before."""
    return Period(_first_moment(year, month, zone), _first_moment(year, month + 1, zone))


def _first_moment(year: int, month: int, zone: ZoneInfo) -> datetime:
    years, month_index = divmod(month - 1, _MONTHS)
    first = date(year + years, month_index + 1, 1)
    # Where clocks skip midnight, this is the moment of the change; where they repeat it, the first.
    return datetime(first.year, first.month, first.day, tzinfo=zone).astimezone(UTC)


def by_window(period: Period) -> Period | None:
    """Return the windows whose start lies in `period`, as one span, or None when there are none.

    Usage comes in windows, and what holds at a window's start holds for all of it.
    """
    start, end = _next_window_start(period.start), _next_window_start(period.end)
    return Period(start, end) if start < end else None


def cover(
    whole: Period, pieces: Iterable[tuple[Period, T]], *, between: T
) -> list[tuple[Period, T]]:
    """Return spans that make up `whole`: the pieces, cut to it, and `between` where none is.

    `pieces` are in order and do not overlap.
    """
    spans: list[tuple[Period, T]] = []
    reached = whole.start
    for piece, value in pieces:
        if (inside := piece.overlap(whole)) is None:
            continue
        if reached < inside.start:
            spans.append((Period(reached, inside.start), between))
        spans.append((inside, value))
        reached = inside.end
    if reached < whole.end:
        spans.append((Period(reached, whole.end), between))
    return spans


def join_equal(spans: Iterable[tuple[Period, T]]) -> list[tuple[Period, T]]:
    """Return the spans with neighbours of the same value made one. They are in order."""
    joined: list[tuple[Period, T]] = []
    for span, value in spans:
        if joined and joined[-1][1] == value and joined[-1][0].end == span.start:
            joined[-1] = (Period(joined[-1][0].start, span.end), value)
        else:
            joined.append((span, value))
    return joined


def _next_window_start(moment: datetime) -> datetime:
    start = window_start(moment)
    return start if start == moment else start + WINDOW
