"""A fleet whose usage is known in closed form: for demos and tests, where no engine is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

from metering.meters import GB, Meter
from metering.period import MILLISECOND, Period, to_ms
from metering.samples import State
from metering.source import (
    ACCOUNT_LABEL,
    LABEL_PREFIX,
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

SCHEME = "simulator:"
_MS_NS = 10**6
_INTERFACE = "eth0"
SIZES = 4
MOST_SANDBOXES = 10_000
"""Of an account."""
OFFER = Offer(cpu_micro=8 * 10**6, memory_bytes=32 * GB, gpu_count=2)


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
    storage_bytes: int = 0
    cpu_limit_micro: int | None = None
    memory_limit_bytes: int | None = None
    gpu_count: int = 0
    # It does nothing in between, and counts nothing but what it holds.
    paused: tuple[datetime, datetime] | None = None
    # The container goes then; None: it stays when it has ended.
    removed_at: datetime | None = None
    # The account's own, by name.
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)

    def alive_ms(self, period: Period) -> int:
        """Return the milliseconds of `period` in which it ran."""
        start = max(self.started_at, period.start)
        end = min(self.ended_at or period.end, period.end)
        return max(to_ms(end) - to_ms(start), 0)

    def paused_ms(self, period: Period) -> int:
        """Return the milliseconds of `period` in which it was paused."""
        if self.paused is None:
            return 0
        start, end = self.paused
        shared = min(end, period.end) - max(start, period.start)
        return max(shared // MILLISECOND, 0)

    def usage(self, period: Period) -> dict[Meter, int]:
        """Return what it uses in `period` while it lives, in base units: rate × time."""
        alive_ms = self.alive_ms(period)
        busy_ms = alive_ms - self.paused_ms(period)
        return {
            Meter.CPU: self.cpu_ns_per_ms * busy_ms,
            Meter.MEMORY: self.memory_bytes * alive_ms,
            Meter.NETWORK_EGRESS: self.tx_bytes_per_ms * busy_ms,
            Meter.NETWORK_INGRESS: self.rx_bytes_per_ms * busy_ms,
            Meter.DISK_WRITE: self.disk_write_bytes_per_ms * busy_ms,
            Meter.GPU: self.gpu_count * alive_ms,
            Meter.CPU_ALLOCATED: (self.cpu_limit_micro or OFFER.cpu_micro) * busy_ms,
            Meter.MEMORY_ALLOCATED: (self.memory_limit_bytes or OFFER.memory_bytes) * alive_ms,
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
            if sandbox.started_at <= now and not _is_removed(sandbox, now)
        ]

    @property
    def name(self) -> str:
        """Return what gives the figures."""
        return "simulator"

    def engine_id(self) -> str:
        """Return nothing: a simulator is whatever it is set up to be."""
        return ""

    def offer(self) -> Offer:
        """Return what a sandbox without limits may take."""
        return OFFER

    def events_between(self, start: datetime, end: datetime) -> Events:
        """Return which sandboxes started, paused, went on, ended or went in `[start, end)`."""
        happened = [
            ContainerEvent(sandbox.container_id, action, _ns(at), _labels(sandbox))
            for sandbox in self.sandboxes
            for action, at in _history(sandbox)
            if start <= at < end
        ]
        return Events(tuple(sorted(happened, key=lambda event: event.at_ns)))

    def inspect(self, container_ids: Sequence[str]) -> list[Container]:
        """Return these sandboxes as containers."""
        now = self.clock()
        return [
            _container(sandbox, now)
            for container_id in container_ids
            if (sandbox := self._by_id.get(container_id)) and not _is_removed(sandbox, now)
        ]

    def read(self, container_ids: Sequence[str]) -> list[Reading]:
        """Return a reading, now, of each sandbox that runs."""
        now = self.clock()
        return [
            _reading(self._by_id[container_id], now)
            for container_id in container_ids
            if _state(self._by_id[container_id], now) is not State.STOPPED
        ]

    def read_storage(self) -> list[StorageReading]:
        """Return what each sandbox that exists takes up now."""
        now = self.clock()
        return [
            StorageReading(sandbox.container_id, to_ms(now), sandbox.storage_bytes)
            for sandbox in self.sandboxes
            if sandbox.started_at <= now and not _is_removed(sandbox, now)
        ]


def fleet_of(endpoint: str, *, started_at: datetime) -> Simulator:
    """Return the running fleet of `simulator:?account=UUID&sandboxes=4`. Raises SourceError.

    Each account that it names has so many sandboxes, of four sizes in turn; four unless it says so.
    """
    asked = parse_qs(urlsplit(endpoint).query)
    accounts = asked.get("account")
    if not accounts:
        raise SourceError(f"{endpoint!r} names no account. Use simulator:?account=UUID.")
    [*_, count] = asked.get("sandboxes", [str(SIZES)])
    if not count.isdecimal() or not 0 < int(count) <= MOST_SANDBOXES:
        raise SourceError(f"{endpoint!r}: sandboxes is a number from 1 to {MOST_SANDBOXES:,}.")
    sandboxes = [
        _of_a_size(account, number, started_at)
        for account in accounts
        for number in range(1, int(count) + 1)
    ]
    return Simulator(sandboxes, clock=lambda: datetime.now(UTC))


def _of_a_size(account: str, number: int, started_at: datetime) -> SimulatedSandbox:
    size = (number - 1) % SIZES + 1
    return SimulatedSandbox(
        container_id=f"{account}-{number}",
        sandbox_id=f"simulated-{number}",
        account_id=account,
        started_at=started_at,
        cpu_ns_per_ms=size * 250_000,
        memory_bytes=size * GB // 4,
        tx_bytes_per_ms=size * 10,
        rx_bytes_per_ms=size * 40,
        disk_write_bytes_per_ms=size * 100,
        storage_bytes=size * GB // 8,
        cpu_limit_micro=size * 500_000,
        memory_limit_bytes=size * GB,
        gpu_count=size // 4,
    )


def _ns(moment: datetime) -> int:
    return to_ms(moment) * _MS_NS


def _history(sandbox: SimulatedSandbox) -> Iterator[tuple[Action, datetime]]:
    yield Action.START, sandbox.started_at
    if sandbox.paused:
        yield Action.PAUSE, sandbox.paused[0]
        yield Action.UNPAUSE, sandbox.paused[1]
    if sandbox.ended_at:
        yield Action.DIE, sandbox.ended_at
    if sandbox.removed_at:
        yield Action.DESTROY, sandbox.removed_at


def _state(sandbox: SimulatedSandbox, now: datetime) -> State:
    if sandbox.ended_at is not None and sandbox.ended_at <= now:
        return State.STOPPED
    is_paused = sandbox.paused is not None and sandbox.paused[0] <= now < sandbox.paused[1]
    return State.PAUSED if is_paused else State.RUNNING


def _is_removed(sandbox: SimulatedSandbox, now: datetime) -> bool:
    return sandbox.removed_at is not None and sandbox.removed_at <= now


def _labels(sandbox: SimulatedSandbox) -> dict[str, str]:
    own = {f"{LABEL_PREFIX}{name}": value for name, value in sandbox.labels.items()}
    return {SANDBOX_LABEL: sandbox.sandbox_id, ACCOUNT_LABEL: sandbox.account_id, **own}


def _container(sandbox: SimulatedSandbox, now: datetime) -> Container:
    state = _state(sandbox, now)
    ended_at = sandbox.ended_at if state is State.STOPPED else None
    return Container(
        container_id=sandbox.container_id,
        labels=_labels(sandbox),
        state=state,
        started_ns=_ns(sandbox.started_at),
        finished_ns=_ns(ended_at) if ended_at else None,
        cpu_limit_micro=sandbox.cpu_limit_micro,
        memory_limit_bytes=sandbox.memory_limit_bytes,
        gpu_count=sandbox.gpu_count,
    )


def _reading(sandbox: SimulatedSandbox, now: datetime) -> Reading:
    so_far = Period(sandbox.started_at, now) if now > sandbox.started_at else None
    ms = sandbox.alive_ms(so_far) - sandbox.paused_ms(so_far) if so_far else 0
    return Reading(
        container_id=sandbox.container_id,
        read_ms=to_ms(now),
        cpu_ns=sandbox.cpu_ns_per_ms * ms,
        memory_bytes=sandbox.memory_bytes,
        disk_read_bytes=0,
        disk_write_bytes=sandbox.disk_write_bytes_per_ms * ms,
        interfaces={_INTERFACE: (sandbox.rx_bytes_per_ms * ms, sandbox.tx_bytes_per_ms * ms)},
    )
