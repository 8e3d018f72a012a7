"""How far a host's clock is from ours, and which of its readings are believed for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from metering.lives import refuse
from metering.models import Host, Refusal
from metering.period import MILLISECOND, to_ms
from metering.samples import State
from metering.source import Reading, Source

# Readings of a clock that is further off than this are left out; counters lose nothing by it.
SKEW_LIMIT = timedelta(seconds=5)
# So many containers are read to find out how far the clock is off.
CONTAINERS_ASKED = 3

_MS_NS = 10**6


@dataclass(frozen=True, slots=True)
class Readings:
    """What a source gave, and how far its clock is ahead of ours; None: not known."""

    believed: list[Reading]
    offset_ms: int | None
    skewed_count: int = 0

    @property
    def problem(self) -> str:
        """Return what is wrong with the clock, empty when nothing is."""
        if not self.skewed_count or self.offset_ms is None:
            return ""
        direction = "ahead of" if self.offset_ms > 0 else "behind"
        return (
            f"The host's clock is {abs(self.offset_ms) / 1000:.1f} s {direction} ours: "
            f"{self.skewed_count} readings are left out. Set it right (NTP)."
        )


def is_skewed(host: Host) -> bool:
    """Return whether the host's clock was too far off to be believed when last looked at."""
    return abs(host.clock_offset_ms or 0) > SKEW_LIMIT // MILLISECOND


def ask_offset(host: Host, source: Source) -> int:
    """Return how far the host's clock is ahead of ours, in ms, for asking it for events.

    Where that is in doubt running containers are read first: an engine that is asked for
    events of a time that its clock has not reached waits for it.
    """
    if not (host.clock_offset_ms is None or host.problem or is_skewed(host)):
        return host.clock_offset_ms
    running = [
        found.container_id for found in source.list_containers() if found.state is not State.STOPPED
    ]
    offset_ms = read(source, running[:CONTAINERS_ASKED]).offset_ms
    if offset_ms is None:
        return min(host.clock_offset_ms or 0, 0)
    host.clock_offset_ms = offset_ms
    return offset_ms


def read(source: Source, container_ids: Sequence[str]) -> Readings:
    """Read containers; leave out what a clock that is too far off has put a time to."""
    before_ms = to_ms(source.clock())
    readings = source.read(container_ids) if container_ids else []
    after_ms = to_ms(source.clock())
    if not readings:
        return Readings([], None)
    limit_ms = SKEW_LIMIT // MILLISECOND
    believed = [
        reading
        for reading in readings
        if before_ms - limit_ms <= reading.read_ms <= after_ms + limit_ms
    ]
    ahead_ms = sorted(
        max(reading.read_ms - after_ms, 0) + min(reading.read_ms - before_ms, 0)
        for reading in readings
    )
    return Readings(believed, ahead_ms[len(ahead_ms) // 2], len(readings) - len(believed))


def note_skewed(host: Host, readings: Readings, now: datetime) -> None:
    """Count the readings that were left out for the host's clock."""
    if problem := readings.problem:
        count = readings.skewed_count
        refuse(host, Refusal.Reason.CLOCK_SKEWED, host.name, problem, now=now, count=count)


def set_right(host: Host, at_ns: int, *, not_before_ns: int, now: datetime) -> int:
    """Return when something happened that the host says happened in our future, by our clock.

    A life that ends was not read while the clock was off: its end by that clock would count
    time that is not over. One that began by that clock as well keeps it.
    """
    if not is_skewed(host) or at_ns <= to_ms(now + SKEW_LIMIT) * _MS_NS:
        return at_ns
    right_ns = at_ns - (host.clock_offset_ms or 0) * _MS_NS
    return right_ns if right_ns > not_before_ns else at_ns
