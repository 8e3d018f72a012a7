"""The lives of one host that are not gone, and how they change between two passes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from django.db import connection

from metering import endings, lives
from metering.lives import allocation_of, limits_of
from metering.models import Gap, Host, Life
from metering.period import from_ms, to_ms
from metering.readings import Allocation
from metering.samples import Event, State
from metering.sampling import Gone, Turn
from metering.source import Action, Container, ContainerEvent
from metering.timeline import Span, find_spans

_MS_NS = 10**6
_CHANGES_STATE = {Action.PAUSE: State.PAUSED, Action.UNPAUSE: State.RUNNING}


@dataclass(frozen=True, slots=True)
class RosterLife:
    """What a pass has to know of a life. `interval_s` of None is the installation's own."""

    life: int
    container_id: str
    started_ns: int
    is_open: bool
    counts_from_zero: bool
    has_network: bool
    allocation: Allocation
    interval_s: int | None
    # Recorded since the last pass: its first reading is to come.
    is_new: bool = False


@dataclass(slots=True)
class Settled:
    """What changed since the last pass: what is to be sampled, and what is to be written then.

    `ended` and `gone` are in ns since 1970, by life.
    """

    open: dict[str, RosterLife]
    begun: set[int] = field(default_factory=set)
    # Closed while their host was silent, or thought gone; they run.
    going_on: list[int] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    ended: dict[int, int] = field(default_factory=dict)
    gone: dict[int, int] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)


def load_roster(host: Host) -> dict[str, RosterLife]:
    """Return the latest life of each container of the host that still exists, by container."""
    rows = Life.objects.filter(host=host, gone_at__isnull=True).order_by("started_ns")
    return {
        container_id: RosterLife(
            life=life,
            container_id=container_id,
            started_ns=started_ns,
            is_open=ended_at is None,
            counts_from_zero=counts_from_zero,
            has_network=not network_unmetered,
            allocation=Allocation(
                host.cpu_micro or 0 if cpu_limit is None else cpu_limit,
                host.memory_bytes or 0 if memory_limit is None else memory_limit,
                gpu_count or 0,
            ),
            interval_s=interval_s,
            is_new=host.events_read_until is None or recorded_at > host.events_read_until,
        )
        for (
            life,
            container_id,
            started_ns,
            ended_at,
            counts_from_zero,
            network_unmetered,
            cpu_limit,
            memory_limit,
            gpu_count,
            interval_s,
            recorded_at,
        ) in rows.values_list(
            "pk",
            "container_id",
            "started_ns",
            "ended_at",
            "counts_from_zero",
            "network_unmetered",
            "cpu_limit_micro",
            "memory_limit_bytes",
            "gpu_count",
            "sandbox__interval_s",
            "recorded_at",
        )
    }


def settle(
    host: Host,
    roster: Mapping[str, RosterLife],
    looked_at: Iterable[str],
    containers: Mapping[str, Container],
    events: Sequence[ContainerEvent],
    *,
    now: datetime,
) -> Settled:
    """Record the lives that began, and find those that ended, paused, went or changed limits.

    `looked_at` are the containers whose lives may differ from the roster, `containers` their
    inspections; one without is gone. Ends are returned, not written: the stream has them first.
    """
    by_container: dict[str, list[ContainerEvent]] = defaultdict(list)
    for event in events:
        by_container[event.container_id].append(event)
    looked_at = sorted(looked_at)
    recorded = _recorded(host, looked_at)
    endings.reopen_closed(recorded, containers)
    traced = {
        container_id: find_spans(
            {
                life.started_ns: to_ms(life.ended_at) * _MS_NS if life.ended_at else None
                for life in recorded[container_id]
            },
            by_container[container_id],
            containers.get(container_id),
        )
        for container_id in looked_at
    }
    new = [
        container
        for container_id, spans in traced.items()
        for span in spans
        if all(life.started_ns != span.started_ns for life in recorded[container_id])
        and (container := _container(container_id, span, containers, by_container[container_id]))
    ]
    begun = lives.record_lives(host, new, now=now)
    for life in begun:
        recorded[life.container_id].append(life)
    settled = Settled(open={key: life for key, life in roster.items() if life.is_open})
    for container_id, spans in traced.items():
        _settle_container(
            host,
            settled,
            {life.started_ns: life for life in recorded[container_id]},
            spans,
            containers.get(container_id),
            by_container[container_id],
            now,
        )
    if settled.going_on:
        endings.reopen(Life.objects.filter(pk__in=settled.going_on))
    settled.begun = {life.pk for life in begun}
    settled.turns += _turns(settled, by_container)
    for found in recorded.values():
        settled.gaps += endings.unknown_limits(found, settled.ended, now)
    Gap.objects.bulk_create(settled.gaps, ignore_conflicts=True)
    return settled


def _recorded(host: Host, container_ids: Sequence[str]) -> dict[str, list[Life]]:
    recorded: dict[str, list[Life]] = defaultdict(list)
    if container_ids:
        found = Life.objects.filter(host=host, container_id__in=container_ids)
        for life in found.select_related("sandbox", "host").order_by("started_ns"):
            recorded[life.container_id].append(life)
    return recorded


def _container(
    container_id: str,
    span: Span,
    containers: Mapping[str, Container],
    events: Sequence[ContainerEvent],
) -> Container | None:
    """Return what is known of the container in a life: its inspection, or what events tell."""
    container = containers.get(container_id)
    if container is not None and container.started_ns == span.started_ns:
        return container
    if container is not None:
        # The same container, so with the same limits as far as anybody knows.
        return replace(container, started_ns=span.started_ns, finished_ns=span.ended_ns)
    labels = next((event.labels for event in events if event.labels), None)
    if labels is None:
        return None
    return Container(
        container_id=container_id,
        labels=labels,
        state=State.STOPPED,
        started_ns=span.started_ns,
        finished_ns=span.ended_ns,
        is_inspected=False,
    )


