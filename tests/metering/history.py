"""Lives whose every sample a test writes down, and all that is stored of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID, uuid4

import numpy as np

from metering import stream
from metering.aggregator import aggregate_host
from metering.lives import record_lives
from metering.models import (
    CounterReset,
    Gap,
    Host,
    InterfaceReading,
    LateUsage,
    Life,
    LifeReading,
    NetworkUsageRecord,
    StorageReading,
    StorageUsageRecord,
    UsageRecord,
)
from metering.period import to_ms
from metering.samples import (
    INTERFACE_SAMPLE,
    SAMPLE,
    STORAGE_SAMPLE,
    Batch,
    Event,
    Known,
    Missed,
    State,
    interface_id,
    life_id,
)
from metering.services import register_account, register_host
from metering.source import ACCOUNT_LABEL, SANDBOX_LABEL, Container

START = datetime(2026, 11, 2, 10, 0, tzinfo=UTC)
"""A window's edge; a test's milliseconds count from it."""
START_MS = to_ms(START)
MINUTE_MS = 60_000
WINDOW_MS = 15 * MINUTE_MS


@dataclass(frozen=True)
class Taken:
    """One sample of one life; times in ms after START. A figure of None was not read."""

    at_ms: int
    cpu_ns: int | None = None
    memory_bytes: int | None = None
    disk_read_bytes: int | None = None
    limits: tuple[int, int, int] | None = None
    state: State = State.RUNNING
    interfaces: dict[str, tuple[int, int]] = field(default_factory=dict)
    storage_bytes: int | None = None
    is_gone: bool = False
    missed: Missed = Missed.UNEXPLAINED
    interval_s: int = 2

    @property
    def known(self) -> Known:
        known = Known(0)
        for value, bit in (
            (self.cpu_ns, Known.CPU),
            (self.memory_bytes, Known.MEMORY),
            (self.disk_read_bytes, Known.DISK_READ),
            (self.limits, Known.ALLOCATION),
        ):
            if value is not None:
                known |= bit
        return known


class History:
    """One account's lives on one host of its own."""

    def __init__(self, *, registered_at: datetime = START - timedelta(days=80)) -> None:
        self.account_id: UUID = uuid4()
        self.host_id: UUID = uuid4()
        register_account(account_id=self.account_id, time_zone="UTC", registered_at=registered_at)
        self.host: Host = register_host(
            host_id=self.host_id,
            name=f"host-{self.host_id}",
            endpoint="simulator:",
            now=registered_at,
        )

    def container(self, name: str, started_ms: int = 0) -> Container:
        return Container(
            container_id=name,
            labels={ACCOUNT_LABEL: str(self.account_id), SANDBOX_LABEL: name},
            state=State.RUNNING,
            started_ns=(START_MS + started_ms) * 10**6,
            finished_ns=None,
            cpu_limit_micro=2_000_000,
            memory_limit_bytes=10**9,
        )

    def begin(self, name: str, started_ms: int = 0) -> int:
        record_lives(self.host, [self.container(name, started_ms)], now=START)
        return self.number(name, started_ms)

    def key(self, name: str, started_ms: int = 0) -> str:
        return f"{name}/{(START_MS + started_ms) * 10**6}"

    def number(self, name: str, started_ms: int = 0) -> int:
        return life_id(str(self.host_id), self.key(name, started_ms))

    def send(self, life: int, samples: Iterable[Taken]) -> None:
        """Append a batch for each sample, in the order of their times."""
        for sample in sorted(samples, key=lambda one: one.at_ms):
            stream.append(self.host_id, batch_of(life, sample))

    def fold(self, now_ms: int | None = None) -> int:
        now = START + timedelta(days=1 if now_ms is None else 0, milliseconds=now_ms or 0)
        return aggregate_host(self.host_id, now=now)

    def stored(self) -> dict[str, list[Any]]:
        """Return every row of the host's lives but its ids and when it was written."""
        lives = dict(Life.objects.filter(host=self.host_id).values_list("pk", "container_id"))
        names = {
            number: (lives[life], name)
            for number, life, name in InterfaceReading.objects.filter(life__in=lives).values_list(
                "interface", "life_id", "name"
            )
        }
        renamed: dict[int, Any] = {**lives, **names}

        def rows(model: Any, **of: Any) -> list[Any]:
            left_out = {"id", "recorded_at", "pk"}
            return sorted(
                [
                    sorted(
                        (name, renamed.get(value, value) if name in _NUMBERS else value)
                        for name, value in row.items()
                        if name not in left_out
                    )
                    for row in model.objects.filter(**of).values()
                ],
                key=repr,
            )

        by_life: dict[str, Any] = {"life__in": lives}
        return {
            "usage": rows(UsageRecord, **by_life),
            "network": rows(NetworkUsageRecord, interface__in=names),
            "storage": rows(StorageUsageRecord, **by_life),
            "gaps": rows(Gap, **by_life),
            "resets": rows(CounterReset, **by_life),
            "late": rows(LateUsage, **by_life),
            "life readings": rows(LifeReading, **by_life),
            "interface readings": rows(InterfaceReading, **by_life),
            "storage readings": rows(StorageReading, **by_life),
        }


