"""What the look-alike's containers do, and what the engine remembers of it."""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from metering.source import ACCOUNT_LABEL, SANDBOX_LABEL
from tests.lookalike import answers
from tests.lookalike.containers import Counters, Load, Scripted

RING_ENTRIES = 256
_KILLED = 128 + 9
_BRIDGE = "b" * 64


class ScriptedEngine:
    """Containers that do what a test tells them to, in real time. Any thread may call."""

    def __init__(self, now_ns: Callable[[], int] = time.time_ns) -> None:
        self.containers: dict[str, Scripted] = {}
        self.volume_bytes: dict[str, int] = {}
        self.ring: deque[dict[str, Any]] = deque(maxlen=RING_ENTRIES)
        self.listeners: list[Callable[[dict[str, Any]], None]] = []
        self.lock = threading.RLock()
        self._clock = now_ns
        self._last_event_ns = 0
        self._numbers = itertools.count(1)
        self._salt = uuid4().hex

    def now_ns(self) -> int:
        """Return the time in whole milliseconds."""
        return answers.whole_ms(self._clock())

    def add(
        self,
        sandbox_id: str | None,
        account_id: object = "",
        load: Load | None = None,
        *,
        labels: dict[str, str] | None = None,
        **more: Any,
    ) -> str:
        """Create a container and start it; return its id. Without a sandbox id it has no label."""
        with self.lock:
            number = next(self._numbers)
            ours = {SANDBOX_LABEL: sandbox_id, ACCOUNT_LABEL: str(account_id)} if sandbox_id else {}
            container = Scripted(
                container_id=hashlib.sha256(f"{self._salt}{number}".encode()).hexdigest(),
                name=more.pop("name", f"container_{number}"),
                labels=ours | (labels or {}),
                created_ns=self.now_ns(),
                pid=10_000 + number,
                load=load or Load(),
                **more,
            )
            self.containers[container.container_id] = container
            self._tell(container, "create")
            self.start(container.container_id)
            return container.container_id

    def counters(self, container_id: str, at_ms: int) -> Counters:
        """Return the exact totals at a time not before the container's last change."""
        with self.lock:
            return self.containers[container_id].counters(at_ms * 10**6)

    def start(self, container_id: str) -> None:
        """Begin a life."""
        with self.lock:
            container = self.containers[container_id]
            container.start(self.now_ns())
            self._tell_network(container, "connect")
            self._tell(container, "start")

    def stop(self, container_id: str, *, exit_code: int = _KILLED) -> None:
        """Kill it."""
        with self.lock:
            self._kill(self.containers[container_id], exit_code)
            self._tell(self.containers[container_id], "stop")

    def exit(self, container_id: str, *, exit_code: int = 0) -> None:
        """Let it end by itself."""
        with self.lock:
            self._die(self.containers[container_id], exit_code)

    def run_out_of_memory(self, container_id: str) -> None:
        """Let the kernel kill it."""
        with self.lock:
            self._tell(self.containers[container_id], "oom")
            self._die(self.containers[container_id], _KILLED)

    def restart(self, container_id: str) -> None:
        """End its life and begin another."""
        with self.lock:
            self.stop(container_id)
            self.start(container_id)
            self._tell(self.containers[container_id], "restart")

    def pause(self, container_id: str) -> None:
        """Freeze it: it keeps its memory and uses nothing else."""
        with self.lock:
            self.containers[container_id].pause(self.now_ns())
            self._tell(self.containers[container_id], "pause")

    def unpause(self, container_id: str) -> None:
        """Let it go on."""
        with self.lock:
            self.containers[container_id].unpause(self.now_ns())
            self._tell(self.containers[container_id], "unpause")

    def update(
        self,
        container_id: str,
        *,
        nano_cpus: int | None = None,
        memory_limit_bytes: int | None = None,
    ) -> None:
        """Change its limits, as `docker update` does."""
        with self.lock:
            container = self.containers[container_id]
            if nano_cpus is not None:
                container.nano_cpus = nano_cpus
            if memory_limit_bytes is not None:
                container.memory_limit_bytes = memory_limit_bytes
            self._tell(container, "update")

    def rename(self, container_id: str, name: str) -> None:
        """Give it another name."""
        with self.lock:
            container = self.containers[container_id]
            before, container.name = container.name, name
            self._tell(container, "rename", oldName=f"/{before}")

    def remove(self, container_id: str) -> None:
        """Remove it, and kill it first when it runs."""
        with self.lock:
            container = self.containers[container_id]
            if container.is_running:
                self._kill(container, _KILLED)
            del self.containers[container_id]
            self._tell(container, "destroy")

    def change_load(self, container_id: str, load: Load) -> None:
        """Let it use this from now on. Nobody is told: no engine knows."""
        with self.lock:
            self.containers[container_id].change_load(load, self.now_ns())

    def reset_counters(self, container_id: str) -> None:
        """Let the kernel's counters fall to zero inside a life."""
        with self.lock:
            self.containers[container_id].reset_counters(self.now_ns())

    def forget_events(self) -> None:
        """Lose what is remembered, as an engine does that is started anew."""
        with self.lock:
            self.ring.clear()

    def _kill(self, container: Scripted, exit_code: int) -> None:
        self._tell(container, "kill", signal="9")
        self._die(container, exit_code)

    def _die(self, container: Scripted, exit_code: int) -> None:
        container.end(self.now_ns(), exit_code=exit_code)
        self._tell(container, "die", exitCode=str(exit_code))
        self._tell_network(container, "disconnect")

    def _tell(self, container: Scripted, action: str, **more: str) -> None:
        attributes = {"image": "busybox", "name": container.name, **more, **container.labels}
        self._remember("container", action, container.container_id, attributes)

    def _tell_network(self, container: Scripted, action: str) -> None:
        attributes = {"container": container.container_id, "name": "bridge", "type": "bridge"}
        self._remember("network", action, _BRIDGE, attributes)

    def _remember(self, kind: str, action: str, subject: str, attributes: dict[str, str]) -> None:
        # A little after what it tells of, and no two at once, as the real one's are.
        self._last_event_ns = max(self.now_ns(), self._last_event_ns + 1)
        event = answers.event(kind, action, subject, self._last_event_ns, attributes)
        self.ring.append(event)
        for listen in self.listeners:
            listen(event)
