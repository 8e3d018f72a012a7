"""Collecting without a task queue: one process that stays, beside the engine it reads."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db import OperationalError, close_old_connections, connection

from metering.collector import collect_containers, collect_host, collect_storage
from metering.docker import DockerEngine, Stream
from metering.lives import record_lives
from metering.models import Host, StreamCursor
from metering.pace import interval_of
from metering.samples import State
from metering.source import (
    Action,
    Container,
    ContainerEvent,
    Events,
    Listed,
    Offer,
    Reading,
    Source,
    SourceError,
    StorageReading,
)
from metering.sources import engine_of, open_source
from metering.stream import StreamUnavailableError

logger = logging.getLogger(__name__)

# A list costs an engine some tenth of a millisecond a container; events keep it true meanwhile.
LIST_EVERY = timedelta(seconds=10)
RECONNECT_AFTER_S = 1.0
STOP_WITHIN_S = 1.0
_EVENT_OVERLAP = timedelta(seconds=5)
_AFTER = {
    Action.START: State.RUNNING,
    Action.UNPAUSE: State.RUNNING,
    Action.PAUSE: State.PAUSED,
    Action.DIE: State.STOPPED,
}


@dataclass(slots=True)
class Remembering:
    """A source whose list of containers is kept, moved on by events and asked again at times."""

    source: Source
    _states: dict[str, State] = field(default_factory=dict)
    _listed_at: datetime | None = None

    @property
    def name(self) -> str:
        """Return what gives the figures."""
        return self.source.name

    def clock(self) -> datetime:
        """Return the time it is now."""
        return self.source.clock()

    def engine_id(self) -> str:
        """Return the engine's own identity."""
        return self.source.engine_id()

    def offer(self) -> Offer:
        """Return what the host has to give."""
        return self.source.offer()

    def list_containers(self) -> list[Listed]:
        """Return every container with a sandbox label, as last listed and as events tell."""
        now = self.clock()
        # A clock that stepped back says nothing of how old the list is.
        if self._listed_at is None or not timedelta(0) <= now - self._listed_at < LIST_EVERY:
            listed = self.source.list_containers()
            self._states = {found.container_id: found.state for found in listed}
            self._listed_at = now
        return [Listed(key, state) for key, state in self._states.items()]

    def events_between(self, start: datetime, end: datetime) -> Events:
        """Return what happened, and remember it."""
        events = self.source.events_between(start, end)
        if not events.is_complete:
            self._listed_at = None
        for event in events.seen:
            if event.action is Action.DESTROY:
                self._states.pop(event.container_id, None)
            elif state := _AFTER.get(event.action):
                self._states[event.container_id] = state
        return events

    def inspect(self, container_ids: Sequence[str]) -> list[Container]:
        """Return what is known of these containers."""
        return self.source.inspect(container_ids)

    def read(self, container_ids: Sequence[str]) -> list[Reading]:
        """Return a reading of each container that runs."""
        return self.source.read(container_ids)

    def read_storage(self) -> list[StorageReading]:
        """Return what each container takes up."""
        return self.source.read_storage()


@contextmanager
def _outages_in_one_line(doing: str, host_id: UUID) -> Iterator[None]:
    try:
        close_old_connections()
        yield
    except (SourceError, StreamUnavailableError, OperationalError) as error:
        reason = " ".join(str(error).split())
        logger.warning("%s failed: %s", doing, reason, extra={"host": str(host_id)})
    except Exception:
        # A thread that ended for it would not be missed; the next try may do better.
        logger.exception("%s failed", doing, extra={"host": str(host_id)})


def collect_until(stop: threading.Event, host_id: UUID) -> None:
    """Collect one host until `stop` is set: passes, storage, and what events announce.

    Passes have absolute deadlines on the monotonic clock, so that a slow one delays no other;
    deadlines that are over when a pass ends are left out.
    """
    threads = [
        threading.Thread(target=target, args=(stop, host_id), daemon=True)
        for target in (_read_storage_until, _watch_until)
    ]
    for thread in threads:
        thread.start()
    source: Remembering | None = None
    deadline = time.monotonic()
    while not stop.is_set():
        interval = timedelta(seconds=settings.METERING_INTERVAL_S)
        with _outages_in_one_line("collecting", host_id):
            host = Host.objects.get(pk=host_id)
            opened = open_source(host)
            if source is None or source.source is not opened:
                source = Remembering(opened)
            now = datetime.now(UTC)
            interval = interval_of(StreamCursor.objects.get(host_id=host_id), now=now)
            collect_host(host_id, now=now, source=source, interval=interval)
        deadline += interval.total_seconds()
        late_s = time.monotonic() - deadline
        if late_s > 0:
            deadline += (late_s // interval.total_seconds() + 1) * interval.total_seconds()
        stop.wait(deadline - time.monotonic())
    # What they are in the middle of is repeated by whoever collects next.
    until = time.monotonic() + STOP_WITHIN_S
    for thread in threads:
        thread.join(timeout=max(until - time.monotonic(), 0))
    connection.close()


def _read_storage_until(stop: threading.Event, host_id: UUID) -> None:
    while not stop.is_set():
        with _outages_in_one_line("reading storage", host_id):
            collect_storage(host_id, now=datetime.now(UTC))
        stop.wait(settings.METERING_STORAGE_INTERVAL_S)
    connection.close()


def _watch_until(stop: threading.Event, host_id: UUID) -> None:
    """Act on what cannot wait for a pass, as long as the engine tells."""
    since = datetime.now(UTC)
    while not stop.is_set():
        with _outages_in_one_line("watching events", host_id):
            host = Host.objects.get(pk=host_id)
            engine = engine_of(host)
            if engine is None:
                return
            _watch(stop, engine, host, since)
        since = datetime.now(UTC) - _EVENT_OVERLAP
        stop.wait(RECONNECT_AFTER_S)
    connection.close()


def _watch(stop: threading.Event, engine: DockerEngine, host: Host, since: datetime) -> None:
    events = engine.watch_events(since)
    has_ended = threading.Event()
    closer = threading.Thread(target=_close_at, args=(stop, has_ended, events), daemon=True)
    closer.start()
    try:
        for event in events:
            act = _ACTS.get(event.action)
            if act is not None:
                with _outages_in_one_line(f"acting on {event.action}", host.pk):
                    act(engine, host.pk, event)
    finally:
        # Or each connection that was lost would leave a thread behind.
        has_ended.set()
        closer.join()


def _close_at(
    stop: threading.Event, has_ended: threading.Event, events: Stream[ContainerEvent]
) -> None:
    while not (has_ended.wait(STOP_WITHIN_S / 4) or stop.is_set()):
        pass
    events.close()


def _record_at_once(engine: DockerEngine, host_id: UUID, event: ContainerEvent) -> None:
    """Learn the limits of a life that may be over, and removed, before the next pass."""
    # As it is now: what it offers a sandbox without limits is known from the first pass on.
    host = Host.objects.get(pk=host_id)
    if host.cpu_micro is not None:
        record_lives(host, engine.inspect([event.container_id]), now=datetime.now(UTC))


def _read_once_more(engine: DockerEngine, host_id: UUID, event: ContainerEvent) -> None:
    """Read a container that was sent a signal: `docker stop` announces itself so."""
    del engine
    collect_containers(host_id, {event.container_id}, now=datetime.now(UTC))


_ACTS: dict[Action, Callable[[DockerEngine, UUID, ContainerEvent], None]] = {
    Action.START: _record_at_once,
    Action.KILL: _read_once_more,
}
