"""A host of simulated sandboxes on a virtual clock, driven through the real stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID, uuid4

from metering.aggregator import aggregate_host
from metering.collector import collect_host
from metering.meters import Meter
from metering.models import Host
from metering.period import MILLISECOND, Period, to_ms
from metering.queries import usage_totals
from metering.samples import State
from metering.services import register_account, register_host
from metering.simulator import SimulatedSandbox, Simulator
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

START = datetime(2026, 11, 2, 10, 7, tzinfo=UTC)
TICK = timedelta(seconds=2)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
MS_NS = 10**6
CPU_NS_PER_MS = 1_000_000
# An engine waits for a time that its clock has not reached; a caller does not for so long.
CALL_TIMEOUT = 5 * SECOND


@dataclass
class Lossy(Simulator):
    """A simulator that loses a share of its readings, at random from a seed."""

    share: float = 0.0
    random: Random = field(default_factory=lambda: Random(1))  # noqa: S311 - a test's dice

    def read(self, container_ids: Sequence[str]) -> list[Reading]:
        readings = Simulator.read(self, container_ids)
        return [reading for reading in readings if self.random.random() >= self.share]


class Fleet:
    """One account's sandboxes on one host, and the time it is there."""

    def __init__(self, *, registered_at: datetime = START) -> None:
        self.account_id: UUID = uuid4()
        self.host_id: UUID = uuid4()
        self.now = START
        register_account(account_id=self.account_id, time_zone="UTC", registered_at=registered_at)
        self.host: Host = register_host(
            host_id=self.host_id,
            name=f"host-{self.host_id}",
            endpoint="simulator:",
            now=registered_at,
        )
        self.source = Lossy([], clock=lambda: self.now)

    def add(self, sandbox_id: str, **rates: object) -> SimulatedSandbox:
        values: dict[str, object] = {
            "container_id": f"container-of-{sandbox_id}",
            "sandbox_id": sandbox_id,
            "account_id": str(self.account_id),
            "started_at": self.now,
            "cpu_ns_per_ms": 500_001,
            "memory_bytes": 64_000_001,
            "tx_bytes_per_ms": 7,
            "rx_bytes_per_ms": 11,
            "disk_write_bytes_per_ms": 3,
        }
        sandbox = SimulatedSandbox(**(values | rates))  # type: ignore[arg-type]
        share = self.source.share
        self.source = Lossy([*self.source.sandboxes, sandbox], clock=lambda: self.now, share=share)
        return sandbox

    def collect(self) -> None:
        collect_host(self.host_id, now=self.now, source=self.source)

    def run(self, duration: timedelta, *, tick: timedelta = TICK) -> None:
        """Collect every tick, aggregate at the end."""
        end = self.now + duration
        while self.now < end:
            self.now = min(self.now + tick, end)
            self.collect()
        self.aggregate()

    def run_without_aggregating(self, *, ticks: int, tick: timedelta = 5 * SECOND) -> None:
        """Collect so many times."""
        for _ in range(ticks):
            self.now += tick
            self.collect()

    def aggregate(self) -> int:
        return aggregate_host(self.host_id, now=self.now)

    def usage(self) -> dict[Meter, int]:
        return usage_totals(self.account_id, self.everything)

    @property
    def everything(self) -> Period:
        return Period(START - timedelta(hours=1), self.now + timedelta(hours=1))

    def closed_form(self) -> Counter[Meter]:
        total: Counter[Meter] = Counter()
        for sandbox in self.source.sandboxes:
            total.update(sandbox.usage(Period(START - timedelta(hours=1), self.now)))
        return total


@dataclass
class Box:
    """A container: its lives, from a start to an end; None: it runs. All by the true time."""

    name: str
    lives: list[tuple[datetime, datetime | None]]
    removed_at: datetime | None = None
    pauses: list[tuple[datetime, datetime]] = field(default_factory=list)
    updates: list[datetime] = field(default_factory=list)
    cpu_limit_micro: int | None = 10**6
    memory_limit_bytes: int | None = 2**20
    gpu_count: int = 0
    layer_bytes: int = 2**20

    def history(self) -> Iterator[tuple[Action, datetime]]:
        for start, end in self.lives:
            yield Action.START, start
            if end:
                yield Action.DIE, end
        for start, end in self.pauses:
            yield Action.PAUSE, start
            yield Action.UNPAUSE, end
        for at in self.updates:
            yield Action.UPDATE, at
        if self.removed_at:
            yield Action.DESTROY, self.removed_at

    def life_at(self, now: datetime) -> tuple[datetime, datetime | None] | None:
        """Return its latest life, whose end is None while that is to come."""
        begun = [life for life in self.lives if life[0] <= now]
        if not begun or (self.removed_at and self.removed_at <= now):
            return None
        start, end = begun[-1]
        return start, end if end and end <= now else None

    def state_at(self, now: datetime) -> State:
        life = self.life_at(now)
        if life is None or life[1]:
            return State.STOPPED
        return State.PAUSED if any(a <= now < b for a, b in self.pauses) else State.RUNNING

    def busy_ms(self, start: datetime, end: datetime) -> int:
        """Return the milliseconds between two times of one life in which it was not paused."""
        paused = sum(
            (max(min(b, end) - max(a, start), timedelta(0)) for a, b in self.pauses), timedelta(0)
        )
        return (end - start - paused) // MILLISECOND


