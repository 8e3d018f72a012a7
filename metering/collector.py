"""One pass over a host: which sandboxes run there, what they have used, one batch of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import F

from metering import stream
from metering.models import Host, Life, Refusal
from metering.period import MILLISECOND, from_ms, to_ms
from metering.roster import RosterLife, Settled, gone_marks, load_roster, settle, write_ends
from metering.samples import Batch, Event, Missed, State
from metering.sampling import (
    Sampled,
    interface_samples,
    life_samples,
    storage_samples,
)
from metering.services import PUSHED
from metering.source import Action, ContainerEvent, Listed, Reading, Source, SourceError
from metering.sources import open_source

# Events are read again from a little before: the engine's clock and ours differ.
EVENT_OVERLAP = timedelta(seconds=5)
# A refused container is looked at again after so long: its account may exist by then.
REFUSED_AGAIN_AFTER = timedelta(minutes=1)
# Readings of a clock that is further off than this are left out; counters lose nothing by it.
SKEW_LIMIT = timedelta(seconds=5)
# After so many intervals without a pass a gap is the collector's.
DOWN_AFTER_INTERVALS = 5
# What a host offers hardly changes; it is asked again after so many passes.
OFFER_EVERY_PASSES = 1000

_BEGINS_OR_ENDS = (Action.START, Action.DIE)
_LOOK_AT = (Action.START, Action.DIE, Action.DESTROY, Action.UPDATE)


@dataclass(frozen=True, slots=True)
class Collected:
    """What one pass found: lives begun and ended, samples written."""

    begun: int
    ended: int
    samples: int
    newest_reading_at: datetime | None


@dataclass(frozen=True, slots=True)
class _Readings:
    """What a source gave of the lives that were due, and how far its clock is ahead of ours."""

    believed: list[Reading]
    offset_ms: int | None
    skewed_count: int


def collect_host(
    host_id: UUID,
    *,
    now: datetime,
    source: Source | None = None,
    interval: timedelta | None = None,
) -> Collected:
    """Read every sandbox of a host that is due and append its batch to the stream.

    `source` and `interval`, the time to the next pass, are those of the host and of the
    settings unless given.
    Safe to repeat, and to run twice at once: readings are running totals. A failed pass leaves
    its reason on the host. Raises Host.DoesNotExist, SourceError, StreamUnavailableError.
    """
    host = Host.objects.get(pk=host_id)
    try:
        source = source or open_source(host)
        _claim_engine(host, source)
        _ask_offer(host, source)
        planned = interval or timedelta(seconds=settings.METERING_INTERVAL_S)
        collected, readings = _collect(host, source, now, planned)
    except (SourceError, stream.StreamUnavailableError) as error:
        _record_problem(host, str(error), now)
        raise
    problem = _skew_problem(readings)
    Host.objects.filter(pk=host_id).update(
        last_seen_at=max(now, collected.newest_reading_at or now),
        events_read_until=now,
        pass_count=F("pass_count") + 1,
        source=source.name,
        clock_offset_ms=readings.offset_ms,
        problem=problem,
        problem_since=(host.problem_since or now) if problem else None,
    )
    return collected


def collect_storage(host_id: UUID, *, now: datetime, source: Source | None = None) -> int:
    """Read what every sandbox of a host takes up; return how many were read.

    Apart from the passes, since an engine takes long over it. Safe to repeat.
    Raises Host.DoesNotExist, SourceError, StreamUnavailableError.
    """
    host = Host.objects.get(pk=host_id)
    source = source or open_source(host)
    readings = source.read_storage()
    offset_ms = host.clock_offset_ms or 0
    if abs(offset_ms) > SKEW_LIMIT // MILLISECOND:
        return 0
    lives = {container_id: life.life for container_id, life in load_roster(host).items()}
    samples = storage_samples(readings, lives, gone=())
    interval_ms = settings.METERING_STORAGE_INTERVAL_S * 1000
    stream.append(
        host_id,
        Batch(collected_ms=0, interval_ms=0, storage=samples, storage_interval_ms=interval_ms),
    )
    Host.objects.filter(pk=host_id).update(storage_read_at=now)
    return len(samples)


def collect_sandbox(account_id: UUID, sandbox_id: str, *, now: datetime) -> int:
    """Read a sandbox once more, as before a stop; return how many lives of it were read.

    Safe to repeat. Raises SourceError, StreamUnavailableError.
    """
    running = Life.objects.filter(
        sandbox__account_id=account_id,
        sandbox__sandbox_id=sandbox_id,
        ended_at__isnull=True,
        host__is_active=True,
    ).exclude(host__endpoint__startswith=PUSHED)
    containers: dict[UUID, set[str]] = defaultdict(set)
    for host_id, container_id in running.values_list("host_id", "container_id"):
        containers[host_id].add(container_id)
    return sum(collect_containers(host_id, found, now=now) for host_id, found in containers.items())


def collect_containers(
    host_id: UUID, container_ids: AbstractSet[str], *, now: datetime, source: Source | None = None
) -> int:
    """Read some containers of a host between two passes; return how many were read.

    Safe to repeat. A failure leaves its reason on the host.
    Raises Host.DoesNotExist, SourceError, StreamUnavailableError.
    """
    host = Host.objects.get(pk=host_id)
    try:
        return _collect_apart(host, source or open_source(host), container_ids)
    except (SourceError, stream.StreamUnavailableError) as error:
        _record_problem(host, str(error), now)
        raise


def _collect_apart(host: Host, source: Source, container_ids: AbstractSet[str]) -> int:
    open_lives = {
        key: life
        for key, life in load_roster(host).items()
        if key in container_ids and life.is_open
    }
    readings = _read(host, source, sorted(open_lives)).believed
    # One that began another life meanwhile may have given that one's counters.
    states = {
        container.container_id: container.state
        for container in source.inspect([reading.container_id for reading in readings])
        if container.started_ns == open_lives[container.container_id].started_ns
    }
    readings = [reading for reading in readings if reading.container_id in states]
    if not readings:
        return 0
    sampled = {
        key: _sampled(open_lives[key], state, Event.PERIODIC) for key, state in states.items()
    }
    batch = Batch(
        collected_ms=0,
        interval_ms=settings.METERING_INTERVAL_S * 1000,
        samples=life_samples(readings, sampled, ()),
        interfaces=interface_samples(readings, sampled),
    )
    stream.append(host.pk, batch)
    return len(readings)


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


def _ask_offer(host: Host, source: Source) -> None:
    """Have the host's row say what a sandbox without limits may take of it."""
    if host.cpu_micro is not None and host.pass_count % OFFER_EVERY_PASSES:
        return
    offer = source.offer()
    host.cpu_micro, host.memory_bytes = offer.cpu_micro, offer.memory_bytes
    if offer.gpu_count is not None:
        host.gpu_count = offer.gpu_count
    host.save(update_fields=["cpu_micro", "memory_bytes", "gpu_count"])