_NUMBERS = {"life_id", "interface_id", "interface", "series"}


def batch_of(life: int, sample: Taken) -> Batch:
    """Return a batch of one sample."""
    at_ms = START_MS + sample.at_ms
    row = np.zeros(1, SAMPLE)
    row["life"], row["read_ms"], row["known"] = life, at_ms, int(sample.known)
    row["state"] = sample.state
    is_stop = sample.state is State.STOPPED
    row["event"] = Event.STOPPED if is_stop else Event.PERIODIC
    for name in ("cpu_ns", "memory_bytes", "disk_read_bytes"):
        row[name] = getattr(sample, name) or 0
    row["cpu_limit_micro"], row["memory_limit_bytes"], row["gpu_count"] = sample.limits or (0, 0, 0)
    interfaces = np.array(
        [
            (interface_id(life, name), life, at_ms, rx, tx, name.encode())
            for name, (rx, tx) in sample.interfaces.items()
        ],
        INTERFACE_SAMPLE,
    )
    has_storage = sample.storage_bytes is not None or sample.is_gone
    storage = np.zeros(1 if has_storage else 0, STORAGE_SAMPLE)
    storage["life"], storage["read_ms"] = life, at_ms
    storage["layer_bytes"] = sample.storage_bytes or 0
    storage["is_gone"] = sample.is_gone
    return Batch(
        collected_ms=at_ms,
        interval_ms=sample.interval_s * 1000,
        samples=row,
        interfaces=interfaces,
        storage=storage,
        storage_interval_ms=300_000,
        missed=sample.missed,
    )


def dice(seed: int) -> Random:
    return Random(seed)  # noqa: S311 - a test's dice


def random_samples(random: Random, *, count: int, lasting_ms: int) -> list[Taken]:
    """Return samples of a life with everything that may happen to one, in order of time."""
    times = sorted(random.sample(range(1, lasting_ms), count))
    cpu = disk = rx = tx = 0
    samples = []
    for number, at_ms in enumerate(times):
        cpu += random.randrange(10**9)
        disk += random.randrange(10**6)
        rx, tx = rx + random.randrange(10**5), tx + random.randrange(10**5)
        if random.random() < 0.05:
            cpu = random.randrange(10**6)
        if random.random() < 0.03:
            rx = 0
        is_stop = number == count - 1 and random.random() < 0.5
        has_figures = random.random() < 0.9 and not (is_stop and random.random() < 0.5)
        has_limits = random.random() < 0.2
        samples.append(
            Taken(
                at_ms=at_ms,
                cpu_ns=cpu if has_figures else None,
                memory_bytes=random.randrange(10**9) if random.random() < 0.9 else None,
                disk_read_bytes=disk if has_figures and random.random() < 0.8 else None,
                limits=(random.randrange(10**7), random.randrange(10**9), 1)
                if has_limits
                else None,
                state=State.STOPPED
                if is_stop
                else random.choice([State.RUNNING, State.RUNNING, State.PAUSED]),
                interfaces={"eth0": (rx, tx)} if has_figures else {},
                storage_bytes=random.randrange(10**9) if random.random() < 0.2 else None,
                is_gone=is_stop and random.random() < 0.5,
                missed=random.choice(list(Missed)[:4]) if random.random() < 0.2 else Missed(0),
                interval_s=random.choice([2, 60, 200]),
            )
        )
    return samples


def without(random: Random, samples: Sequence[Taken], share: float) -> list[Taken]:
    """Return samples some of which were lost; the first and the last were not."""
    middle = [sample for sample in samples[1:-1] if random.random() >= share]
    return [samples[0], *middle, samples[-1]]
