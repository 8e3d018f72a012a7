from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

WINDOW = timedelta(minutes=15)
"""The span of one usage record. Every time zone's offset is a multiple of it."""

WINDOW_MS = 15 * 60 * 1000

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True, order=True)
class Period:
    """A half-open span of time, `[start, end)`, in UTC.

    Raises ValueError when a bound is not in UTC or the span is empty.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        for name, bound in (("start", self.start), ("end", self.end)):
            if bound.tzinfo is not UTC:
                raise ValueError(f"Period.{name} is not in UTC: {bound!r}. Use astimezone(UTC).")
        if self.end <= self.start:
            raise ValueError(f"Period.end {self.end} is not after its start {self.start}.")

    def __contains__(self, moment: datetime) -> bool:
        return self.start <= moment < self.end

    def overlap(self, other: Period) -> Period | None:
        """Return the span both have in common, or None when there is none."""
        start, end = max(self.start, other.start), min(self.end, other.end)
        return Period(start, end) if start < end else None

    def windows(self) -> Iterator[Period]:
        """Yield each window that shares time with this period, whole and in order."""
        start = window_start(self.start)
        while start < self.end:
            yield Period(start, start + WINDOW)
            start += WINDOW

    @property
    def duration(self) -> timedelta:
        """The span's length."""
        return self.end - self.start


def window_start(moment: datetime) -> datetime:
    """Return the start of the window that `moment` falls into."""
    return from_ms(to_ms(moment) // WINDOW_MS * WINDOW_MS)


def to_ms(moment: datetime) -> int:
    """Return whole milliseconds since 1970, rounded down."""
    return (moment - EPOCH) // MILLISECOND


def from_ms(ms: int) -> datetime:
    """Return the UTC time `ms` milliseconds after 1970."""
    return EPOCH + ms * MILLISECOND