def _collect(
    host: Host, source: Source, now: datetime, interval: timedelta
) -> tuple[Collected, _Readings]:
    roster = load_roster(host)
    # Where the host's clock is off, so are the times of its events.
    offset = timedelta(milliseconds=host.clock_offset_ms or 0)
    since = (host.events_read_until or host.registered_at) - EVENT_OVERLAP
    events = source.events_between(since + offset, now + offset)
    listed = {container.container_id: container for container in source.list_containers()}
    look_at = _to_look_at(host, listed, roster, events.seen, now)
    if not events.is_complete:
        # More happened than the engine remembers; only inspections tell who is who.
        look_at |= {key for key, life in roster.items() if life.is_open}
    containers = {found.container_id: found for found in source.inspect(sorted(look_at))}
    settled = settle(host, roster, look_at, containers, events.seen, now=now)
    _note_out_of_memory(host, events.seen)

    due = _due(host, settled, interval)
    readings = _read(host, source, sorted(settled.open.keys() & due.keys()))
    believed = _of_the_same_life(source, now + offset, offset, events.seen, readings, settled)
    states = {key: found.state for key, found in containers.items()}
    states |= {key: found.state for key, found in listed.items() if key not in states}
    sampled = {
        reading.container_id: _sampled(
            life := settled.open[reading.container_id],
            states.get(reading.container_id, State.RUNNING),
            Event.STARTED if life.is_new else Event.PERIODIC,
        )
        for reading in believed
    }
    samples = _append(host, settled, believed, sampled, due, now, interval)
    # After the stream has them: a crash in between repeats the ends, which changes nothing.
    write_ends(settled)
    newest_ms = max((reading.read_ms for reading in believed), default=None)
    collected = Collected(
        begun=len(settled.begun),
        ended=settled.ended_count,
        samples=samples,
        newest_reading_at=None if newest_ms is None else from_ms(newest_ms),
    )
    return collected, readings


def _to_look_at(
    host: Host,
    listed: Mapping[str, Listed],
    roster: Mapping[str, RosterLife],
    events: Iterable[ContainerEvent],
    now: datetime,
) -> set[str]:
    """Return the containers whose lives may differ from what is recorded."""
    alive = {key for key, found in listed.items() if found.state is not State.STOPPED}
    is_open = {key for key, life in roster.items() if life.is_open}
    changed = {event.container_id for event in events if event.action in _LOOK_AT}
    unknown = (listed.keys() | changed) - roster.keys()
    just_refused = Refusal.objects.filter(host=host, last_at__gt=now - REFUSED_AGAIN_AFTER)
    unknown -= set(just_refused.values_list("subject", flat=True)) if unknown else set()
    begun_again = alive & (roster.keys() - is_open)
    return (
        unknown
        | (is_open - alive)
        | begun_again
        | (roster.keys() - listed.keys())
        | (roster.keys() & changed)
    )


