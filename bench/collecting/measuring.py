"""How the parts measure: passes as fast as they go, and passes every two seconds."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.collecting.report import Part
from metering.source import Reading, SourceError

INTERVAL_S = 2
FEWEST_PASSES = 3
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")

Read = Callable[[], Sequence[Reading]]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    groups: int = 5_000
    containers: int = 50
    scripted: int = 1_000
    throughput_s: float = 3
    intervals: int = 8
    idle_s: float = 3


QUICK = Plan(groups=500, containers=10, scripted=200, throughput_s=1, intervals=2, idle_s=1)


@dataclass(frozen=True, slots=True)
class Cost:
    """The median cost of one pass, and how long the fastest took."""

    wall_s: float
    cpu_s: float
    fastest_s: float


def pass_cost(run: Callable[[], object], *, throughput_s: float) -> Cost:
    """Return what one call costs. The first is not counted: it opens and learns."""
    run()
    walls: list[float] = []
    cpus: list[float] = []
    end_at = time.monotonic() + throughput_s
    while len(walls) < FEWEST_PASSES or time.monotonic() < end_at:
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return Cost(statistics.median(walls), statistics.median(cpus), min(walls))


def add_throughput(part: Part, name: str, cost: Cost, count: int) -> None:
    """Keep the figures of one way to read so many containers as fast as it goes."""
    part.add(f"{name}: read", count / cost.wall_s, "containers/s")
    part.add(f"{name}: read by the fastest pass", count / cost.fastest_s, "containers/s")
    part.add(f"{name}: read in a second of cpu", count / cost.cpu_s, "containers")
    part.add(f"{name}: cpu of one container", cost.cpu_s / count * 1e6, "µs")


@dataclass(frozen=True, slots=True)
class Steady:
    """What passes every two seconds cost: shares of one core, and servers' cpu of a reading."""

    cpu_share: float
    servers_cpu_s: float
    readings: int


def measure_intervals(
    part: Part, prefix: str, read: Read, *, count: int, intervals: int, servers: Sequence[int] = ()
) -> Steady:
    """Read all of them at absolute times, and see how far apart the readings of each are.

    `servers` are processes whose cpu is measured meanwhile.
    """
    previous: dict[str, int] = {}
    errors_ms: list[int] = []
    late_ms: list[float] = []
    busy_ns = readings = 0
    # What nobody reads any more must not count as the loop's work.
    read()
    start, start_cpu, servers_cpu = time.monotonic(), time.process_time(), cpu_s(servers)
    for tick in range(intervals + 1):
        deadline = start + tick * INTERVAL_S
        time.sleep(max(0.0, deadline - time.monotonic()))
        late_ms.append((time.monotonic() - deadline) * 1000)
        found = {reading.container_id: reading for reading in _read_or_nothing(read)}
        readings += len(found)
        for container_id, reading in found.items():
            before = previous.get(container_id)
            if before is not None:
                errors_ms.append(abs(reading.read_ms - before - INTERVAL_S * 1000))
            previous[container_id] = reading.read_ms
            busy_ns = max(busy_ns, reading.cpu_ns or 0)
    # The last pass has an interval of its own, in which nothing more would have happened.
    took_s = max(time.monotonic() - start, (intervals + 1) * INTERVAL_S)
    steady = Steady(
        (time.process_time() - start_cpu) / took_s, cpu_s(servers) - servers_cpu, readings
    )
    part.add(f"{prefix}: passes", intervals + 1, "passes")
    part.add(f"{prefix}: readings missed", (intervals + 1) * count - readings, "readings")
    add_errors(part, prefix, errors_ms)
    part.add(f"{prefix}: a pass begins late, at most", max(late_ms), "ms")
    part.add(f"{prefix}: cpu of the busiest container", busy_ns / 1e9, "s")
    part.ratios[f"{prefix}: the collector's share of one core"] = steady.cpu_share
    return steady


def add_errors(part: Part, prefix: str, errors_ms: Sequence[int]) -> None:
    """Keep how far the intervals between readings were from two seconds."""
    part.add(f"{prefix}: intervals measured", len(errors_ms), "intervals")
    part.add(f"{prefix}: interval error p50", quantile(errors_ms, 50), "ms")
    part.add(f"{prefix}: interval error p99", quantile(errors_ms, 99), "ms")


def _read_or_nothing(read: Read) -> Sequence[Reading]:
    """Return the readings; none, which are counted as missed, when the source gave none."""
    try:
        return read()
    except SourceError as error:
        print(f"A pass failed: {error}")
        return ()


def quantile(values: Sequence[int], percent: int) -> float:
    """Return the value that so many percent do not exceed."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def cpu_s(pids: Sequence[int]) -> float:
    """Return the cpu seconds of these processes, without their children's."""
    return sum(sum(map(int, _stat(pid)[11:13])) for pid in pids) / _TICKS_A_SECOND


def _stat(pid: int) -> list[str]:
    # The second field is the program's name, which may hold spaces.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
