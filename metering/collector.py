"""One pass over a host: which sandboxes run there, what they have used, one batch of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from uuid import UUID

import numpy as np
from django.conf import settings
from django.db import IntegrityError, transaction

from metering import lives, stream
from metering.docker import docker_engine
from metering.lives import Ending
from metering.models import Host, Life, Refusal
from metering.period import MILLISECOND, from_ms, to_ms
from metering.samples import (
    INTERFACE_SAMPLE,
    SAMPLE,
    Batch,
    Event,
    Known,
    Records,
    State,
    interface_id,
)
from metering.simulator import SCHEME, Simulator, fleet_of
from metering.source import Change, Listed, Reading, Source, SourceError

# Events are read again from a little before: the engine's clock and ours differ.
EVENT_OVERLAP = timedelta(seconds=5)
# A refused container is looked at again after so long: its account may exist by then.
REFUSED_AGAIN_AFTER = timedelta(minutes=1)

_MS_NS = 10**6
_FIGURES = {
    "cpu_ns": Known.CPU,
    "memory_bytes": Known.MEMORY,
    "disk_read_bytes": Known.DISK_READ,
    "disk_write_bytes": Known.DISK_WRITE,
}


@dataclass(frozen=True, slots=True)
class Collected:
    """What one pass found: lives begun and ended, samples written."""

    begun: int
    ended: int
    samples: int
    newest_reading_at: datetime | None


def collect_host(
    host_id: UUID,
    *,
    now: datetime,
    source: Source | None = None,
    interval: timedelta | None = None,
) -> Collected:
    """Read every sandbox of a host once and append one batch to its stream.

    `source` and `interval`, the time to the next pass, are those of the host and of the
    settings unless given.
    Safe to repeat, and to run twice at once: readings are running totals. A failed pass leaves
    its reason on the host. Raises Host.DoesNotExist, SourceError, StreamUnavailableError.
    """
    host = Host.objects.get(pk=host_id)
    try:
        source = source or open_source(host)
        _claim_engine(host, source)
        planned = interval or timedelta(seconds=settings.METERING_INTERVAL_S)
        collected = _collect(host, source, now, planned)
    except (SourceError, stream.StreamUnavailableError) as error:
        _record_problem(host, str(error), now)
        raise
    Host.objects.filter(pk=host_id).update(
        last_seen_at=max(now, collected.newest_reading_at or now),
        events_read_until=now,
        problem="",
        problem_since=None,
    )
    return collected


def open_source(host: Host) -> Source:
    """Return the source that a host's endpoint names. Raises SourceError."""
    if host.endpoint.startswith(SCHEME):
        return _simulated_fleet(host.endpoint, host.registered_at)
    return docker_engine(
        host.endpoint, settings.METERING_CONCURRENCY, settings.METERING_CALL_TIMEOUT_S
    )


def _claim_engine(host: Host, source: Source) -> None:
    """Make the engine this host's own. Metered as two hosts, each container would bill twice.

    Raises SourceError when another active host has it.
    """
    if host.engine_id or not (engine_id := source.engine_id()):
        return
    try:
        with transaction.atomic():
            Host.objects.filter(pk=host.pk).update(engine_id=engine_id)
    except IntegrityError:
        other = Host.objects.filter(engine_id=engine_id, is_active=True).first()
        raise SourceError(
            f"The engine at {host.endpoint} is metered as host {other} already. Set one of the "
            "two not active."
        ) from None


@lru_cache(maxsize=8)
def _simulated_fleet(endpoint: str, started_at: datetime) -> Simulator:
    return fleet_of(endpoint, started_at=started_at)