@dataclass
class Machine:
    """An engine of boxes with a clock and a memory of its own, on the fleet's time."""

    fleet: Fleet
    boxes: list[Box] = field(default_factory=list)
    # How far its clock was ahead of the true time, from when on.
    clocks: list[tuple[datetime, timedelta]] = field(default_factory=list)
    # It remembers so many events, and those not before it was started.
    ring: int = 10**6
    restarted_at: datetime = START - timedelta(days=99)
    is_lost: Callable[[ContainerEvent], bool] = lambda _event: False
    is_down: bool = False
    gpus: int | None = None
    unreadable: set[str] = field(default_factory=set)
    inspected: list[str] = field(default_factory=list)
    name = "engine"

    def clock(self) -> datetime:
        return self.fleet.now

    def engine_id(self) -> str:
        return ""

    def offer(self) -> Offer:
        return Offer(cpu_micro=4 * 10**6, memory_bytes=2**34, gpu_count=self.gpus)

    def _told(self, at: datetime) -> datetime:
        """Return a true time as the engine's clock showed it."""
        return at + next((by for since, by in reversed(self.clocks) if since <= at), timedelta(0))

    def _check(self) -> None:
        if self.is_down:
            raise SourceError("The engine did not answer.")

    def list_containers(self) -> list[Listed]:
        self._check()
        now = self.fleet.now
        return [Listed(box.name, box.state_at(now)) for box in self.boxes if box.life_at(now)]

    def _labels(self, box: Box) -> dict[str, str]:
        return {SANDBOX_LABEL: box.name, ACCOUNT_LABEL: str(self.fleet.account_id)}

    def events_between(self, start: datetime, end: datetime) -> Events:
        self._check()
        if end > self._told(self.fleet.now) + CALL_TIMEOUT:
            raise SourceError("The engine did not answer in 5 s.")
        happened = [
            ContainerEvent(box.name, action, to_ms(self._told(at)) * MS_NS, self._labels(box))
            for box in self.boxes
            for action, at in box.history()
            if self.restarted_at <= at <= self.fleet.now
        ]
        remembered = sorted(happened, key=lambda event: event.at_ns)[-self.ring :]
        asked = [e for e in remembered if to_ms(start) * MS_NS <= e.at_ns < to_ms(end) * MS_NS]
        seen = tuple(event for event in asked if not self.is_lost(event))
        return Events(seen, is_complete=len(asked) < self.ring)

    def inspect(self, container_ids: Sequence[str]) -> list[Container]:
        self._check()
        self.inspected += container_ids
        now = self.fleet.now
        found = []
        for box in self.boxes:
            life = box.life_at(now)
            if life is None or box.name not in set(container_ids) - self.unreadable:
                continue
            ends = [end for _, end in box.lives if end and end <= now]
            found.append(
                Container(
                    container_id=box.name,
                    labels=self._labels(box),
                    state=box.state_at(now),
                    started_ns=to_ms(self._told(life[0])) * MS_NS,
                    finished_ns=to_ms(self._told(ends[-1])) * MS_NS if ends else None,
                    cpu_limit_micro=box.cpu_limit_micro,
                    memory_limit_bytes=box.memory_limit_bytes,
                    gpu_count=box.gpu_count,
                )
            )
        return found

    def read(self, container_ids: Sequence[str]) -> list[Reading]:
        self._check()
        now = self.fleet.now
        asked = set(container_ids)
        return [
            Reading(
                container_id=box.name,
                read_ms=to_ms(self._told(now)),
                cpu_ns=CPU_NS_PER_MS * box.busy_ms(life[0], now),
                memory_bytes=1000,
            )
            for box in self.boxes
            if box.name in asked and (life := box.life_at(now)) and life[1] is None
        ]

    def read_storage(self) -> list[StorageReading]:
        self._check()
        return [
            StorageReading(box.name, to_ms(self._told(self.fleet.now)), box.layer_bytes)
            for box in self.boxes
            if box.life_at(self.fleet.now)
        ]

    def add(self, name: str, *lives: tuple[datetime, datetime | None], **facts: object) -> Box:
        box = Box(name, list(lives or [(self.fleet.now, None)]), **facts)  # type: ignore[arg-type]
        self.boxes.append(box)
        return box

    def collect(self, *, interval: timedelta = TICK) -> None:
        collect_host(self.fleet.host_id, now=self.fleet.now, source=self, interval=interval)

    def run(self, duration: timedelta, *, tick: timedelta = TICK) -> None:
        """Collect every tick, also when the engine does not answer; aggregate at the end."""
        end = self.fleet.now + duration
        while self.fleet.now < end:
            self.fleet.now = min(self.fleet.now + tick, end)
            with suppress(SourceError):
                self.collect(interval=tick)
        self.fleet.aggregate()

    def busy_ms(self) -> int:
        """Return for how many milliseconds the cpu of any box was used so far."""
        now = self.fleet.now
        return sum(
            box.busy_ms(start, min(end or now, now))
            for box in self.boxes
            for start, end in box.lives
            if start < now
        )
