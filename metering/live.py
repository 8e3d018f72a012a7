"""What lives are doing now: their newest readings, from the stream before they are folded.

Reading it writes nothing. Where the stream is silent or has nothing so new, the last folded
reading stands in, and says so.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from fractions import Fraction
from typing import TypeVar
from uuid import UUID

import numpy as np
import numpy.typing as npt
from django.db.models import QuerySet

from metering import collector, stream
from metering.lives import SANDBOX_ID
from metering.models import InterfaceReading, Life, LifeReading, Sandbox
from metering.period import from_ms, to_ms
from metering.samples import Batch, EncodingError, Known, State, unpack
from metering.source import SourceError

LIVE_WITHIN = timedelta(seconds=5)
"""A reading is live for so long."""
READ_BACK = timedelta(seconds=10)
MOST_LIVES = 20
"""So many lives that run are looked at of one sandbox, the newest ones."""
MOST_ENTRIES = 12
MOST_BYTES = 16 * 2**20
"""So many entries are read of one stream, and so much of all streams together."""

_COUNTERS = {
    "cpu_ns": Known.CPU,
    "disk_read_bytes": Known.DISK_READ,
    "disk_write_bytes": Known.DISK_WRITE,
}
_FIGURES = {
    **_COUNTERS,
    "memory_bytes": Known.MEMORY,
    "cpu_limit_micro": Known.ALLOCATION,
    "memory_limit_bytes": Known.ALLOCATION,
}
_STATES: Mapping[int, str] = {
    State.RUNNING: "running",
    State.PAUSED: "paused",
    State.STOPPED: "stopped",
}
SECOND_NS = 10**9
_BUSIEST = ("running", "paused", "stopped")
UNKNOWN = "unknown"
_POINTS_A_RATE = 2

N = TypeVar("N", int, Fraction)

logger = logging.getLogger(__name__)


class NoSuchSandboxError(LookupError):
    """The account has no sandbox of this id."""


class NotReadError(Exception):
    """The sandbox could not be read now: its engine or the stream does not answer."""


@dataclass(frozen=True, slots=True)
class LiveReading:
    """What a life was doing at its newest reading; None is what is not known.

    `cpu_percent` of 100 is one cpu. Rates are a second's, on average over `span_ms`: the time
    since the reading before. Limits are what is allocated: as set, or all that the host offers.
    """

    at: datetime | None
    is_live: bool
    state: str
    memory_bytes: int | None
    memory_limit_bytes: int | None
    cpu_limit_micro: int | None
    span_ms: int | None = None
    cpu_percent: Fraction | None = None
    network_rx_rate: Fraction | None = None
    network_tx_rate: Fraction | None = None
    disk_read_rate: Fraction | None = None
    disk_write_rate: Fraction | None = None


NEVER_READ = LiveReading(
    at=None,
    is_live=False,
    state=UNKNOWN,
    memory_bytes=None,
    memory_limit_bytes=None,
    cpu_limit_micro=None,
)


@dataclass(frozen=True, slots=True)
class LiveSandbox:
    """What a sandbox is doing: the sums over its lives that run, else its last life's end."""

    sandbox_id: str
    lives: int
    reading: LiveReading


@dataclass(frozen=True, slots=True)
class RunningLife:
    """A life that runs as far as is known, and what it is doing."""

    sandbox_id: str
    started_at: datetime
    labels: Mapping[str, str]
    reading: LiveReading


@dataclass(slots=True)
class _Point:
    """One reading: the counters and gauges that were read, and each interface's (rx, tx)."""

    read_ms: int
    figures: dict[str, int] = field(default_factory=dict)
    interfaces: dict[int, tuple[int, int]] = field(default_factory=dict)


@dataclass(slots=True)
class _Seen:
    """What the stream has of one life, by its time, and the state that the newest sample says."""

    points: dict[int, _Point] = field(default_factory=dict)
    state: int = 0
    state_ms: int = -1

    def newest_first(self) -> list[_Point]:
        """Return its readings."""
        return [self.points[read_ms] for read_ms in sorted(self.points, reverse=True)]


def live_sandbox(account_id: UUID, sandbox_id: str, *, now: datetime) -> LiveSandbox:
    """Return what a sandbox is doing. Raises NoSuchSandboxError."""
    lives = _lives().filter(sandbox__account=account_id, sandbox__sandbox_id=sandbox_id)
    found = list(lives.filter(ended_at__isnull=True)[:MOST_LIVES]) or list(lives[:1])
    if not found:
        known = Sandbox.objects.filter(account=account_id, sandbox_id=sandbox_id)
        if not known.exists():
            raise NoSuchSandboxError(f"The account has no sandbox {sandbox_id}.")
        return LiveSandbox(sandbox_id, 0, NEVER_READ)
    readings = live_readings(found, now=now)
    running = [life for life in found if life.ended_at is None]
    return LiveSandbox(sandbox_id, len(running), together([readings[life.pk] for life in found]))


