"""Lives whose samples a test writes itself, through the real stream and fold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import numpy as np

from metering import stream
from metering.aggregator import aggregate_host
from metering.models import Life, LifeReading, Sandbox
from metering.period import to_ms
from metering.readings import Allocation, new_life_reading
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

MORNING = datetime(2026, 11, 2, 10, 7, tzinfo=UTC)
ALL_KNOWN = ~Known(0)
NOTHING = Known(0)
HOLD = timedelta(minutes=5)


class Host:
    """A host of lives of any number of accounts, whose readings are told one by one."""

    def __init__(self, *, registered_at: datetime = MORNING - timedelta(days=30)) -> None:
        self.host_id: UUID = uuid4()
        self.registered_at = registered_at
        self.host = register_host(
            host_id=self.host_id,
            name=f"host-{self.host_id}",
            endpoint="simulator:",
            now=registered_at,
        )

    def account(self, time_zone: str = "UTC") -> UUID:
        account_id = uuid4()
        register_account(
            account_id=account_id, time_zone=time_zone, registered_at=self.registered_at
        )
        return account_id

    def start(
        self, account_id: UUID, sandbox_id: str, at: datetime, *, counts_from_zero: bool = True
    ) -> int:
        """Begin a life and return its number."""
        sandbox, _ = Sandbox.objects.get_or_create(
            account_id=account_id, sandbox_id=sandbox_id, defaults={"recorded_at": at}
        )
        key = f"{uuid4().hex}/{to_ms(at)}"
        number = life_id(str(self.host_id), key)
        life = Life.objects.create(
            id=number,
            sandbox=sandbox,
            host=self.host,
            key=key,
            container_id=key[:32],
            started_ns=to_ms(at) * 10**6,
            started_at=at,
            counts_from_zero=counts_from_zero,
            recorded_at=at,
        )
        reading = new_life_reading(
            number,
            started_ms=to_ms(at),
            counts_from_zero=counts_from_zero,
            allocation=Allocation(2 * 10**6, 2**30, 1),
        )[0]
        names = [name for name in reading.dtype.names or () if name != "life"]
        LifeReading.objects.create(life=life, **{name: int(reading[name]) for name in names})
        return number

    def read(  # one argument a figure
        self,
        life: int,
        at: datetime,
        *,
        cpu_ns: int = 0,
        memory_bytes: int = 2**20,
        disk_bytes: int = 0,
        network: dict[str, tuple[int, int]] | None = None,
        storage_bytes: int | None = None,
        is_gone: bool = False,
        state: State = State.RUNNING,
        known: Known = ALL_KNOWN,
        missed: Missed = Missed.UNEXPLAINED,
    ) -> None:
        """Put one reading of a life into the stream; (rx, tx) of each interface."""
        sample = np.zeros(1, SAMPLE)
        figures: dict[str, Any] = {
            "life": life,
            "read_ms": to_ms(at),
            "cpu_ns": cpu_ns,
            "memory_bytes": memory_bytes,
            "disk_read_bytes": disk_bytes,
            "disk_write_bytes": 2 * disk_bytes,
            "cpu_limit_micro": 2 * 10**6,
            "memory_limit_bytes": 2**30,
            "gpu_count": 1,
            "known": int(known),
            "state": state,
            "event": Event.STOPPED if state is State.STOPPED else Event.PERIODIC,
        }
        for name, figure in figures.items():
            sample[name] = figure
        interfaces = np.zeros(len(network or {}), INTERFACE_SAMPLE)
        for row, (name, (rx, tx)) in zip(interfaces, (network or {}).items(), strict=True):
            row["interface"], row["life"] = interface_id(life, name), life
            row["read_ms"], row["name"] = to_ms(at), name
            row["rx_bytes"], row["tx_bytes"] = rx, tx
        storage = np.zeros(int(storage_bytes is not None or is_gone), STORAGE_SAMPLE)
        if len(storage):
            storage["life"], storage["read_ms"] = life, to_ms(at)
            storage["layer_bytes"], storage["is_gone"] = storage_bytes or 0, is_gone
        stream.append(
            self.host_id,
            Batch(
                collected_ms=to_ms(at),
                interval_ms=int(HOLD.total_seconds()) * 1000 // 5,
                samples=sample,
                interfaces=interfaces,
                storage=storage,
                storage_interval_ms=int(HOLD.total_seconds()) * 1000 // 5,
                missed=missed,
            ),
        )

    def stop(self, life: int, at: datetime, *, known: Known = NOTHING, **figures: Any) -> None:
        """End a life, by default with no figures."""
        self.read(life, at, state=State.STOPPED, known=known, **figures)
        Life.objects.filter(pk=life).update(ended_at=at)

    def fold(self, now: datetime) -> int:
        return aggregate_host(self.host_id, now=now)

    def run(self, life: int, start: datetime, end: datetime, *, cpu_ns_per_s: int = 10**9) -> None:
        """Read a life every four minutes from `start` to `end`, as if it used all evenly."""
        at = start
        begun = start
        while at < end:
            at = min(at + timedelta(minutes=4), end)
            seconds = int((at - begun).total_seconds())
            self.read(
                life,
                at,
                cpu_ns=cpu_ns_per_s * seconds,
                disk_bytes=3 * seconds,
                network={"eth0": (7 * seconds, 11 * seconds), "eth1": (seconds, 0)},
                storage_bytes=2**20,
            )
