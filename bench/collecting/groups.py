"""Real control groups in thousands, without a container in them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from bench.collecting.measuring import (
    INTERVAL_S,
    Plan,
    add_throughput,
    measure_intervals,
    pass_cost,
)
from bench.collecting.report import Part
from metering.cgroup import CGROUP_ROOT, CgroupFiles

HIERARCHIES = ("cpuacct", "memory", "blkio")
OWN_NETWORK = Path("/proc/self/net/dev")
BUSY_PROCESSES = 4
# About a tenth of a core, and over after two minutes whatever happens to this process.
BUSY = "for i in $(seq 1200); do n=0; while [ $n -lt 5000 ]; do n=$((n+1)); done; sleep 0.1; done"
REMOVAL_S = 10
FIRST_PID = 100_000


def measure_groups(plan: Plan) -> Part:
    """Read real control groups by their files: as fast as it goes, then every two seconds."""
    part = Part("cgroup v1 files")
    part.skipped = why_no_groups()
    if part.skipped:
        return part
    processes = {f"{number:064x}": FIRST_PID + number for number in range(plan.groups)}
    with control_groups(processes) as files:
        part.add("control groups", len(processes), "groups")
        _measure_throughput(part, files, processes, plan)
        measure_intervals(
            part,
            "every 2 s",
            lambda: files.read(processes),
            count=len(processes),
            intervals=plan.intervals,
        )
        files.close()
    return part


def why_no_groups() -> str:
    """Return why control groups cannot be made here, empty when they can."""
    if missing := [name for name in HIERARCHIES if not (CGROUP_ROOT / name).is_dir()]:
        return f"this machine has no cgroup v1 hierarchy {', '.join(missing)}"
    if not os.access(CGROUP_ROOT / "memory", os.W_OK):
        return "this user may not make control groups"
    return ""


def _measure_throughput(
    part: Part, files: CgroupFiles, processes: Mapping[str, int], plan: Plan
) -> None:
    """Read with files that are kept open, with files that are not, and all there are."""

    def read_afresh() -> None:
        files.close()
        files.read(processes)

    opened = pass_cost(read_afresh, throughput_s=plan.throughput_s)
    part.add("kept open, as the limit of open files allows", len(files.kept), "groups")
    whole = pass_cost(lambda: files.read(processes), throughput_s=plan.throughput_s)
    kept = {key: pid for key, pid in processes.items() if key in files.kept}
    warm = pass_cost(lambda: files.read(kept), throughput_s=plan.throughput_s)
    add_throughput(part, "opened anew", opened, len(processes))
    add_throughput(part, "kept open", warm, len(kept))
    add_throughput(part, "all", whole, len(processes))
    part.ratios["kept open over opened anew, containers for a second of cpu"] = (
        len(kept) / warm.cpu_s / (len(processes) / opened.cpu_s)
    )
    part.ratios["an interval over the time of one pass over all"] = INTERVAL_S / whole.wall_s


@contextmanager
def control_groups(
    processes: Mapping[str, int], *, network: Path = OWN_NETWORK
) -> Iterator[CgroupFiles]:
    """Make control groups as the engine would, a few of them busy; remove them in the end.

    `processes` is what their first processes shall be numbered. The groups have a parent of
    their own. Their processes are of a look-alike of /proc, whose links lead to this process'
    own files: the kernel prints those as it does a container's, with as many interfaces as
    `network` has, which is this machine's unless given.
    """
    parent = f"soulbox-bench-{os.getpid()}"
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (root / "cgroup").mkdir()
        for name in HIERARCHIES:
            tree = CGROUP_ROOT / name / parent
            stack.callback(remove_groups, tree)
            (tree / "docker").mkdir(parents=True)
            for container_id in processes:
                (tree / "docker" / container_id).mkdir()
            (root / "cgroup" / name).symlink_to(tree)
        _link_processes(root / "proc", processes, network)
        ids = list(processes)
        for container_id in ids[:: max(1, len(ids) // BUSY_PROCESSES)][:BUSY_PROCESSES]:
            busy = subprocess.Popen(["/bin/sh", "-c", BUSY])  # noqa: S603 -- a constant
            stack.callback(end, busy)
            for name in HIERARCHIES:
                group = root / "cgroup" / name / "docker" / container_id
                (group / "cgroup.procs").write_text(str(busy.pid))
        yield CgroupFiles(root / "cgroup", root / "proc")


def _link_processes(proc: Path, processes: Mapping[str, int], network: Path) -> None:
    for container_id, pid in processes.items():
        folder = proc / str(pid)
        (folder / "net").mkdir(parents=True)
        (folder / "net" / "dev").symlink_to(network)
        (folder / "comm").symlink_to("/proc/self/comm")
        (folder / "cgroup").write_text(f"2:cpuacct:/docker/{container_id}\n")
    # Where the reader finds how many files a process may open at most.
    (proc / "sys").symlink_to("/proc/sys")


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process of this one's."""
    process.kill()
    process.wait()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let no second Ctrl-C stop what cleans up."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def remove_groups(tree: Path) -> None:
    """Remove a control group and all below it."""
    deadline = time.monotonic() + REMOVAL_S
    with undisturbed():
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