def running_lives(account_id: UUID, *, most: int, now: datetime) -> tuple[list[RunningLife], int]:
    """Return the account's newest lives that run, `most` of them, and how many there are."""
    lives = _lives().filter(sandbox__account=account_id, ended_at__isnull=True)
    found = list(lives[:most])
    readings = live_readings(found, now=now)
    running = [
        RunningLife(life.sandbox.sandbox_id, life.started_at, life.labels, readings[life.pk])
        for life in found
    ]
    return running, len(found) if len(found) < most else lives.count()


def collect_now(account_id: UUID, sandbox_id: str, *, now: datetime) -> int:
    """Read a sandbox's running lives at once, and return how many were read. Safe to repeat.

    Raises NoSuchSandboxError, NotReadError.
    """
    sandboxes = Sandbox.objects.filter(account=account_id, sandbox_id=sandbox_id)
    if not (SANDBOX_ID.fullmatch(sandbox_id) and sandboxes.exists()):
        raise NoSuchSandboxError(f"The account has no sandbox {sandbox_id}.")
    try:
        return collector.collect_sandbox(account_id, sandbox_id, now=now)
    except (SourceError, stream.StreamUnavailableError) as error:
        raise NotReadError(str(error)) from error


def live_readings(lives: Sequence[Life], *, now: datetime) -> dict[int, LiveReading]:
    """Return what each life is doing, by its number. They come with their `reading`.

    The newest entries of each host's stream are read, bounded; at most one query.
    """
    of_host: defaultdict[UUID, list[int]] = defaultdict(list)
    for life in lives:
        if life.ended_at is None:
            of_host[life.host_id].append(life.pk)
    seen: dict[int, _Seen] = {}
    try:
        _read_back(of_host, seen, since_ms=to_ms(now - READ_BACK))
    except stream.StreamUnavailableError as error:
        logger.warning("live view does without the stream", extra={"because": str(error)})
    before = _folded_before(lives, seen)
    return {life.pk: _reading(life, seen.get(life.pk), before.get(life.pk), now) for life in lives}


def together(readings: Sequence[LiveReading]) -> LiveReading:
    """Return what one or more lives are doing together, as of the one that was read first.

    What is known of none is None, and a limit unless it is known of all.
    """
    if len(readings) == 1:
        return readings[0]
    read = [reading.at for reading in readings if reading.at]
    states = {reading.state for reading in readings}
    spans = [reading.span_ms for reading in readings if reading.span_ms is not None]
    return LiveReading(
        at=min(read) if read else None,
        is_live=all(reading.is_live for reading in readings),
        state=next((state for state in _BUSIEST if state in states), UNKNOWN),
        span_ms=max(spans) if spans else None,
        memory_bytes=_sum(reading.memory_bytes for reading in readings),
        memory_limit_bytes=_sum_of_all([reading.memory_limit_bytes for reading in readings]),
        cpu_limit_micro=_sum_of_all([reading.cpu_limit_micro for reading in readings]),
        cpu_percent=_sum(reading.cpu_percent for reading in readings),
        network_rx_rate=_sum(reading.network_rx_rate for reading in readings),
        network_tx_rate=_sum(reading.network_tx_rate for reading in readings),
        disk_read_rate=_sum(reading.disk_read_rate for reading in readings),
        disk_write_rate=_sum(reading.disk_write_rate for reading in readings),
    )


def _lives() -> QuerySet[Life]:
    return Life.objects.select_related("sandbox", "reading").order_by("-started_at", "-pk")


def _read_back(
    of_host: Mapping[UUID, Sequence[int]], seen: dict[int, _Seen], *, since_ms: int
) -> None:
    """Add what the newest entries of each host's stream say of its lives.

    Raises StreamUnavailableError: a silent Redis is waited for once, not once a host.
    """
    budget = MOST_BYTES
    for host_id, ids in of_host.items():
        if budget <= 0:
            return
        wanted = np.array(ids, "<i8")
        for packed in stream.read_back(host_id, since_ms=since_ms, limit=MOST_ENTRIES):
            budget -= len(packed)
            # Of another version, while programs are replaced.
            with suppress(EncodingError):
                _add(unpack(packed), wanted, seen)
            if budget <= 0 or all(
                life in seen and len(seen[life].points) >= _POINTS_A_RATE for life in ids
            ):
                break


