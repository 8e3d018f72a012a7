"""The local days of an account, in one time zone or in one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from metering.period import Period

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Calendar:
    """Says which local day each moment belongs to: to one, and to no earlier one than before.

    `zones` are in the order in which they were in force, `changes` the times from which on each
    but the first was. Days that are over at a change stay as they were. The day it falls into
    goes on until it is over in the new zone, where it may be longer or shorter, or over already.
    """

    zones: tuple[ZoneInfo, ...]
    changes: tuple[datetime, ...] = ()

    def __post_init__(self) -> None:
        if len(self.zones) != len(self.changes) + 1:
            raise ValueError(f"{len(self.zones)} zones do not fit {len(self.changes)} changes.")
        if list(self.changes) != sorted(self.changes):
            raise ValueError(f"Changes are not in order: {self.changes}.")

    def start_of(self, day: date) -> datetime:
        """Return the first moment of a day, in UTC; of a day that is left out, of the next."""
        start = _midnight(day, self.zones[0])
        for at, zone in zip(self.changes, self.zones[1:], strict=True):
            # A day that had begun keeps its beginning.
            if start > at:
                start = max(at, _midnight(day, zone))
        return start

    def day_of(self, moment: datetime) -> date:
        """Return the local day that a moment belongs to."""
        zone, begun = self.zones[0], date.min
        for at, after in zip(self.changes, self.zones[1:], strict=True):
            if moment < at:
                break
            begun = max(begun, at.astimezone(zone).date())
            zone = after
        return max(begun, moment.astimezone(zone).date())

    def span(self, first: date, last: date) -> Period | None:
        """Return the time of the days from `first` to `last`, both included; None: there is none.

        A zone, or a change of zones, may leave out a day.
        """
        start, end = self.start_of(first), self.start_of(last + _DAY)
        return Period(start, end) if start < end else None


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    # Where clocks skip midnight, this is the moment of the change; where they repeat it, the first.
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
