"""Billing periods: from the anchor day of one month to that of the next, in a time zone."""

from __future__ import annotations

import calendar
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TypeVar
from zoneinfo import ZoneInfo

from metering.period import WINDOW, Period, window_start

T = TypeVar("T")

_MONTHS = 12
LAST_ANCHOR_DAY = 31


@dataclass(frozen=True, slots=True)
class Cycle:
    """How time is cut into billing periods, each from one local midnight to another.

    Anchor day 1 gives calendar months. A day that a month does not have is its last one, and
    the month after goes back to the anchor: 31 January, 28 February, 31 March. Raises ValueError.
    """

    zone: ZoneInfo
    anchor_day: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.anchor_day <= LAST_ANCHOR_DAY:
            raise ValueError(
                f"Cycle.anchor_day is {self.anchor_day}. Use a day of the month, "
                f"1 to {LAST_ANCHOR_DAY}."
            )

    def containing(self, moment: datetime) -> Period:
        """Return the period that `moment` falls into."""
        local = moment.astimezone(self.zone)
        month = local.year * _MONTHS + local.month - 1
        if moment < self._start_in(month):
            month -= 1
        return Period(self._start_in(month), self._start_in(month + 1))

    def before(self, period: Period) -> Period:
        """Return the period that ends where `period` starts, or the one that it cuts short."""
        return self.containing(period.start - WINDOW)

    def _start_in(self, month: int) -> datetime:
        """Return where the period starts that begins in a month, counted from year 0."""
        year, month_index = divmod(month, _MONTHS)
        days = calendar.monthrange(year, month_index + 1)[1]
        first = date(year, month_index + 1, min(self.anchor_day, days))
        # Where clocks skip midnight, this is the moment of the change; where they repeat it,
        # the first of the two.
        return datetime(first.year, first.month, first.day, tzinfo=self.zone).astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Followed:
    """Periods of a payment provider, which ours follow from `start` to `stop`.

    `first` is the one that the provider told, exactly; after it come months, for as long as they
    begin before `renews_until`. `start` and `stop` are where windows start. `stop` and
    `renews_until` are None where there is no end.
    """

    first: Period
    start: datetime
    stop: datetime | None = None
    renews_until: datetime | None = None

    def whole(self, moment: datetime) -> Period | None:
        """Return what a full fee and full credits are for around `moment`, in whole windows.

        That is the provider's period; of a shorter first one, as a trial, the month that ends
        with it. None where ours do not follow.
        """
        if moment < self.start or (self.stop and moment >= self.stop):
            return None
        for period in self._renewed():
            if moment < window_start(period.end):
                start = period.start
                if period == self.first:
                    start = min(start, self._months_after_first(-1))
                return Period(window_start(start), window_start(period.end))
        return None

    def exact(self, moment: datetime) -> Period | None:
        """Return the provider's period around `moment`, as the provider counts; None: in none."""
        if self.stop and moment >= self.stop:
            return None
        for period in self._renewed():
            if moment < period.end:
                return period if moment in period else None
        return None

    def _renewed(self) -> Iterator[Period]:
        """Yield the provider's periods without end, or up to the last."""
        period, number = self.first, 0
        while True:
            yield period
            if self.renews_until and period.end >= self.renews_until:
                return
            number += 1
            period = Period(period.end, self._months_after_first(number))

    def _months_after_first(self, number: int) -> datetime:
        start, end = self.first.start.day, self.first.end.day
        # It ends on the last of a month: perhaps because that month has no day like the first's.
        is_last = end == calendar.monthrange(self.first.end.year, self.first.end.month)[1]
        day = max(start, end) if is_last else end
        return add_months(self.first.end, number, ZoneInfo("UTC"), day=day)


@dataclass(frozen=True, slots=True)
class Schedule:
    """The periods of one account: they follow one another without overlap or hole.

    `changes_at` is where another cycle takes over; `cuts` are moments at which a period ends
    before its time, because a subscription was cancelled there and then. While it follows a
    payment provider's periods, they go before the cycle.
    """

    cycle: Cycle
    next_cycle: Cycle | None = None
    changes_at: datetime | None = None
    cuts: tuple[datetime, ...] = ()
    # In order, each up to where the next starts.
    followed: tuple[Followed, ...] = ()

    def cycle_at(self, moment: datetime) -> Cycle:
        """Return the cycle that holds at `moment`."""
        if self.next_cycle and self.changes_at and moment >= self.changes_at:
            return self.next_cycle
        return self.cycle

    def whole(self, moment: datetime) -> Period:
        """Return the full period around `moment`: what a full fee is for."""
        for followed in self.followed:
            if period := followed.whole(moment):
                return period
        return self.cycle_at(moment).containing(moment)

    def exact(self, moment: datetime) -> Period | None:
        """Return the provider's period around `moment`, as the provider counts; None: in none.

        Where two were told for it, the later one holds.
        """
        found = (followed.exact(moment) for followed in reversed(self.followed))
        return next(filter(None, found), None)

    def starting(self, start: datetime) -> Period:
        """Return the period that starts at `start`, where the one before ended.

        It is a whole one unless the cycle has changed, a cut falls into it, or a provider's
        periods take over in it.
        """
        taken_over = (followed.start for followed in self.followed)
        ends = [self.whole(start).end, *(cut for cut in (*self.cuts, *taken_over) if cut > start)]
        return Period(start, min(ends))

    def following(self, first: Period, moment: datetime) -> Period:
        """Return the period that `moment` falls into, counted on from `first`.

        Before `first`, it is the whole period around `moment`.
        """
        if moment < first.start:
            return self.whole(moment)
        period = first
        while moment >= period.end:
            period = self.starting(period.end)
        return period


def add_months(
    moment: datetime, months: int, zone: ZoneInfo, *, day: int | None = None
) -> datetime:
    """Return the same local day and time so many months on, in UTC.

    `day` is the day of the month to keep, where a month before was too short for it.
    """
    local = moment.astimezone(zone)
    year, month_index = divmod(local.year * _MONTHS + local.month - 1 + months, _MONTHS)
    last = calendar.monthrange(year, month_index + 1)[1]
    moved = local.replace(year=year, month=month_index + 1, day=min(day or local.day, last), fold=0)
    return moved.astimezone(UTC)


def windows_in(period: Period) -> Period | None:
    """Return the windows whose start lies in `period`, as one span, or None when there are none.

    Usage comes in windows, and the prices in force at a window's start hold for all of it.
    """
    start, end = _next_window_start(period.start), _next_window_start(period.end)
    return Period(start, end) if start < end else None


def windows_from(start: datetime, end: datetime) -> Period | None:
    """Return the windows from the one that `start` is in to before the one that `end` is in.

    A plan holds for usage from the start of the window in which it began.
    """
    start, end = window_start(start), window_start(end)
    return Period(start, end) if start < end else None


def window_end(moment: datetime) -> datetime:
    """Return the end of the window that `moment` falls into."""
    return window_start(moment) + WINDOW


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
