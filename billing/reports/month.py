from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from metering.period import Period

_WRITTEN = re.compile(r"([0-9]{4})-([0-9]{2})")
_FARTHEST_ZONE = timedelta(hours=26)
"""Between any two time zones there is less, so a local month lies within so much of UTC's."""


@dataclass(frozen=True, slots=True)
class Month:
    """A calendar month, of whatever time zone. Raises ValueError where it is none."""

    year: int
    month: int

    def __post_init__(self) -> None:
        # The years before and after have to exist too.
        if not (2 <= self.year <= 9998 and 1 <= self.month <= 12):
            raise ValueError(f"{self} is no month.")

    @classmethod
    def parse(cls, text: str) -> Month:
        """Return the month that is written YYYY-MM. Raises ValueError."""
        if not (written := _WRITTEN.fullmatch(text)):
            raise ValueError(f"{text[:20]!r} is not a month. Write it as in 2026-05.")
        return cls(int(written[1]), int(written[2]))

    def holds(self, day: date) -> bool:
        """Return whether a day is one of the month's."""
        return (day.year, day.month) == (self.year, self.month)

    @property
    def around(self) -> Period:
        """A span that holds every moment that is in this month somewhere on earth."""
        start = datetime(self.year, self.month, 1, tzinfo=UTC)
        after = datetime(self.year + self.month // 12, self.month % 12 + 1, 1, tzinfo=UTC)
        return Period(start - _FARTHEST_ZONE, after + _FARTHEST_ZONE)

    def __str__(self) -> str:
        return f"{self.year:04d}-{self.month:02d}"
