"""One pass over a host: which sandboxes run there, what they have used, one batch of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q

from metering import clocks, endings, engines, numbering, stream
from metering.clocks import Readings
from metering.models import Host, Life, Refusal
from metering.pace import interval_of
from metering.period import MILLISECOND, from_ms, to_ms
from metering.roster import RosterLife, Settled, gone_marks, load_roster, settle, write_ends
from metering.samples import Batch, Event, Missed, State
from metering.sampling import Sampled, interface_samples, life_samples, storage_samples
from metering.services import PUSHED
from metering.silence import SILENT_AFTER
from metering.source import Action, Container, ContainerEvent, Listed, Reading, Source, SourceError
from metering.sources import apart, open_source

# Events are read again from a little before: the engine's clock and ours differ.
EVENT_OVERLAP = timedelta(seconds=5)
# A refused container is looked at again after so long: its account may exist by then.
REFUSED_AGAIN_AFTER = timedelta(minutes=1)
# After so many intervals without a pass a gap is the collector's.
DOWN_AFTER_INTERVALS = 5

# After one of these a reading is of another life, or of another state, than it was listed with.
_MAKES_ANOTHER = (Action.START, Action.DIE, Action.PAUSE, Action.UNPAUSE)
_LOOK_AT = (Action.START, Action.DIE, Action.DESTROY, Action.UPDATE)


@dataclass(frozen=True, slots=True)
class Collected:
    """What one pass found: lives begun and ended, samples written."""

    begun: int
    ended: int
    samples: int
    newest_reading_at: datetime | None


@dataclass(frozen=True, slots=True)
class _Pass:
    """When a pass is made, how long until the next one, and why none was before it."""

    now: datetime
    interval: timedelta
    missed: Missed
    # The engine may have forgotten what happened since the last one.
    follows_outage: bool
    # Nobody heard of the host for so long that another may close its lives while this goes on.
    may_be_thought_silent: bool
    # How far the host's clock is ahead, and with it the times of its events.
    ahead: timedelta


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
        engines.claim_engine(host, source)
        engines.ask_offer(host, source)
        planned = interval or timedelta(seconds=settings.METERING_INTERVAL_S)
        this = _plan(host, source, now, planned)
        collected, readings, seen_alive = _collect(host, source, this)
    except (SourceError, stream.StreamUnavailableError) as error:
        _record_problem(host, str(error), now)
        raise
    clocks.note_skewed(host, readings, now)
    problem = readings.problem
    with transaction.atomic():
        Host.objects.filter(pk=host_id).update(
            last_seen_at=max(now, collected.newest_reading_at or now),
            events_read_until=now,
            pass_count=F("pass_count") + 1,
            source=source.name,
            clock_offset_ms=(
                host.clock_offset_ms if readings.offset_ms is None else readings.offset_ms
            ),
            problem=problem,
            problem_since=(host.problem_since or now) if problem else None,
            **numbering.appended(host),
        )
        if this.may_be_thought_silent:
            closed = Life.objects.filter(endings.was_closed_in_silence(), pk__in=seen_alive)
            endings.reopen(closed)
    return collected


def collect_storage(host_id: UUID, *, now: datetime, source: Source | None = None) -> int:
    """Read what every sandbox of a host takes up; return how many were read.

    Apart from the passes, since an engine takes long over it. Safe to repeat.
    Raises Host.DoesNotExist, SourceError, StreamUnavailableError.
    """
    host = Host.objects.get(pk=host_id)
    source = source or open_source(host)
    if clocks.is_skewed(host):
        return 0
    readings = source.read_storage()
    lives = {container_id: life.life for container_id, life in load_roster(host).items()}
    samples = storage_samples(readings, lives, gone=())
    interval_ms = settings.METERING_STORAGE_INTERVAL_S * 1000
    numbering.append(
        host,
        Batch(collected_ms=0, interval_ms=0, storage=samples, storage_interval_ms=interval_ms),
    )
    Host.objects.filter(pk=host_id).update(storage_read_at=now, **numbering.appended(host))
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
        with apart(host, source or open_source(host)) as own:
            return _collect_apart(host, own, container_ids, now)
    except (SourceError, stream.StreamUnavailableError) as error:
        _record_problem(host, str(error), now)
        raise


def _collect_apart(
    host: Host, source: Source, container_ids: AbstractSet[str], now: datetime
) -> int:
    open_lives = {
        key: life
        for key, life in load_roster(host).items()
        if key in container_ids and life.is_open
    }
    read = clocks.read(source, sorted(open_lives))
    clocks.note_skewed(host, read, now)
    # One that began another life meanwhile may have given that one's counters.
    found = {
        container.container_id: container
        for container in source.inspect([reading.container_id for reading in read.believed])
        if container.started_ns == open_lives[container.container_id].started_ns
    }
    interval = interval_of(host.cursor, now=now)
    by_passes: dict[int, list[Reading]] = defaultdict(list)
    every = _passes_between(open_lives, interval)
    for reading in read.believed:
        if container := found.get(reading.container_id):
            by_passes[every[reading.container_id]].append(_not_after_its_end(reading, container))
    sampled = {
        key: _sampled(open_lives[key], container.state, Event.PERIODIC)
        for key, container in found.items()
    }
    for passes, readings in by_passes.items():
        batch = Batch(
            collected_ms=0,
            interval_ms=interval // MILLISECOND * passes,
            samples=life_samples(readings, sampled, ()),
            interfaces=interface_samples(readings, sampled),
        )
        numbering.append(host, batch)
    Host.objects.filter(pk=host.pk).update(**numbering.appended(host))
    return sum(map(len, by_passes.values()))


def _not_after_its_end(reading: Reading, container: Container) -> Reading:
    """Return the reading of a container that may have stopped, and counted no more, before it."""
    if container.state is not State.STOPPED or container.finished_ns is None:
        return reading
    return replace(reading, read_ms=min(reading.read_ms, container.finished_ns // 10**6))


def _plan(host: Host, source: Source, now: datetime, interval: timedelta) -> _Pass:
    last = host.last_seen_at
    was_down = last is not None and now - last > interval * DOWN_AFTER_INTERVALS
    missed = Missed.COLLECTOR_DOWN if was_down else Missed.UNEXPLAINED
    if clocks.is_skewed(host):
        missed = Missed.CLOCK_SKEW
    has_failed = bool(host.problem) and not clocks.is_skewed(host)
    ahead = timedelta(milliseconds=clocks.ask_offset(host, source))
    return _Pass(
        now,
        interval,
        missed,
        follows_outage=was_down or has_failed,
        may_be_thought_silent=last is not None and now - last > SILENT_AFTER / 2,
        ahead=ahead,
    )


def _collect(host: Host, source: Source, this: _Pass) -> tuple[Collected, Readings, set[int]]:
    """Make the pass but for the host's row; return what it found, and the lives seen alive."""
    now = this.now
    roster = load_roster(host)
    since = (host.events_read_until or host.registered_at) - EVENT_OVERLAP
    events = source.events_between(since + this.ahead, now + this.ahead)
    listed = {container.container_id: container for container in source.list_containers()}
    look_at = _to_look_at(host, listed, roster, events.seen, now)
    if this.follows_outage or not events.is_complete:
        # More happened than the engine remembers; only inspections tell who is who.
        look_at |= roster.keys()
    containers = {found.container_id: found for found in source.inspect(sorted(look_at))}
    lost = look_at - containers.keys() - _removed(events.seen)
    seen = [*events.seen, *_last_events(source, lost, this)]
    # One that is listed and that nobody removed is not gone: its answer cannot be read.
    look_at -= listed.keys() - containers.keys() - _removed(seen)
    settled = settle(host, roster, look_at, containers, seen, now=now)
    _note_out_of_memory(host, events.seen)

    due = _due(host, settled, this.interval)
    readings = clocks.read(source, sorted(settled.open.keys() & due.keys()))
    believed = _of_the_same_life(source, this, events.seen, readings, settled)
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
    samples = _append(host, settled, believed, sampled, due, this)
    # After the stream has them: a crash in between repeats the ends, which changes nothing.
    write_ends(settled)
    newest_ms = max((reading.read_ms for reading in believed), default=None)
    collected = Collected(
        begun=len(settled.begun),
        ended=len(settled.ended),
        samples=samples,
        newest_reading_at=None if newest_ms is None else from_ms(newest_ms),
    )
    return collected, readings, {life.life for life in settled.open.values()}


