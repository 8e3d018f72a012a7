# ruff: noqa: INP001 -- a script that nobody imports; a package would be one more bench
"""What it costs to read thousands of containers.

`make bench-collection`, or with QUICK=1 a tenth of it. Each part is a function that returns its
figures, and the comparisons that can be drawn from them.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from metering.cgroup import CGROUP_ROOT, CgroupFiles  # noqa: E402 -- found by the line above

RESULTS = ROOT / "bench" / "results" / "collection.json"
QUICK = os.environ.get("QUICK") == "1"
GROUPS = 500 if QUICK else 5_000
THROUGHPUT_S = 2 if QUICK else 5
INTERVAL_S = 2
INTERVALS = 5 if QUICK else 10

HIERARCHIES = ("cpuacct", "memory", "blkio")
BUSY_PROCESSES = 4
# About a tenth of a core, and over after two minutes whatever happens to this process.
BUSY = "for i in $(seq 1200); do n=0; while [ $n -lt 5000 ]; do n=$((n+1)); done; sleep 0.1; done"
REMOVAL_S = 10
FIRST_PID = 100_000


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure, in a unit."""

    name: str
    value: float
    unit: str


@dataclass
class Part:
    """What one part measured. `skipped` says why it measured nothing."""

    name: str
    figures: list[Figure] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)
    skipped: str = ""

    def add(self, name: str, value: float, unit: str) -> None:
        """Keep a figure."""
        self.figures.append(Figure(name, value, unit))


def main() -> None:
    """Run every part, print its table, keep all figures."""
    # A kill runs the same clean-up as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parts = [measure() for measure in PARTS]
    for part in parts:
        show(part)
    save(parts)


def show(part: Part) -> None:
    """Print a part's table."""
    print(f"\n{part.name}{f': skipped, {part.skipped}' if part.skipped else ''}")
    for figure in part.figures:
        print(f"  {figure.name:<52} {figure.value:>14,.3f} {figure.unit}")
    for name, ratio in part.ratios.items():
        print(f"  {name:<52} {ratio:>14,.3f} ×")


def save(parts: Iterable[Part]) -> None:
    """Write every figure, and every comparison under `ratios`."""
    RESULTS.parent.mkdir(exist_ok=True)
    found = {
        "is_quick": QUICK,
        "machine": {
            "cpus": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
        },
        "parts": {
            part.name: {
                "skipped": part.skipped,
                "figures": {f.name: {"value": f.value, "unit": f.unit} for f in part.figures},
            }
            for part in parts
        },
        "ratios": {
            f"{part.name}: {name}": ratio for part in parts for name, ratio in part.ratios.items()
        },
    }
    RESULTS.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    print(f"\nWritten to {RESULTS.relative_to(ROOT)}.")


# The kernel's files


def cgroup_files() -> Part:
    """Read real control groups by their files: as fast as it goes, then every two seconds."""
    part = Part("cgroup v1 files")
    if missing := [name for name in HIERARCHIES if not (CGROUP_ROOT / name).is_dir()]:
        part.skipped = f"this machine has no cgroup v1 hierarchy {', '.join(missing)}"
        return part
    if not os.access(CGROUP_ROOT / "memory", os.W_OK):
        part.skipped = "this user may not make control groups"
        return part
    with control_groups(GROUPS) as (files, processes):
        part.add("control groups", len(processes), "groups")
        measure_throughput(part, files, processes)
        measure_intervals(part, files, processes)
        files.close()
    return part


def measure_throughput(part: Part, files: CgroupFiles, processes: Mapping[str, int]) -> None:
    """Read with files that are kept open, with files that are not, and all there are."""

    def read_afresh() -> None:
        files.close()
        files.read(processes)

    opened = pass_cost(read_afresh)
    part.add("kept open, as the limit of open files allows", len(files.kept), "groups")
    whole = pass_cost(lambda: files.read(processes))
    kept = {key: pid for key, pid in processes.items() if key in files.kept}
    warm = pass_cost(lambda: files.read(kept))
    for name, cost, count in (
        ("opened anew", opened, len(processes)),
        ("kept open", warm, len(kept)),
        ("all", whole, len(processes)),
    ):
        part.add(f"{name}: read", count / cost.wall_s, "containers/s")
        part.add(f"{name}: read by the fastest pass", count / cost.fastest_s, "containers/s")
        part.add(f"{name}: read in a second of cpu", count / cost.cpu_s, "containers")
        part.add(f"{name}: cpu of one container", cost.cpu_s / count * 1e6, "µs")
    part.ratios["kept open over opened anew, containers for a second of cpu"] = (
        len(kept) / warm.cpu_s / (len(processes) / opened.cpu_s)
    )
    part.ratios["an interval over the time of one pass over all"] = INTERVAL_S / whole.wall_s


