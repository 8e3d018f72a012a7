"""A fleet whose usage is known in closed form: for demos and tests, where no engine is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

from metering.meters import GB, Meter
from metering.period import Period, to_ms
from metering.samples import State
from metering.source import (
    ACCOUNT_LABEL,
    SANDBOX_LABEL,
    Change,
    Container,
    Listed,
    Reading,
    SourceError,
)

SCHEME = "simulator:"
_MS_NS = 10**6
_INTERFACE = "eth0"


@dataclass(frozen=True, slots=True)
class SimulatedSandbox:
    """One container that uses everything at a constant rate, from its start to its end.

    Rates are whole numbers a millisecond, so that every total is an exact integer.
    """

    container_id: str
    sandbox_id: str
    account_id: str
    started_at: datetime
    ended_at: datetime | None = None
    cpu_ns_per_ms: int = 0
    memory_bytes: int = 0
    tx_bytes_per_ms: int = 0
    rx_bytes_per_ms: int = 0
    disk_write_bytes_per_ms: int = 0

    def alive_ms(self, period: Period) -> int:
        """Return the milliseconds of `period` in which it ran."""
        start = max(self.started_at, period.start)
        end = min(self.ended_at or period.end, period.end)
        return max(to_ms(end) - to_ms(start), 0)

    def usage(self, period: Period) -> dict[Meter, int]:
        """Return what it uses in `period`, in base units: rate × time."""
        ms = self.alive_ms(period)
        return {
            Meter.CPU: self.cpu_ns_per_ms * ms,
            Meter.MEMORY: self.memory_bytes * ms,
            Meter.NETWORK_EGRESS: self.tx_bytes_per_ms * ms,
            Meter.NETWORK_INGRESS: self.rx_bytes_per_ms * ms,
            Meter.DISK_WRITE: self.disk_write_bytes_per_ms * ms,
        }


@dataclass(slots=True)
class Simulator:
    """A host of simulated sandboxes. `clock` gives the time that is now, virtual or real."""

    sandboxes: Sequence[SimulatedSandbox]
    clock: Callable[[], datetime]
    _by_id: dict[str, SimulatedSandbox] = field(init=False)

    def __post_init__(self) -> None:
        self._by_id = {sandbox.container_id: sandbox for sandbox in self.sandboxes}

    def list_containers(self) -> list[Listed]:
        """Return every sandbox that has started by now."""
        now = self.clock()
        return [
            Listed(sandbox.container_id, _state(sandbox, now))
            for sandbox in self.sandboxes
            if sandbox.started_at <= now
        ]

    def engine_id(self) -> str:
        """Return nothing: a simulator is whatever it is set up to be."""
        return ""

    def changes_between(self, start: datetime, end: datetime) -> dict[str, Change]:
        """Return the sandboxes that started or ended in `[start, end)`, and when."""
        changes: dict[str, Change] = {}
        for sandbox in self.sandboxes:
            if start <= sandbox.started_at < end:
                changes[sandbox.container_id] = Change(_ns(sandbox.started_at), None)
            if sandbox.ended_at is not None and start <= sandbox.ended_at < end:
                ended_ns = _ns(sandbox.ended_at)
                changes[sandbox.container_id] = Change(ended_ns, ended_ns)
        return changes

    def inspect(self, container_ids: Sequence[str]) -> list[Container]:
        """Return these sandboxes as containers."""
        now = self.clock()
        return [
            _container(self._by_id[container_id], now)
            for container_id in container_ids
            if container_id in self._by_id
        ]

    def read(self, container_ids: Sequence[str]) -> list[Reading]:
        """Return a reading, now, of each sandbox that runs."""
        now = self.clock()
        return [
            _reading(self._by_id[container_id], now)
            for container_id in container_ids
            if _state(self._by_id[container_id], now) is State.RUNNING
        ]


def fleet_of(endpoint: str, *, started_at: datetime) -> Simulator:
    """Return the small running fleet of `simulator:?account=UUID`. Raises SourceError."""
    accounts = parse_qs(urlsplit(endpoint).query).get("account")
    if not accounts:
        raise SourceError(f"{endpoint!r} names no account. Use simulator:?account=UUID.")
    sandboxes = [
        SimulatedSandbox(
            container_id=f"{account}-{number}",
            sandbox_id=f"simulated-{number}",
            account_id=account,
            started_at=started_at,
            cpu_ns_per_ms=number * 250_000,
            memory_bytes=number * GB // 4,
            tx_bytes_per_ms=number * 10,
            rx_bytes_per_ms=number * 40,
            disk_write_bytes_per_ms=number * 100,
        )
        for account in accounts
        for number in range(1, 5)
    ]
    return Simulator(sandboxes, clock=lambda: datetime.now(UTC))


def _ns(moment: datetime) -> int:
    return to_ms(moment) * _MS_NS


def _state(sandbox: SimulatedSandbox, now: datetime) -> State:
    ended = sandbox.ended_at is not None and sandbox.ended_at <= now
    return State.STOPPED if ended else State.RUNNING


def _container(sandbox: SimulatedSandbox, now: datetime) -> Container:
    state = _state(sandbox, now)
    ended_at = sandbox.ended_at if state is State.STOPPED else None
    return Container(
        container_id=sandbox.container_id,
        labels={
            SANDBOX_LABEL: sandbox.sandbox_id,
            ACCOUNT_LABEL: sandbox.account_id,
        },
        state=state,
        started_ns=_ns(sandbox.started_at),
        finished_ns=_ns(ended_at) if ended_at else None,
    )


def _reading(sandbox: SimulatedSandbox, now: datetime) -> Reading:
    ms = to_ms(now) - to_ms(sandbox.started_at)
    return Reading(
        container_id=sandbox.container_id,
        read_ms=to_ms(now),
        cpu_ns=sandbox.cpu_ns_per_ms * ms,
        memory_bytes=sandbox.memory_bytes,
        disk_read_bytes=0,
        disk_write_bytes=sandbox.disk_write_bytes_per_ms * ms,
        interfaces={_INTERFACE: (sandbox.rx_bytes_per_ms * ms, sandbox.tx_bytes_per_ms * ms)},
    )