def _note_out_of_memory(host: Host, events: Iterable[ContainerEvent]) -> None:
    for event in events:
        if event.action is Action.OOM:
            at = from_ms(event.at_ns // 10**6)
            Life.objects.filter(
                host=host, container_id=event.container_id, started_at__lte=at
            ).filter(ended_at__isnull=True).update(oom_at=at)


def _due(host: Host, settled: Settled, interval: timedelta) -> dict[str, int]:
    """Return in every how manieth pass each open life is read, for those that are due in this."""
    every = {
        key: max(round(life.interval_s / interval.total_seconds()), 1) if life.interval_s else 1
        for key, life in settled.open.items()
    }
    return {
        key: passes
        for key, passes in every.items()
        if host.pass_count % passes == 0 or settled.open[key].is_new
    }


def _read(host: Host, source: Source, container_ids: Sequence[str]) -> _Readings:
    """Read containers; leave out what a clock that is too far off has put a time to."""
    before_ms = to_ms(source.clock())
    readings = source.read(container_ids)
    after_ms = to_ms(source.clock())
    if not readings:
        return _Readings([], host.clock_offset_ms, 0)
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
    return _Readings(believed, ahead_ms[len(ahead_ms) // 2], len(readings) - len(believed))


def _of_the_same_life(
    source: Source,
    asked: datetime,
    offset: timedelta,
    earlier: Sequence[ContainerEvent],
    readings: _Readings,
    settled: Settled,
) -> list[Reading]:
    """Return the readings of containers that began no other life since they were looked at.

    The others may be that life's counters, and would be billed to both. The next pass knows.
    """
    if not readings.believed:
        return []
    events = source.events_between(asked - timedelta(seconds=1), source.clock() + offset)
    known = {(event.container_id, event.at_ns) for event in earlier}
    changed = {
        event.container_id
        for event in events.seen
        if event.action in _BEGINS_OR_ENDS and (event.container_id, event.at_ns) not in known
    }
    believed = [reading for reading in readings.believed if reading.container_id not in changed]
    if events.is_complete:
        return believed
    started_ns = {
        container.container_id: container.started_ns
        for container in source.inspect([reading.container_id for reading in believed])
    }
    return [
        reading
        for reading in believed
        if started_ns.get(reading.container_id) == settled.open[reading.container_id].started_ns
    ]


def _sampled(life: RosterLife, state: State, event: Event) -> Sampled:
    return Sampled(
        life=life.life,
        # An open life is not stopped, whatever a list of a moment before says.
        state=State.PAUSED if state is State.PAUSED else State.RUNNING,
        event=event,
        allocation=life.allocation,
        has_network=life.has_network,
    )


def _append(
    host: Host,
    settled: Settled,
    readings: Sequence[Reading],
    sampled: Mapping[str, Sampled],
    due: Mapping[str, int],
    now: datetime,
    interval: timedelta,
) -> int:
    """Append a batch for each interval there is, the pass' own last; return the samples sent."""
    by_passes: dict[int, list[Reading]] = defaultdict(list)
    for reading in readings:
        by_passes[due[reading.container_id]].append(reading)
    missed = _why_missed(host, now, interval)
    sent = 0
    for passes in sorted(by_passes.keys() | {1}, reverse=True):
        is_own = passes == 1
        samples = life_samples(by_passes[passes], sampled, settled.turns if is_own else ())
        stream.append(
            host.pk,
            Batch(
                # Only with the last of them has the whole host been looked at.
                collected_ms=to_ms(now) if is_own else 0,
                interval_ms=interval // MILLISECOND * passes,
                samples=samples,
                interfaces=interface_samples(by_passes[passes], sampled),
                storage=storage_samples((), {}, gone_marks(settled) if is_own else ()),
                missed=missed,
            ),
        )
        sent += len(samples)
    return sent


def _why_missed(host: Host, now: datetime, interval: timedelta) -> Missed:
    """Return why nothing was measured before this pass, if nothing was."""
    if abs(host.clock_offset_ms or 0) > SKEW_LIMIT // MILLISECOND:
        return Missed.CLOCK_SKEW
    last = host.last_seen_at
    if last is not None and now - last > interval * DOWN_AFTER_INTERVALS:
        return Missed.COLLECTOR_DOWN
    return Missed.UNEXPLAINED


def _skew_problem(readings: _Readings) -> str:
    if not readings.skewed_count or readings.offset_ms is None:
        return ""
    direction = "ahead of" if readings.offset_ms > 0 else "behind"
    return (
        f"The host's clock is {abs(readings.offset_ms) / 1000:.1f} s {direction} ours: "
        f"{readings.skewed_count} readings are left out. Set it right (NTP)."
    )


def _record_problem(host: Host, problem: str, now: datetime) -> None:
    Host.objects.filter(pk=host.pk).update(
        problem=problem[:500], problem_since=host.problem_since or now
    )
