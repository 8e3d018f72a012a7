"""One process that stays: its deadlines, what it does at once, and how it stops."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from queue import Empty, Queue

import pytest
from django.db import connections
from pytest_django.fixtures import Settings

from metering import resident
from metering.collector import collect_host
from metering.models import Host, Life
from metering.samples import Batch, State, unpack
from metering.source import Action, ContainerEvent, Listed, Reading, SourceError
from metering.stream import read_after
from tests.metering.fleet import SECOND, Box, Fleet, Machine

pytestmark = pytest.mark.django_db(transaction=True)

TICK_S = 0.25


class Told:
    """Events as a test tells them; what the watch of an engine returns."""

    def __init__(self) -> None:
        self._queue: Queue[ContainerEvent] = Queue()
        self._is_closed = threading.Event()

    def tell(self, event: ContainerEvent) -> None:
        self._queue.put(event)

    def __iter__(self) -> Iterator[ContainerEvent]:
        while not self._is_closed.is_set():
            try:
                yield self._queue.get(timeout=0.02)
            except Empty:
                continue

    def close(self) -> None:
        self._is_closed.set()


@dataclass
class Live(Machine):
    """A machine on the real clock, that notes when it was listed and may be slow."""

    told: Told = field(default_factory=Told)
    listed_at: list[float] = field(default_factory=list)
    slow: dict[int, float] = field(default_factory=dict)
    watches: int = 0
    refuses_watches: bool = False

    def clock(self) -> datetime:
        self.fleet.now = datetime.now(UTC)
        return self.fleet.now

    def list_containers(self) -> list[Listed]:
        self.clock()
        self.listed_at.append(time.monotonic())
        time.sleep(self.slow.get(len(self.listed_at), 0))
        return Machine.list_containers(self)

    def read(self, container_ids: list[str]) -> list[Reading]:  # type: ignore[override]
        self.clock()
        return Machine.read(self, container_ids)

    def watch_events(self, since: datetime) -> Told:
        del since
        self.watches += 1
        if self.refuses_watches:
            raise SourceError("The engine did not answer.")
        return self.told

    def event(self, action: Action, box: Box) -> ContainerEvent:
        return ContainerEvent(box.name, action, time.time_ns(), self._labels(box))


@pytest.fixture
def live(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Live:
    settings.METERING_INTERVAL_S = TICK_S
    now = datetime.now(UTC)
    fleet = Fleet(registered_at=now - timedelta(minutes=1))
    fleet.now = now
    machine = Live(fleet)
    monkeypatch.setattr(resident, "open_source", lambda _host: machine)
    monkeypatch.setattr(resident, "engine_of", lambda _host: machine)
    monkeypatch.setattr("metering.collector.open_source", lambda _host: machine)
    monkeypatch.setattr(resident, "LIST_EVERY", timedelta(0))
    monkeypatch.setattr(resident, "RECONNECT_AFTER_S", 0.05)
    return machine


@contextmanager
def collecting(live: Live) -> Iterator[threading.Event]:
    """Collect beside the test; fail it when that does not stop within a second."""
    stop = threading.Event()

    def collect() -> None:
        resident.collect_until(stop, live.fleet.host_id)
        connections.close_all()

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        stopped_at = time.monotonic()
        thread.join(timeout=5)
        assert time.monotonic() - stopped_at < 1


def wait_for(condition: object, *, timeout_s: float = 5) -> None:
    until = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < until
        time.sleep(0.01)


def batches(live: Live) -> list[Batch]:
    return [unpack(one.packed) for one in read_after(live.fleet.host_id, "0-0", limit=1000)]


def test_deadlines_are_absolute_and_a_slow_pass_delays_no_other(live: Live) -> None:
    # Of the first passes the first lists twice: its clock is not known yet.
    live.slow = {2: 2.5 * TICK_S}
    live.add("sbx", (live.fleet.now, None))
    with collecting(live):
        wait_for(lambda: len(live.listed_at) >= 8)
    first = live.listed_at[0]
    passed = [(at - first) / TICK_S for at in live.listed_at[3:8]]
    # They begin at multiples of the interval, however long the ones before took.
    off = sorted(abs(deadline - round(deadline)) for deadline in passed)
    assert off[2] < 0.25
    assert all(round(after - before) >= 1 for before, after in pairwise(passed))
    assert len([batch for batch in batches(live) if batch.collected_ms]) >= 5


def test_it_stops_within_a_second_though_its_reading_of_storage_does_not(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_over = threading.Event()
    monkeypatch.setattr(resident, "collect_storage", lambda *_, **__: is_over.wait(10))
    monkeypatch.setattr(resident, "STOP_WITHIN_S", 0.5)
    with collecting(live):
        wait_for(lambda: live.listed_at)
    is_over.set()


def test_a_signal_to_a_container_leads_to_a_reading_at_once(live: Live) -> None:
    box = live.add("sbx", (live.fleet.now, None))
    with collecting(live):
        wait_for(lambda: any(len(batch.samples) for batch in batches(live)))
        live.told.tell(live.event(Action.KILL, box))
        wait_for(lambda: any(len(b.samples) and not b.collected_ms for b in batches(live)))
    apart = [batch for batch in batches(live) if len(batch.samples) and not batch.collected_ms]
    assert [batch.samples["life"].tolist() for batch in apart] == [[Life.objects.get().pk]]


def test_a_start_records_the_limits_of_a_life_that_is_removed_before_the_next_pass(
    live: Live, settings: Settings
) -> None:
    with collecting(live):
        wait_for(lambda: Host.objects.get(pk=live.fleet.host_id).pass_count)
        settings.METERING_INTERVAL_S = 60
        passes = len(live.listed_at)
        wait_for(lambda: len(live.listed_at) > passes)
        now = live.clock()
        box = live.add("short", (now, None), cpu_limit_micro=None, gpu_count=2)
        live.told.tell(live.event(Action.START, box))
        wait_for(Life.objects.exists)
    live.boxes.clear()
    life = Life.objects.get()
    assert (life.cpu_limit_micro, life.gpu_count) == (None, 2)
    # What the host offers was not known when watching began.
    assert life.reading.cpu_limit_micro == live.offer().cpu_micro


def test_an_outage_is_one_line_a_pass_and_is_over_by_itself(
    live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    live.add("sbx", (live.fleet.now, None))
    live.is_down = True
    with caplog.at_level(logging.WARNING), collecting(live):
        wait_for(lambda: "collecting failed" in caplog.text)
        tries = len(live.listed_at)
        wait_for(lambda: len(live.listed_at) >= tries + 3)
        live.is_down = False
        wait_for(lambda: any(len(batch.samples) for batch in batches(live)))
    failed = [record for record in caplog.records if record.msg == "%s failed: %s"]
    collects = [record for record in failed if record.getMessage().startswith("collecting")]
    assert 1 <= len(collects) <= len(live.listed_at) + 1
    assert all(record.exc_info is None for record in failed)
    assert Host.objects.get(pk=live.fleet.host_id).problem == ""


def test_whatever_goes_wrong_in_a_pass_the_next_one_is_made(
    live: Live, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []

    def fail_once(*args: object, **facts: object) -> object:
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("of all things")
        return collect_host(*args, **facts)  # type: ignore[arg-type]

    monkeypatch.setattr(resident, "collect_host", fail_once)
    with collecting(live):
        wait_for(lambda: batches(live))
    assert "of all things" in caplog.text


def test_watches_that_fail_leave_no_threads_behind(live: Live) -> None:
    live.refuses_watches = True
    before = threading.active_count()
    with collecting(live):
        wait_for(lambda: live.watches >= 5)
        live.refuses_watches = False
        live.told.close()
        wait_for(lambda: live.watches >= 8)
        # Its own, two beside it, and one that closes a watch.
        assert threading.active_count() <= before + 4


def test_a_remembered_list_is_moved_on_by_events() -> None:
    fleet = Fleet()
    machine = Machine(fleet)
    box = machine.add("sbx", (fleet.now, fleet.now + 3 * SECOND))
    machine.add("goes", (fleet.now, None), removed_at=fleet.now + 3 * SECOND)
    box.pauses.append((fleet.now + SECOND, fleet.now + 2 * SECOND))
    source = resident.Remembering(machine)
    seen = []
    for _ in range(4):
        until = fleet.now + timedelta(milliseconds=1)
        source.events_between(fleet.now - 5 * SECOND, until)
        seen.append({one.container_id: one.state for one in source.list_containers()})
        fleet.now += SECOND
    running = {"sbx": State.RUNNING, "goes": State.RUNNING}
    paused = running | {"sbx": State.PAUSED}
    assert seen == [running, paused, running, {"sbx": State.STOPPED}]


def test_a_remembered_list_is_asked_again_after_a_while_or_where_events_are_lost() -> None:
    fleet = Fleet()
    machine = Machine(fleet)
    source = resident.Remembering(machine)
    source.list_containers()
    machine.add("sbx")
    assert source.list_containers() == []
    fleet.now += resident.LIST_EVERY
    assert len(source.list_containers()) == 1
    machine.add("another")
    machine.ring = 0
    source.events_between(fleet.now, fleet.now)
    assert len(source.list_containers()) == 2
    machine.boxes.clear()
    # A clock that stepped back does not keep it for an hour.
    fleet.now -= timedelta(hours=1)
    assert source.list_containers() == []