def _add(batch: Batch, wanted: npt.NDArray[np.int64], seen: dict[int, _Seen]) -> None:
    samples = batch.samples[np.isin(batch.samples["life"], wanted)]
    interfaces: defaultdict[tuple[int, int], dict[int, tuple[int, int]]] = defaultdict(dict)
    for row in batch.interfaces[np.isin(batch.interfaces["life"], wanted)]:
        counters = int(row["rx_bytes"]), int(row["tx_bytes"])
        interfaces[int(row["life"]), int(row["read_ms"])][int(row["interface"])] = counters
    for row in samples:
        life, read_ms = int(row["life"]), int(row["read_ms"])
        one = seen.setdefault(life, _Seen())
        if read_ms > one.state_ms:
            one.state, one.state_ms = int(row["state"]), read_ms
        figures = {
            name: int(row[name]) for name, known in _FIGURES.items() if int(row["known"]) & known
        }
        # A change of state or of limits comes without what is in use.
        if figures.keys() - {"cpu_limit_micro", "memory_limit_bytes"}:
            one.points[read_ms] = _Point(read_ms, figures, interfaces.get((life, read_ms), {}))


def _folded_before(lives: Sequence[Life], seen: Mapping[int, _Seen]) -> dict[int, _Point]:
    """Return the last folded reading of each life of which the stream has one reading only."""
    points: dict[int, _Point] = {}
    for life in lives:
        folded: LifeReading | None = getattr(life, "reading", None)
        if folded and life.pk in seen and len(seen[life.pk].points) == 1 and folded.sample_count:
            known = {
                name: int(getattr(folded, name))
                for name, bit in _COUNTERS.items()
                if folded.known & bit
            }
            points[life.pk] = _Point(folded.read_ms, known)
    for row in InterfaceReading.objects.filter(life__in=points) if points else ():
        if row.read_ms == points[row.life_id].read_ms:
            points[row.life_id].interfaces[row.interface] = row.rx_bytes, row.tx_bytes
    return points


def _reading(life: Life, seen: _Seen | None, before: _Point | None, now: datetime) -> LiveReading:
    folded: LifeReading | None = getattr(life, "reading", None)
    if seen is None or not seen.points:
        return _last_known(life, folded)
    newest, *earlier = seen.newest_first()
    previous = earlier[0] if earlier else before
    state = _STATES.get(seen.state, UNKNOWN)
    at = from_ms(newest.read_ms)
    reading = LiveReading(
        at=at,
        is_live=state != _STATES[State.STOPPED] and at >= now - LIVE_WITHIN,
        state=state,
        memory_bytes=newest.figures.get("memory_bytes"),
        memory_limit_bytes=_allocated("memory_limit_bytes", newest, folded),
        cpu_limit_micro=_allocated("cpu_limit_micro", newest, folded),
    )
    if previous is None or previous.read_ms >= newest.read_ms:
        return reading
    span_ms = newest.read_ms - previous.read_ms
    rates = {
        name: _grown(newest.figures.get(name), previous.figures.get(name), span_ms)
        for name in _COUNTERS
    }
    cpu_rate = rates["cpu_ns"]
    received, sent = _network(newest, previous, span_ms)
    return replace(
        reading,
        span_ms=span_ms,
        cpu_percent=None if cpu_rate is None else cpu_rate * 100 / SECOND_NS,
        network_rx_rate=received,
        network_tx_rate=sent,
        disk_read_rate=rates["disk_read_bytes"],
        disk_write_rate=rates["disk_write_bytes"],
    )


def _last_known(life: Life, folded: LifeReading | None) -> LiveReading:
    """Return the last folded reading, of which no rate is known."""
    if folded is None or not folded.sample_count or folded.read_ms < 0:
        return NEVER_READ
    ended = life.ended_at is not None
    return LiveReading(
        at=from_ms(folded.read_ms),
        is_live=False,
        state=_STATES[State.STOPPED] if ended else _STATES.get(folded.state, UNKNOWN),
        memory_bytes=folded.memory_bytes,
        memory_limit_bytes=folded.memory_limit_bytes or None,
        cpu_limit_micro=folded.cpu_limit_micro or None,
    )


def _allocated(name: str, newest: _Point, folded: LifeReading | None) -> int | None:
    """Return a limit as the newest reading says it, or as it was; where it is not known, None."""
    limit = newest.figures.get(name) or getattr(folded, name, None)
    return limit or None


def _network(newest: _Point, previous: _Point, span_ms: int) -> tuple[Fraction | None, ...]:
    """Return what all interfaces of both readings received and sent a second."""
    both = newest.interfaces.keys() & previous.interfaces.keys()
    return tuple(
        _sum(
            _grown(newest.interfaces[one][way], previous.interfaces[one][way], span_ms)
            for one in both
        )
        for way in (0, 1)
    )


def _grown(value: int | None, before: int | None, span_ms: int) -> Fraction | None:
    """Return by how much a counter grew a second; None where it is not known, or it began anew."""
    if value is None or before is None or value < before:
        return None
    return Fraction((value - before) * 1000, span_ms)


def _sum(values: Iterable[N | None]) -> N | None:
    """Return the sum of what is known, None where nothing is."""
    known = [value for value in values if value is not None]
    return sum(known[1:], start=known[0]) if known else None


def _sum_of_all(values: Sequence[int | None]) -> int | None:
    return None if None in values else _sum(values)
