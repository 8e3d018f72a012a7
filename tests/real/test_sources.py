"""The engine's figures and the kernel's own, of the same real containers: the same integers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock
from uuid import uuid4

import docker
import pytest

from metering.cgroup import CgroupFiles, CgroupSource, cgroup_files_here
from metering.docker import parse_statistics
from metering.source import Reading, Source
from tests.real.conftest import IMAGE, run_docker
from tests.real.test_docker import block_device

pytestmark = pytest.mark.real

IDLE = "sleep 600"
MIB = 2**20
SENT_BYTES = 3_000_000
WRITTEN_BYTES = 8 * MIB
# The kernel sums its memory counters by cpu within 2 s when nothing changes them.
SETTLE_S = 3
MEMORY = "dd if=/dev/zero of=/dev/shm/x bs=1M count=24"
PAGE_CACHE = "dd if=/dev/zero of=/cached bs=1M count=12; sync; cat /cached >/dev/null"
DISK = "dd if=/dev/zero of=/file bs=1M count=8 oflag=direct"


def pid_of(engine: docker.DockerClient, container_id: str) -> int:
    return int(engine.api.inspect_container(container_id)["State"]["Pid"])


def by_engine(engine: docker.DockerClient, container_id: str) -> Reading:
    reading = parse_statistics(engine.api.stats(container_id, stream=False, one_shot=True))
    assert reading is not None
    return reading


@pytest.fixture(scope="module")
def containers(engine: docker.DockerClient) -> Iterator[dict[str, str]]:
    """Containers under load, by what their load is."""
    started: dict[str, str] = {}

    def start(name: str, command: str, *options: str) -> str:
        started[name] = run_docker("run", "-d", *options, IMAGE, "sh", "-c", command)
        return started[name]

    network = f"soulbox-test-{uuid4()}"
    run_docker("network", "create", network)
    try:
        start("cpu", "while :; do :; done", "--cpus", "0.3")
        start("memory", f"{MEMORY}; {PAGE_CACHE}; {IDLE}")
        # A throttle that never bites makes the kernel count what is written.
        throttle = ("--device-write-bps", f"{block_device()}:1gb")
        start("disk", f"{DISK}; {IDLE}", *throttle)
        server = start("server", f"{IDLE} | nc -l -p 9000 >/dev/null; {IDLE}", "--network", network)
        networks = engine.api.inspect_container(server)["NetworkSettings"]["Networks"]
        address = networks[network]["IPAddress"]
        send = f"sleep 1; head -c {SENT_BYTES} /dev/zero | nc {address} 9000; {IDLE}"
        client = start("client", send, "--network", network)
        run_docker("network", "connect", "bridge", client)
        start("host-network", IDLE, "--network", "host")
        start("no-network", IDLE, "--network", "none")
        is_systemd = engine.info()["CgroupDriver"] == "systemd"
        parent = "soulboxtest.slice" if is_systemd else "/soulbox-test/tenants"
        start("elsewhere", IDLE, "--cgroup-parent", parent)
        time.sleep(SETTLE_S)
        yield started
    finally:
        for container_id in started.values():
            run_docker("rm", "-f", container_id)
        run_docker("network", "rm", network)
        for hierarchy in Path("/sys/fs/cgroup").iterdir():
            for group in ("soulbox-test/tenants", "soulbox-test"):
                if (hierarchy / group).is_dir():
                    (hierarchy / group).rmdir()


@pytest.fixture
def files() -> Iterator[CgroupFiles]:
    files = CgroupFiles()
    yield files
    files.close()


LOADS = ["cpu", "memory", "disk", "server", "client", "host-network", "no-network", "elsewhere"]


@pytest.fixture(scope="module")
def paused(
    engine: docker.DockerClient, containers: dict[str, str]
) -> dict[str, tuple[Reading, Reading]]:
    """The engine's reading and the files' of each container, of when it could change nothing."""
    run_docker("pause", *containers.values())
    files = CgroupFiles()
    try:
        time.sleep(SETTLE_S)
        return {name: both(engine, files, key) for name, key in containers.items()}
    finally:
        run_docker("unpause", *containers.values())
        files.close()


def both(
    engine: docker.DockerClient, files: CgroupFiles, container_id: str
) -> tuple[Reading, Reading]:
    """Return the engine's reading between two equal ones of the files, without their times.

    The kernel gives back memory it held ready for a group in its own time, paused or not.
    """
    processes = {container_id: pid_of(engine, container_id)}
    for _ in range(5):
        [before] = files.read(processes)
        between = by_engine(engine, container_id)
        [after] = files.read(processes)
        if replace(before, read_ms=0) == replace(after, read_ms=0):
            break
    return without_times(between), without_times(after)


def without_times(reading: Reading) -> Reading:
    return replace(reading, read_ms=0, memory_limit_bytes=0)


@pytest.mark.parametrize("load", LOADS)
def test_both_sources_give_the_same_reading_of_a_paused_container(
    paused: dict[str, tuple[Reading, Reading]], load: str
) -> None:
    engine, files = paused[load]
    assert files == engine
    assert files.cpu_ns


def test_the_loads_are_in_the_readings(paused: dict[str, tuple[Reading, Reading]]) -> None:
    figures = {load: files for load, (_, files) in paused.items()}
    assert (figures["cpu"].cpu_ns or 0) > 10**8
    assert (figures["memory"].memory_bytes or 0) >= 24 * MIB
    assert figures["disk"].disk_write_bytes == WRITTEN_BYTES
    assert figures["client"].interfaces.keys() == {"eth0", "eth1"}
    assert max(tx for _, tx in figures["client"].interfaces.values()) > SENT_BYTES
    assert max(rx for rx, _ in figures["server"].interfaces.values()) > SENT_BYTES
    assert figures["host-network"].interfaces == figures["no-network"].interfaces == {}


def test_a_running_containers_figures_lie_between_two_of_the_engine(
    engine: docker.DockerClient, containers: dict[str, str], files: CgroupFiles
) -> None:
    container_id = containers["cpu"]
    before = by_engine(engine, container_id)
    [reading] = files.read({container_id: pid_of(engine, container_id)})
    after = by_engine(engine, container_id)
    assert before.read_ms <= reading.read_ms <= after.read_ms
    assert 0 < (before.cpu_ns or 0) <= (reading.cpu_ns or 0) <= (after.cpu_ns or 0)


def test_every_container_is_read_by_its_files(
    engine: docker.DockerClient, containers: dict[str, str], files: CgroupFiles
) -> None:
    asked = Mock(spec=Source)
    source = CgroupSource(
        asked, find_pids=lambda ids: {key: pid_of(engine, key) for key in ids}, files=files
    )
    for _ in range(2):
        readings = source.read(list(containers.values()))
        assert {reading.container_id for reading in readings} == set(containers.values())
    asked.read.assert_not_called()


def test_a_restart_never_gives_the_earlier_lifes_figures(
    engine: docker.DockerClient, containers: dict[str, str], files: CgroupFiles
) -> None:
    container_id = containers["cpu"]
    old_pid = pid_of(engine, container_id)
    [earlier] = files.read({container_id: old_pid})
    run_docker("restart", "-t", "0", container_id)
    # The group has the same name again; its open files are those of the old one.
    assert files.read({container_id: old_pid}) == []
    assert files.kept == set()
    [later] = files.read({container_id: pid_of(engine, container_id)})
    assert (later.cpu_ns or 0) < (earlier.cpu_ns or 0)


def test_the_files_of_a_removed_container_are_closed(
    engine: docker.DockerClient, files: CgroupFiles
) -> None:
    container_id = run_docker("run", "-d", IMAGE, "sh", "-c", IDLE)
    try:
        pid = pid_of(engine, container_id)
        assert len(files.read({container_id: pid})) == 1
    finally:
        run_docker("rm", "-f", container_id)
    assert files.read({container_id: pid}) == []
    assert files.kept == set()


def test_the_kernels_files_are_found_for_containers_of_this_machine_only(
    engine: docker.DockerClient, containers: dict[str, str]
) -> None:
    pid = pid_of(engine, containers["memory"])
    assert cgroup_files_here(containers["memory"], pid)
    assert not cgroup_files_here(containers["disk"], pid)
    assert not cgroup_files_here("0" * 64, pid)