def _removed(events: Iterable[ContainerEvent]) -> set[str]:
    return {event.container_id for event in events if event.action is Action.DESTROY}


def _last_events(source: Source, lost: AbstractSet[str], this: _Pass) -> list[ContainerEvent]:
    """Return what happened since the pass began to containers that went since."""
    if not lost:
        return []
    until = source.clock() + this.ahead + MILLISECOND
    events = source.events_between(this.now + this.ahead, until)
    return [event for event in events.seen if event.container_id in lost]


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
    # Unknown, or begun again.
    new = (listed.keys() | changed) - roster.keys() | alive & (roster.keys() - is_open)
    just_refused = Refusal.objects.filter(host=host, last_at__gt=now - REFUSED_AGAIN_AFTER)
    new -= set(just_refused.values_list("subject", flat=True)) if new else set()
    return new | (is_open - alive) | (roster.keys() - listed.keys()) | (roster.keys() & changed)


def _note_out_of_memory(host: Host, events: Iterable[ContainerEvent]) -> None:
    for event in events:
        if event.action is Action.OOM:
            at = from_ms(event.at_ns // 10**6)
            lives = Life.objects.filter(host=host, container_id=event.container_id)
            still_ran = Q(ended_at__isnull=True) | Q(ended_at__gte=at)
            lives.filter(still_ran, started_at__lte=at).update(oom_at=at)


def _passes_between(lives: Mapping[str, RosterLife], interval: timedelta) -> dict[str, int]:
    """Return in every how manieth pass each life is read."""
    return {
        key: max(round(life.interval_s / interval.total_seconds()), 1) if life.interval_s else 1
        for key, life in lives.items()
    }


def _due(host: Host, settled: Settled, interval: timedelta) -> dict[str, int]:
    """Return in every how manieth pass each open life is read, for those that are due in this."""
    every = _passes_between(settled.open, interval)
    return {
        key: passes
        for key, passes in every.items()
        if host.pass_count % passes == 0 or settled.open[key].is_new
    }


def _of_the_same_life(
    source: Source,
    this: _Pass,
    earlier: Sequence[ContainerEvent],
    readings: Readings,
    settled: Settled,
) -> list[Reading]:
    """Return the readings of containers that began no other life since they were looked at.

    The others may be that life's counters, and would be billed to both. The next pass knows.
    """
    if not readings.believed:
        return []
    asked, until = this.now + this.ahead, source.clock() + this.ahead
    newest_ms = max(reading.read_ms for reading in readings.believed)
    # Of as late as the newest reading, also where the clock is further ahead than was known.
    until = max(until, from_ms(newest_ms + 1))
    events = source.events_between(asked - timedelta(seconds=1), until)
    known = {(event.container_id, event.at_ns) for event in earlier}
    changed = {
        event.container_id
        for event in events.seen
        if event.action in _MAKES_ANOTHER and (event.container_id, event.at_ns) not in known
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
    this: _Pass,
) -> int:
    """Append a batch for each interval there is, the pass' own last; return the samples sent."""
    by_passes: dict[int, list[Reading]] = defaultdict(list)
    for reading in readings:
        by_passes[due[reading.container_id]].append(reading)
    sent = 0
    for passes in sorted(by_passes.keys() | {1}, reverse=True):
        is_own = passes == 1
        samples = life_samples(by_passes[passes], sampled, settled.turns if is_own else ())
        numbering.append(
            host,
            Batch(
                # Only with the last of them has the whole host been looked at.
                collected_ms=to_ms(this.now) if is_own else 0,
                interval_ms=this.interval // MILLISECOND * passes,
                samples=samples,
                interfaces=interface_samples(by_passes[passes], sampled),
                storage=storage_samples((), {}, gone_marks(settled) if is_own else ()),
                missed=this.missed,
            ),
        )
        sent += len(samples)
    return sent


def _record_problem(host: Host, problem: str, now: datetime) -> None:
    Host.objects.filter(pk=host.pk).update(
        problem=problem[:500], problem_since=host.problem_since or now
    )