def _collect(host: Host, source: Source, now: datetime, interval: timedelta) -> Collected:
    open_lives = {
        life.container_id: life for life in Life.objects.filter(host=host, ended_at__isnull=True)
    }
    since = (host.events_read_until or host.registered_at) - EVENT_OVERLAP
    changes = source.changes_between(since, now)
    listed = source.list_containers()
    to_inspect = _to_inspect(host, listed, open_lives, changes.keys(), now)
    containers = source.inspect(sorted(to_inspect))

    found = {container.container_id for container in containers}
    gone = [life for key, life in open_lives.items() if key in to_inspect and key not in found]
    endings = lives.find_endings(open_lives, containers)
    endings += [_removal(life, changes.get(life.container_id), host) for life in gone]
    begun = {life.container_id: life for life in lives.record_lives(host, containers, now=now)}
    endings += lives.find_endings(begun, containers)

    ended = {ending.life.pk for ending in endings}
    running = {
        life.container_id: life
        for life in (*open_lives.values(), *begun.values())
        if life.pk not in ended
    }
    readings = source.read(sorted(running))
    # A container that began another life since it was looked at may have given that one's
    # counters; they would be billed to both. The next pass knows better.
    changes_by_now = source.changes_between(since, source.clock())
    readings = [
        reading
        for reading in readings
        if changes_by_now.get(reading.container_id) == changes.get(reading.container_id)
    ]
    # A life that was over before anybody knew of it has nothing to bill.
    billable = [e for e in endings if e.life.counts_from_zero or e.life.container_id in open_lives]
    samples = _samples(running, readings, begun, billable)
    batch = Batch(
        collected_ms=to_ms(now),
        interval_ms=interval // MILLISECOND,
        samples=samples,
        interfaces=_interface_samples(running, readings),
    )
    stream.append(host.pk, batch)
    # After the stream has them: a crash in between repeats the ends, which changes nothing.
    for ending in endings:
        Life.objects.filter(pk=ending.life.pk, ended_at__isnull=True).update(
            ended_at=from_ms(ending.ended_ns // _MS_NS)
        )
    newest_ms = max((reading.read_ms for reading in readings), default=None)
    return Collected(
        begun=len(begun),
        ended=len(endings),
        samples=len(samples),
        newest_reading_at=None if newest_ms is None else from_ms(newest_ms),
    )


def _to_inspect(
    host: Host,
    listed: Sequence[Listed],
    open_lives: Mapping[str, Life],
    changed: AbstractSet[str],
    now: datetime,
) -> set[str]:
    """Return the containers whose lives may differ from what is recorded."""
    states = {container.container_id: container.state for container in listed}
    alive = {key for key, state in states.items() if state is not State.STOPPED}
    stopped = states.keys() - alive
    recorded = Life.objects.filter(host=host, container_id__in=stopped - open_lives.keys())
    born_and_dead = (
        stopped - open_lives.keys() - set(recorded.values_list("container_id", flat=True))
    )
    just_refused = Refusal.objects.filter(host=host, last_at__gt=now - REFUSED_AGAIN_AFTER)
    unknown = (alive - open_lives.keys()) | born_and_dead
    unknown -= set(just_refused.values_list("subject", flat=True))
    known = open_lives.keys() | states.keys()
    return unknown | (open_lives.keys() - alive) | (known & changed)


def _removal(life: Life, change: Change | None, host: Host) -> Ending:
    """Return the end of a life whose container is gone, and nobody can be asked about.

    Without an event that says when it died it ends when it was last known to live.
    """
    died_ns = change.died_ns if change else None
    known_ns = to_ms(host.last_seen_at or life.started_at) * _MS_NS
    return Ending(life, max(died_ns if died_ns is not None else known_ns, life.started_ns))


def _samples(
    running: Mapping[str, Life],
    readings: Sequence[Reading],
    begun: Mapping[str, Life],
    endings: Sequence[Ending],
) -> Records:
    samples = np.zeros(len(readings) + len(endings), SAMPLE)
    for row, reading in zip(samples, readings, strict=False):
        event = Event.STARTED if reading.container_id in begun else Event.PERIODIC
        row["life"] = running[reading.container_id].pk
        row["read_ms"] = reading.read_ms
        row["state"] = State.RUNNING
        row["event"] = event
        row["memory_limit_bytes"] = reading.memory_limit_bytes
        known = Known(0)
        for name, bit in _FIGURES.items():
            value = getattr(reading, name)
            if value is not None:
                row[name] = value
                known |= bit
        row["known"] = known
    for row, ending in zip(samples[len(readings) :], endings, strict=True):
        row["life"] = ending.life.pk
        row["read_ms"] = ending.ended_ns // _MS_NS
        row["state"] = State.STOPPED
        row["event"] = Event.STOPPED
    return samples


def _interface_samples(running: Mapping[str, Life], readings: Sequence[Reading]) -> Records:
    rows = [
        (
            interface_id(life.pk, name),
            life.pk,
            reading.read_ms,
            rx_bytes,
            tx_bytes,
            name.encode(),
        )
        for reading in readings
        if not (life := running[reading.container_id]).network_unmetered
        for name, (rx_bytes, tx_bytes) in reading.interfaces.items()
    ]
    return np.array(rows, INTERFACE_SAMPLE)


def _record_problem(host: Host, problem: str, now: datetime) -> None:
    Host.objects.filter(pk=host.pk).update(
        problem=problem[:500], problem_since=host.problem_since or now
    )
