"""A container whose usage is known in closed form: rates × the milliseconds it ran."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MS_NS = 10**6


@dataclass(frozen=True, slots=True)
class Load:
    """What a container uses: rates in whole units a millisecond of running, and gauges."""

    cpu_ns_per_ms: int = 0
    memory_bytes: int = 0
    page_cache_bytes: int = 0
    disk_read_bytes_per_ms: int = 0
    disk_write_bytes_per_ms: int = 0
    # Received and sent, by interface.
    network_bytes_per_ms: Mapping[str, tuple[int, int]] = field(
        default_factory=lambda: {"eth0": (0, 0)}
    )
    layer_bytes: int = 0


@dataclass(slots=True)
class Counters:
    """Totals since the life began, or since they were reset."""

    cpu_ns: int = 0
    disk_read_bytes: int = 0
    disk_write_bytes: int = 0
    network_bytes: dict[str, tuple[int, int]] = field(default_factory=dict)

    def after(self, load: Load, ms: int) -> Counters:
        """Return the totals after so many more milliseconds of a load."""
        return Counters(
            self.cpu_ns + load.cpu_ns_per_ms * ms,
            self.disk_read_bytes + load.disk_read_bytes_per_ms * ms,
            self.disk_write_bytes + load.disk_write_bytes_per_ms * ms,
            {
                name: (was[0] + rx * ms, was[1] + tx * ms)
                for name, (rx, tx) in load.network_bytes_per_ms.items()
                for was in [self.network_bytes.get(name, (0, 0))]
            },
        )


@dataclass(slots=True)
class Scripted:
    """One container. Times are whole milliseconds in ns since 1970, so every total is exact."""

    container_id: str
    name: str
    labels: dict[str, str]
    created_ns: int
    pid: int
    load: Load
    nano_cpus: int = 0
    memory_limit_bytes: int = 0
    device_requests: list[dict[str, Any]] | None = None
    network_mode: str = "default"
    volumes: Sequence[str] = ()
    status: str = "created"
    exit_code: int = 0
    started_ns: int | None = None
    finished_ns: int | None = None
    _until_then: Counters = field(default_factory=Counters)
    # Since when it has been using what its load says; None while it does not run.
    _since_ns: int | None = None

    @property
    def is_running(self) -> bool:
        """Whether it has processes, paused ones too."""
        return self.status in {"running", "paused"}

    def counters(self, now_ns: int) -> Counters:
        """Return its totals at a time that is not before the last change."""
        if self._since_ns is None:
            return self._until_then
        return self._until_then.after(self.load, (now_ns - self._since_ns) // MS_NS)

    def start(self, now_ns: int) -> None:
        """Begin a life: every counter is zero."""
        self.status, self.exit_code = "running", 0
        self.started_ns, self._since_ns = now_ns, now_ns
        self._until_then = Counters()

    def end(self, now_ns: int, *, exit_code: int) -> None:
        """End the life."""
        self._settle(now_ns)
        self.status, self.exit_code = "exited", exit_code
        self.finished_ns, self._since_ns = now_ns, None

    def pause(self, now_ns: int) -> None:
        """Use nothing but memory from now on."""
        self._settle(now_ns)
        self.status, self._since_ns = "paused", None

    def unpause(self, now_ns: int) -> None:
        """Use what the load says again."""
        self.status, self._since_ns = "running", now_ns

    def change_load(self, load: Load, now_ns: int) -> None:
        """Use this from now on."""
        self._settle(now_ns)
        self.load = load

    def reset_counters(self, now_ns: int) -> None:
        """Forget what was counted, as a kernel does whose cgroup was made anew."""
        self._settle(now_ns)
        self._until_then = Counters()

    def _settle(self, now_ns: int) -> None:
        self._until_then = self.counters(now_ns)
        if self._since_ns is not None:
            self._since_ns = now_ns