def measure_intervals(part: Part, files: CgroupFiles, processes: Mapping[str, int]) -> None:
    """Read all of them at absolute times, and see how far apart the readings of each are."""
    previous: dict[str, int] = {}
    errors_ms: list[int] = []
    late_ms: list[float] = []
    busy_ns = 0
    # What nobody reads any more must not count as the loop's work.
    files.read(processes)
    start, start_cpu = time.monotonic(), time.process_time()
    for tick in range(INTERVALS + 1):
        deadline = start + tick * INTERVAL_S
        time.sleep(max(0.0, deadline - time.monotonic()))
        late_ms.append((time.monotonic() - deadline) * 1000)
        for reading in files.read(processes):
            before = previous.get(reading.container_id)
            if before is not None:
                errors_ms.append(abs(reading.read_ms - before - INTERVAL_S * 1000))
            previous[reading.container_id] = reading.read_ms
            busy_ns = max(busy_ns, reading.cpu_ns or 0)
    time.sleep(max(0.0, start + (INTERVALS + 1) * INTERVAL_S - time.monotonic()))
    cpu_share = (time.process_time() - start_cpu) / (time.monotonic() - start)
    expected = INTERVALS * len(processes)
    part.add("every 2 s: intervals measured", len(errors_ms), "intervals")
    part.add("every 2 s: intervals missed", expected - len(errors_ms), "intervals")
    part.add("every 2 s: interval error p50", quantile(errors_ms, 50), "ms")
    part.add("every 2 s: interval error p99", quantile(errors_ms, 99), "ms")
    part.add("every 2 s: a pass begins late, at most", max(late_ms), "ms")
    part.add("every 2 s: cpu of the busiest container", busy_ns / 1e9, "s")
    part.ratios["every 2 s: the loop's share of one core"] = cpu_share


@contextmanager
def control_groups(count: int) -> Iterator[tuple[CgroupFiles, dict[str, int]]]:
    """Make control groups as the engine would, a few of them busy; remove them in the end.

    They have a parent of their own. Their first processes are of a look-alike of /proc, whose links
    lead to this process' own files: the kernel prints those as it does a container's, with as
    many interfaces as this machine has.
    """
    parent = f"soulbox-bench-{os.getpid()}"
    ids = [f"{number:064x}" for number in range(count)]
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (root / "cgroup").mkdir()
        for name in HIERARCHIES:
            tree = CGROUP_ROOT / name / parent
            stack.callback(remove_groups, tree)
            (tree / "docker").mkdir(parents=True)
            for container_id in ids:
                (tree / "docker" / container_id).mkdir()
            (root / "cgroup" / name).symlink_to(tree)
        processes = {key: FIRST_PID + number for number, key in enumerate(ids)}
        for container_id, pid in processes.items():
            folder = root / "proc" / str(pid)
            (folder / "net").mkdir(parents=True)
            (folder / "net" / "dev").symlink_to("/proc/self/net/dev")
            (folder / "comm").symlink_to("/proc/self/comm")
            (folder / "cgroup").write_text(f"2:cpuacct:/docker/{container_id}\n")
        for container_id in ids[:: max(1, count // BUSY_PROCESSES)][:BUSY_PROCESSES]:
            busy = subprocess.Popen(["/bin/sh", "-c", BUSY])  # noqa: S603 -- a constant
            stack.callback(end, busy)
            for name in HIERARCHIES:
                group = root / "cgroup" / name / "docker" / container_id
                (group / "cgroup.procs").write_text(str(busy.pid))
        yield CgroupFiles(root / "cgroup", root / "proc"), processes


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process of this one's."""
    process.kill()
    process.wait()


def remove_groups(tree: Path) -> None:
    """Remove a control group and all below it. A second Ctrl-C does not stop it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    deadline = time.monotonic() + REMOVAL_S
    try:
        folders = sorted((folder for folder in tree.rglob("*") if folder.is_dir()), reverse=True)
        for folder in (*folders, tree):
            # The last child of a busy process sleeps on for a tenth of a second.
            while folder.exists() and time.monotonic() < deadline:
                with suppress(OSError):
                    folder.rmdir()
                    break
                time.sleep(0.05)
        if tree.exists():
            print(f"Control groups were left behind in {tree}.", file=sys.stderr)
    finally:
        signal.signal(signal.SIGINT, before)


# Measuring


@dataclass(frozen=True, slots=True)
class Cost:
    """The median cost of one pass, and how long the fastest took."""

    wall_s: float
    cpu_s: float
    fastest_s: float


def pass_cost(run: Callable[[], object]) -> Cost:
    """Return what one call costs. The first is not counted: it opens and learns."""
    run()
    walls: list[float] = []
    cpus: list[float] = []
    end_at = time.monotonic() + THROUGHPUT_S
    while len(walls) < 3 or time.monotonic() < end_at:
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return Cost(statistics.median(walls), statistics.median(cpus), min(walls))


def quantile(values: list[int], percent: int) -> float:
    """Return the value that so many percent do not exceed."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


PARTS: tuple[Callable[[], Part], ...] = (cgroup_files,)

if __name__ == "__main__":
    main()
