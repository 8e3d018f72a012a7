"""Other Python processes to measure in, and what a stretch of work cost them and the servers."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast

import django

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_RESET_PEAK = "5"

P = ParamSpec("P")
T = TypeVar("T")


class Worker:
    """A fresh Python process with Django set up, which calls functions one after another."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,))
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.close()
        self._process.join()

    def start(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> None:
        """Let it call a module's function; `result` waits for what that returns."""
        self._connection.send((function, args, kwargs))

    def result(self) -> Any:
        """Return what the function returned, or raise what it raised."""
        answer, error = self._connection.recv()
        if error is not None:
            raise error
        return answer

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what a module's function returns there."""
        self.start(function, *args, **kwargs)
        return cast("T", self.result())


def _serve(connection: Connection[Any, Any]) -> None:
    django.setup()
    while True:
        try:
            function, args, kwargs = connection.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            connection.send((function(*args, **kwargs), None))
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller raises it
            connection.send((None, error))


@dataclass(frozen=True, slots=True)
class Servers:
    """The main processes of the two servers."""

    redis: int
    postgresql: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What some work took: wall-clock and cpu seconds, and this process' resident memory."""

    samples: int
    seconds: float
    cpu_s: float
    redis_cpu_s: float
    postgresql_cpu_s: float
    rss_before_bytes: int
    rss_peak_bytes: int

    @property
    def samples_per_s(self) -> float:
        """Samples for each second of wall-clock time."""
        return self.samples / self.seconds

    @property
    def all_cpu_s(self) -> float:
        """Seconds of a core that this process and both servers took: other loads add little."""
        return self.cpu_s + self.redis_cpu_s + self.postgresql_cpu_s


def cost_of(work: Callable[[], int], servers: Servers) -> Cost:
    """Do the work, which returns its number of samples, and return what it cost."""
    Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
    rss_before = _status_bytes("VmRSS")
    redis, postgresql = _cpu_s(servers.redis), family_cpu_s(servers.postgresql)
    cpu, began = time.process_time(), time.perf_counter()
    samples = work()
    return Cost(
        samples=samples,
        seconds=time.perf_counter() - began,
        cpu_s=time.process_time() - cpu,
        redis_cpu_s=_cpu_s(servers.redis) - redis,
        postgresql_cpu_s=family_cpu_s(servers.postgresql) - postgresql,
        rss_before_bytes=rss_before,
        rss_peak_bytes=_status_bytes("VmHWM"),
    )


def _status_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise KeyError(name)


def _stat(pid: int) -> list[str]:
    # The second field is the program's name, which may hold spaces.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _cpu_s(pid: int) -> float:
    """Return the cpu seconds of a process and of its children that have ended."""
    return sum(map(int, _stat(pid)[11:15])) / _TICKS_A_SECOND


def family_cpu_s(pid: int) -> float:
    """Return the cpu seconds of a process and of all its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    total = 0.0
    for child in children:
        # One that has ended meanwhile counts as a child of its parent.
        with suppress(FileNotFoundError, ProcessLookupError):
            total += _cpu_s(int(child))
    return total + _cpu_s(pid)
