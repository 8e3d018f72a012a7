"""Real containers, read by asking the engine and by the kernel's files."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import docker
from django.conf import settings
from docker.models.containers import Container

from bench.collecting.groups import BUSY, BUSY_PROCESSES, undisturbed
from bench.collecting.measuring import (
    Cost,
    Plan,
    Steady,
    add_throughput,
    cpu_s,
    measure_intervals,
    pass_cost,
)
from bench.collecting.report import Part
from metering.cgroup import CgroupFiles, CgroupSource, cgroup_files_here
from metering.docker import DockerEngine
from metering.source import ACCOUNT_LABEL, SANDBOX_LABEL, Source

SOCKET = Path("/var/run/docker.sock")
ENDPOINT = f"unix://{SOCKET}"
PID_FILE = Path("/var/run/docker.pid")
IMAGE = "busybox"
CALL_LIMIT_S = 60
STARTED_AT_ONCE = 6
# They end and are removed by themselves, should this process be killed.
LIVE_S = 600
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Measured:
    """What one source cost."""

    cost: Cost
    steady: Steady

    @property
    def daemon_s(self) -> float:
        """The daemon's cpu of one sample; a tick of its clock is the least that can be seen."""
        return max(self.steady.servers_cpu_s, TICK_S) / max(self.steady.readings, 1)


def measure_containers(plan: Plan) -> Part:
    """Read real containers by both sources.

    Engines such as 20.10 take the figures once a second for everybody who asks: an answer waits
    for that moment, and its time is that moment's, up to a second off the pass' own.

    Raises DockerException in CI when no engine answers or it has no image; elsewhere the part
    is skipped then.
    """
    part = Part("real containers")
    try:
        client = docker.DockerClient(base_url=ENDPOINT, timeout=CALL_LIMIT_S)
        client.images.get(IMAGE)
    except docker.errors.DockerException as error:
        if os.environ.get("CI"):
            raise
        part.skipped = f"no Docker engine with an image named {IMAGE}: {error}"
        return part
    with containers(client, plan.containers) as processes:
        _measure_both(part, processes, plan)
    client.close()
    return part


def _measure_both(part: Part, processes: dict[str, int], plan: Plan) -> None:
    daemon = daemon_pids()
    part.add("containers", len(processes), "containers")
    part.add("daemon while not asked: cpu of a second", _idle_share(daemon, plan) * 1e3, "ms")
    engine = DockerEngine(
        ENDPOINT,
        concurrency=settings.METERING_CONCURRENCY,
        timeout_s=settings.METERING_CALL_TIMEOUT_S,
    )
    by_engine = _measure(part, "by engine", engine, list(processes), daemon, plan)
    if not any(cgroup_files_here(key, pid) for key, pid in processes.items()):
        part.skipped = "by files: they cannot be read by this process"
        return
    files = CgroupFiles()
    source = CgroupSource(engine, find_pids=engine.find_pids, files=files)
    by_files = _measure(part, "by files", source, list(processes), daemon, plan)
    part.add("by files: containers whose files are open", len(files.kept), "containers")
    files.close()
    part.ratios |= {
        "files over engine: containers/s": by_engine.cost.wall_s / by_files.cost.wall_s,
        "engine over files: cpu of one container": by_engine.cost.cpu_s / by_files.cost.cpu_s,
        "engine over files: the daemon's cpu of one sample, at least": (
            by_engine.daemon_s / by_files.daemon_s
        ),
    }


def _measure(
    part: Part, name: str, source: Source, ids: list[str], daemon: list[int], plan: Plan
) -> Measured:
    cost = pass_cost(lambda: source.read(ids), throughput_s=plan.throughput_s)
    add_throughput(part, name, cost, len(ids))
    steady = measure_intervals(
        part,
        f"{name} every 2 s",
        lambda: source.read(ids),
        count=len(ids),
        intervals=plan.intervals,
        servers=daemon,
    )
    measured = Measured(cost, steady)
    part.add(f"{name} every 2 s: the daemon's cpu of one sample", measured.daemon_s * 1e6, "µs")
    return measured


def _idle_share(daemon: list[int], plan: Plan) -> float:
    before, start = cpu_s(daemon), time.monotonic()
    time.sleep(plan.idle_s)
    return (cpu_s(daemon) - before) / (time.monotonic() - start)


def daemon_pids() -> list[int]:
    """Return the processes of the engine and of its containerd, not those of each container.

    The engine's own containerd where it has one, else whichever there is.
    """
    engine = int(PID_FILE.read_text()) if PID_FILE.exists() else _named("dockerd")[0]
    found = _named("containerd")
    own = [pid for pid in found if _parent(pid) == engine]
    return [engine, *(own or found[:1])]


def _named(name: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        # Many end while they are looked at.
        with suppress(OSError):
            if path.read_text().strip() == name:
                found.append(int(path.parent.name))
    return found


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@contextmanager
def containers(client: docker.DockerClient, count: int) -> Iterator[dict[str, int]]:
    """Start containers of one account, a few of them busy; give their first processes.

    All of them are removed in the end, also those that were started when others failed.
    """
    account = str(uuid4())

    def start(number: int) -> Container:
        command = BUSY if number < BUSY_PROCESSES else f"sleep {LIVE_S}"
        return client.containers.run(
            IMAGE,
            ["timeout", str(LIVE_S), "sh", "-c", f"{command}; sleep {LIVE_S}"],
            labels={SANDBOX_LABEL: f"bench-{number}", ACCOUNT_LABEL: account},
            detach=True,
            auto_remove=True,
        )

    try:
        with ThreadPoolExecutor(STARTED_AT_ONCE) as threads:
            started = list(threads.map(start, range(count)))
        for container in started:
            container.reload()
        yield {str(found.id): int(found.attrs["State"]["Pid"]) for found in started}
    finally:
        with undisturbed():
            _remove_all(client, account)


def _remove_all(client: docker.DockerClient, account: str) -> None:
    label = f"{ACCOUNT_LABEL}={account}"

    def remove(container: Container) -> None:
        # One that is being removed, by itself or by this, is refused.
        with suppress(docker.errors.APIError):
            container.remove(force=True)

    def left() -> list[Container]:
        return client.containers.list(
            all=True, filters={"label": label}, sparse=True, ignore_removed=True
        )

    deadline = time.monotonic() + CALL_LIMIT_S
    while (found := left()) and time.monotonic() < deadline:
        with ThreadPoolExecutor(STARTED_AT_ONCE) as threads:
            list(threads.map(remove, found))
    if found:
        print(f"Containers with the label {label} were left behind.", file=sys.stderr)
