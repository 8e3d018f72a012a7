"""A host of simulated sandboxes on a virtual clock, driven through the real stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID, uuid4

from metering.aggregator import aggregate_host
from metering.collector import collect_host
from metering.meters import Meter
from metering.models import Host
from metering.period import Period
from metering.queries import usage_totals
from metering.services import register_account, register_host
from metering.simulator import SimulatedSandbox, Simulator
from metering.source import Reading

START = datetime(2026, 11, 2, 10, 7, tzinfo=UTC)
TICK = timedelta(seconds=2)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


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
