"""What a pass makes of containers that change while it looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from django.db.models import Sum

from metering.collector import collect_host
from metering.meters import Meter
from metering.models import Gap, Host, Life, LifeReading
from metering.period import to_ms
from metering.samples import State
from metering.services import HostRefusedError, register_host
from metering.source import (
    ACCOUNT_LABEL,
    SANDBOX_LABEL,
    Action,
    Container,
    ContainerEvent,
    Events,
    Listed,
    Offer,
    Reading,
    SourceError,
    StorageReading,
)
from tests.metering.fleet import SECOND, START, TICK, Fleet

pytestmark = pytest.mark.django_db

MS_NS = 10**6
CPU_NS_PER_MS = 1_000_000


@dataclass
class Engine:
    """One container with as many lives as a test gives it, on the fleet's clock."""

    fleet: Fleet
    lives: list[tuple[datetime, datetime | None]] = field(default_factory=list)
    removed: bool = False
    forgets_events: bool = False
    identity: str = ""
    # Lives that begin while a pass is inside `inspect`.
    restart_at: datetime | None = None
    later: timedelta = timedelta(0)

    def clock(self) -> datetime:
        return self.fleet.now + self.later

    def engine_id(self) -> str:
        return self.identity

    def _current(self) -> tuple[datetime, datetime | None]:
        return [life for life in self.lives if life[0] <= self.clock()][-1]

    def list_containers(self) -> list[Listed]:
        if self.removed or not self.lives:
            return []
        _, ended = self._current()
        return [Listed("c", State.RUNNING if ended is None else State.STOPPED)]

    @property
    def name(self) -> str:
        return "engine"

    def offer(self) -> Offer:
        return Offer(cpu_micro=4 * 10**6, memory_bytes=2**34)

    def read_storage(self) -> list[StorageReading]:
        return []

    def events_between(self, start: datetime, end: datetime) -> Events:
        if self.forgets_events:
            return Events()
        times = [(at, Action.START) for at, _ in self.lives]
        times += [(at, Action.DIE) for _, at in self.lives if at]
        labels = self._labels()
        return Events(
            tuple(
                ContainerEvent("c", action, to_ms(at) * MS_NS, labels)
                for at, action in sorted(times)
                if start <= at < end
            )
        )

    def _labels(self) -> dict[str, str]:
        return {SANDBOX_LABEL: "sbx", ACCOUNT_LABEL: str(self.fleet.account_id)}

    def inspect(self, container_ids: Sequence[str]) -> list[Container]:
        if self.removed or "c" not in container_ids:
            return []
        start, ended = self._current()
        found = Container(
            container_id="c",
            labels=self._labels(),
            state=State.RUNNING if ended is None else State.STOPPED,
            started_ns=to_ms(start) * MS_NS,
            finished_ns=to_ms(ended) * MS_NS if ended else None,
        )
        self._restart()
        return [found]

    def _restart(self) -> None:
        if self.restart_at is not None:
            start, _ = self.lives[-1]
            self.lives[-1:] = [(start, self.restart_at), (self.restart_at, None)]
            self.later = self.restart_at - self.fleet.now + SECOND
            self.restart_at = None

    def read(self, container_ids: Sequence[str]) -> list[Reading]:
        self._restart()
        if self.removed or "c" not in container_ids:
            return []
        start, _ = self._current()
        ran_ms = to_ms(self.clock()) - to_ms(start)
        return [Reading("c", to_ms(self.clock()), cpu_ns=CPU_NS_PER_MS * ran_ms, memory_bytes=1)]

    def run(self, passes: int = 1) -> None:
        for _ in range(passes):
            self.fleet.now += TICK
            collect_host(self.fleet.host_id, now=self.fleet.now, source=self)
            self.later = timedelta(0)
        self.fleet.aggregate()


def billed_ms(fleet: Fleet) -> float:
    return fleet.usage().get(Meter.CPU, 0) / CPU_NS_PER_MS


def test_a_container_restarted_while_a_pass_looks_at_it_is_not_billed_to_both_lives() -> None:
    fleet = Fleet()
    engine = Engine(fleet, [(START, None)])
    engine.run(3)
    # It restarts half a second after the next pass began, and is read a second later.
    engine.restart_at = fleet.now + TICK + SECOND / 2
    engine.run()
    engine.run(3)
    first, second = Life.objects.order_by("started_ns")
    assert first.ended_at == second.started_at
    ran_ms = to_ms(fleet.now) - to_ms(second.started_at)
    assert LifeReading.objects.get(life=second).cpu_ns == CPU_NS_PER_MS * ran_ms
    # The first life's growth after its last reading is a gap; nothing is in both.
    assert billed_ms(fleet) == ran_ms + 6000
    assert LifeReading.objects.get(life=first).state == State.STOPPED
    assert Gap.objects.filter(life=first, reason=Gap.Reason.ENDED_BETWEEN_READINGS).exists()


def test_a_short_life_of_a_container_that_lived_before_is_recorded() -> None:
    fleet = Fleet()
    engine = Engine(fleet, [(START, START + SECOND)])
    engine.run()
    again = fleet.now + SECOND / 2
    engine.lives.append((again, again + SECOND))
    engine.run(2)
    first, second = Life.objects.order_by("started_ns")
    assert (first.ended_at, second.ended_at) == (START + SECOND, again + SECOND)
    assert fleet.host.lives.filter(usage_records__running_ms=1000).count() == 2


def test_a_container_removed_without_an_event_ends_with_its_last_reading() -> None:
    fleet = Fleet()
    engine = Engine(fleet, [(START, None)])
    engine.later = SECOND
    engine.run()
    engine.removed = engine.forgets_events = True
    engine.run()
    life = Life.objects.get()
    assert life.ended_at == START + TICK + SECOND
    assert billed_ms(fleet) == 3000
    running = life.usage_records.aggregate(ms=Sum("running_ms"))["ms"]
    assert running == 3000


def test_an_engine_is_metered_as_one_host_only() -> None:
    one, other = Fleet(), Fleet()
    Engine(one, [(START, None)], identity="engine-1").run()
    with pytest.raises(SourceError, match=f"metered as host {one.host.name} already"):
        Engine(other, [(START, None)], identity="engine-1").run()
    assert "Set one of the two not active" in Host.objects.get(pk=other.host_id).problem
    Host.objects.filter(pk=one.host_id).update(is_active=False)
    Engine(other, [(START, None)], identity="engine-1").run()
    assert Host.objects.get(pk=other.host_id).problem == ""


@pytest.mark.parametrize(
    ("name", "endpoint", "complaint"),
    [
        ("new", "foo://x", "endpoint 'foo://x': it has to begin with one of unix"),
        ("taken", "unix:///x", "name 'taken': another host has it"),
    ],
)
def test_a_host_that_cannot_be_is_refused_by_field(
    name: str, endpoint: str, complaint: str
) -> None:
    taken, new = Fleet(), Fleet()
    Host.objects.filter(pk=taken.host_id).update(name="taken")
    with pytest.raises(HostRefusedError, match=complaint):
        register_host(host_id=new.host_id, name=name, endpoint=endpoint, now=START)
