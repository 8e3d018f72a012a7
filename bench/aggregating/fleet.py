"""Sandboxes of one host, recorded as a pass would record them, and what is read of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import numpy as np
import numpy.typing as npt

from metering.models import Life, LifeReading, Sandbox
from metering.period import to_ms
from metering.readings import new_life_reading
from metering.samples import (
    INTERFACE_SAMPLE,
    SAMPLE,
    Batch,
    Event,
    Known,
    State,
    interface_id,
    life_id,
)
from metering.services import register_account, register_host

SANDBOXES_AN_ACCOUNT = 100
INTERVAL_MS = 2_000
ROWS_AN_INSERT = 5_000
MEMORY_LIMIT_BYTES = 2**31
CPU_LIMIT_MICRO = 2 * 10**6
# The share of readings that lack disk figures, as right after a container's start.
DISK_UNKNOWN = 0.02

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Totals:
    """What all sandboxes together used since their first reading."""

    cpu_ns: int
    memory_byte_ms: int
    rx_bytes: int
    tx_bytes: int


@dataclass(frozen=True, slots=True)
class Fleet:
    """A host and the lives on it."""

    host_id: UUID
    lives: Ints


def record_fleet(sandboxes: int, *, now: datetime) -> Fleet:
    """Record a host with so many running sandboxes, 100 an account."""
    host_id, started_at = uuid4(), now - timedelta(days=1)
    register_host(host_id=host_id, name=f"{sandboxes} sandboxes", endpoint="simulator:", now=now)
    accounts = [uuid4() for _ in range(-(-sandboxes // SANDBOXES_AN_ACCOUNT))]
    for account_id in accounts:
        register_account(account_id=account_id, time_zone="UTC", registered_at=now)
    recorded = Sandbox.objects.bulk_create(
        [
            Sandbox(
                account_id=accounts[number // SANDBOXES_AN_ACCOUNT],
                sandbox_id=f"sandbox-{number}",
                recorded_at=now,
            )
            for number in range(sandboxes)
        ],
        batch_size=ROWS_AN_INSERT,
    )
    keys = [f"{number:064x}/{to_ms(started_at)}000000" for number in range(sandboxes)]
    lives = [life_id(str(host_id), key) for key in keys]
    Life.objects.bulk_create(
        [
            Life(
                id=life,
                sandbox=sandbox,
                host_id=host_id,
                key=key,
                container_id=key.partition("/")[0],
                started_ns=to_ms(started_at) * 1_000_000,
                started_at=started_at,
                counts_from_zero=False,
                memory_limit_bytes=MEMORY_LIMIT_BYTES,
                recorded_at=now,
            )
            for life, sandbox, key in zip(lives, recorded, keys, strict=True)
        ],
        batch_size=ROWS_AN_INSERT,
    )
    LifeReading.objects.bulk_create(map(_first_reading, lives), batch_size=ROWS_AN_INSERT)
    return Fleet(host_id, np.array(lives, np.int64))


def _first_reading(life: int) -> LifeReading:
    reading = new_life_reading(life, started_ms=0, counts_from_zero=False)
    values = dict(zip(reading.dtype.names or (), reading[0].tolist(), strict=True))
    return LifeReading(life_id=values.pop("life"), **values)


class Readings:
    """The batches that passes over a fleet give, one every two seconds, and what they add up to.

    Counters grow by a different amount each time, working sets change, reading times waver by
    some milliseconds, and some readings have no disk figures.
    """

    def __init__(self, fleet: Fleet, *, start: datetime) -> None:
        count = len(fleet.lives)
        self._random = np.random.default_rng(count)
        self._lives = fleet.lives
        self._interfaces = np.array([interface_id(int(life), "eth0") for life in fleet.lives])
        self._collected_ms = to_ms(start)
        self._offset_ms = self._random.integers(0, 300, count)
        # Of a core, from idle to busy.
        self._cpu_share = self._random.random(count) ** 3
        self._memory_bytes = self._random.integers(2**26, 2**30, count)
        self._counters = {
            name: self._random.integers(0, 10**9, count)
            for name in ("cpu_ns", "disk_read_bytes", "disk_write_bytes", "rx_bytes", "tx_bytes")
        }
        self._first: dict[str, Ints] = {}
        self._before: Batch | None = None
        self._memory_byte_ms = np.zeros(count, np.int64)

    def go_on_at(self, moment: datetime) -> None:
        """Let the next pass begin then."""
        self._collected_ms = to_ms(moment)

    def next_batch(self) -> Batch:
        """Return what the next pass reads."""
        self._grow()
        count = len(self._lives)
        samples = np.zeros(count, SAMPLE)
        samples["life"] = self._lives
        samples["read_ms"] = (
            self._collected_ms + self._offset_ms + self._random.integers(0, 20, count)
        )
        for name in ("cpu_ns", "disk_read_bytes", "disk_write_bytes"):
            samples[name] = self._counters[name]
        samples["memory_bytes"] = self._memory_bytes + self._random.integers(0, 2**22, count)
        samples["memory_limit_bytes"] = MEMORY_LIMIT_BYTES
        samples["cpu_limit_micro"] = CPU_LIMIT_MICRO
        samples["known"] = ~Known(0)
        samples["state"] = State.RUNNING
        samples["event"] = Event.PERIODIC
        without_disk = self._random.random(count) < DISK_UNKNOWN
        samples["known"][without_disk] = ~(Known.DISK_READ | Known.DISK_WRITE)
        for name in ("disk_read_bytes", "disk_write_bytes"):
            samples[name][without_disk] = 0

        interfaces = np.zeros(count, INTERFACE_SAMPLE)
        interfaces["interface"] = self._interfaces
        interfaces["life"] = self._lives
        interfaces["read_ms"] = samples["read_ms"]
        interfaces["rx_bytes"] = self._counters["rx_bytes"]
        interfaces["tx_bytes"] = self._counters["tx_bytes"]
        interfaces["name"] = b"eth0"
        batch = Batch(
            collected_ms=self._collected_ms,
            interval_ms=INTERVAL_MS,
            samples=samples,
            interfaces=interfaces,
        )
        self._count(batch)
        self._collected_ms += INTERVAL_MS
        return batch

    def totals(self) -> Totals:
        """Return what all batches so far add up to, in Python's integers."""
        grown = {name: sum((self._counters[name] - self._first[name]).tolist()) for name in _GROWN}
        return Totals(memory_byte_ms=sum(self._memory_byte_ms.tolist()), **grown)

    def _grow(self) -> None:
        count = len(self._lives)
        busy_ns = self._random.integers(0, INTERVAL_MS * 1_000_000, count)
        self._counters["cpu_ns"] += (busy_ns * self._cpu_share).astype(np.int64)
        for name, most in (("disk_read_bytes", 2**16), ("disk_write_bytes", 2**18)):
            self._counters[name] += self._random.integers(0, most, count)
        for name in ("rx_bytes", "tx_bytes"):
            self._counters[name] += self._random.integers(0, 2**20, count)
        if not self._first:
            self._first = {name: values.copy() for name, values in self._counters.items()}

    def _count(self, batch: Batch) -> None:
        # No two readings here are further apart than memory is held.
        if self._before is not None:
            before = self._before.samples
            self._memory_byte_ms += before["memory_bytes"] * (
                batch.samples["read_ms"] - before["read_ms"]
            )
        self._before = batch


_GROWN = ("cpu_ns", "rx_bytes", "tx_bytes")