def _settle_container(
    host: Host,
    settled: Settled,
    recorded: Mapping[int, Life],
    spans: Sequence[Span],
    container: Container | None,
    events: Sequence[ContainerEvent],
    now: datetime,
) -> None:
    """Find what became of each recorded life of one container."""
    last = spans[-1] if spans else None
    for span, after in zip(spans, [*spans[1:], None], strict=False):
        life = recorded.get(span.started_ns)
        if life is None:  # Its labels were refused.
            continue
        ended_ns = span.ended_ns
        if container is None and span is last:
            ended_ns = _lose(host, settled, life, ended_ns, endings.removed_ns(events), now)
        elif after is not None and life.gone_at is None:
            settled.gone[life.pk] = endings.true_time(host, life, after.started_ns, now)
        if life.ended_at is None and ended_ns is not None:
            _end(settled, life, endings.true_time(host, life, ended_ns, now), events)
        elif ended_ns is None and container is not None and span is last:
            _go_on(host, settled, life, container)
        elif container is not None and span is last and life.gone_at is not None:
            # It was thought gone, and is there: what it takes up counts on.
            Life.objects.filter(pk=life.pk).update(gone_at=None)


def _lose(
    host: Host,
    settled: Settled,
    life: Life,
    ended_ns: int | None,
    gone_ns: int | None,
    now: datetime,
) -> int:
    """Find when a container that is not there any more went; return when its last life ended."""
    if ended_ns is None and life.ended_at is None:
        # Without an event that says when it ended it did when it was last known to live. It may
        # go long after: an engine that comes back removes then what ended with it.
        ended_ns = endings.last_known_ns(host, life)
        ended_ns = ended_ns if gone_ns is None else min(ended_ns, gone_ns)
        settled.gaps += endings.unknown_end(life, ended_ns, now)
    elif ended_ns is None and gone_ns is None:
        gone_ns = endings.last_known_ns(host, life)
    gone_ns = max(gone_ns or 0, ended_ns or 0)
    if life.gone_at is None:
        settled.gone[life.pk] = endings.true_time(host, life, gone_ns, now)
    return gone_ns if ended_ns is None else ended_ns


def _end(settled: Settled, life: Life, ended_ns: int, events: Sequence[ContainerEvent]) -> None:
    was_open = settled.open.pop(life.container_id, None)
    settled.ended[life.pk] = ended_ns
    # A life that was over before anybody knew of it has nothing to bill, unless from its start.
    if was_open is not None or life.counts_from_zero:
        settled.turns += _changes(life.pk, events, start_ns=life.started_ns, end_ns=ended_ns)
        settled.turns.append(Turn(life.pk, ended_ns // _MS_NS, State.STOPPED, Event.STOPPED))


def _go_on(host: Host, settled: Settled, life: Life, container: Container) -> None:
    """Have a running life in the roster with the limits it has now."""
    changes: dict[str, object] = {
        name: value
        for name, value in limits_of(container, host).items()
        if getattr(life, name) != value
    }
    if life.ended_at is not None or life.gone_at is not None:
        # Its host was silent and is back, or an answer was wrong: it is the same life.
        settled.going_on.append(life.pk)
        life.ended_at = life.gone_at = None
    if changes:
        for name, value in changes.items():
            setattr(life, name, value)
        life.save(update_fields=list(changes))
    life.host = host
    settled.open[life.container_id] = RosterLife(
        life=life.pk,
        container_id=life.container_id,
        started_ns=life.started_ns,
        is_open=True,
        counts_from_zero=life.counts_from_zero,
        has_network=not life.network_unmetered,
        allocation=allocation_of(life),
        interval_s=life.sandbox.interval_s,
        is_new=host.events_read_until is None or life.recorded_at > host.events_read_until,
    )


def _turns(settled: Settled, events: Mapping[str, Sequence[ContainerEvent]]) -> list[Turn]:
    """Return when open lives paused and went on."""
    return [
        turn
        for container_id, life in settled.open.items()
        if container_id in events
        for turn in _changes(life.life, events[container_id], start_ns=life.started_ns)
    ]


def _changes(
    life: int, events: Sequence[ContainerEvent], *, start_ns: int, end_ns: int | None = None
) -> list[Turn]:
    return [
        Turn(life, event.at_ns // _MS_NS, _CHANGES_STATE[event.action], Event.CHANGED)
        for event in events
        if event.action in _CHANGES_STATE
        and start_ns < event.at_ns
        and (end_ns is None or event.at_ns < end_ns)
    ]


def write_ends(settled: Settled) -> None:
    """Write when lives ended and containers went. Safe to repeat: the first time stays."""
    _write("ended_at", settled.ended)
    _write("gone_at", settled.gone)


def _write(column: str, times_ns: Mapping[int, int]) -> None:
    if not times_ns:
        return
    times = [from_ms(at_ns // _MS_NS) for at_ns in times_ns.values()]
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE metering_life life SET {column} = GREATEST(new.at, life.started_at) "  # noqa: S608
            "FROM unnest(%s::bigint[], %s::timestamptz[]) new(life, at) "
            f"WHERE life.id = new.life AND life.{column} IS NULL",
            [list(times_ns), times],
        )


def gone_marks(settled: Settled) -> list[Gone]:
    """Return the moments from which lives take up nothing any more."""
    return [Gone(life, at_ns // _MS_NS) for life, at_ns in settled.gone.items()]
