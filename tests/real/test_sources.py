"""The engine's figures and the kernel's own, of the same real containers: the same integers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock
from uuid import uuid4

import docker
import pytest

from metering.cgroup import CgroupFiles, CgroupSource, cgroup_files_here
from metering.docker import DockerEngine, docker_engine
from metering.source import Reading, Source
from tests.real.conftest import ENDPOINT, IMAGE, run_docker
from tests.real.test_docker import block_device

pytestmark = pytest.mark.real

IDLE = "sleep 600"
MIB = 2**20
SENT_BYTES = 3_000_000
WRITTEN_BYTES = 8 * MIB
# The kernel sums its memory counters by cpu within 2 s when nothing changes them.
SETTLE_S = 3
LEAST_LOAD_NS = 10**8
LOAD_LIMIT_S = 30
MEMORY = "dd if=/dev/zero of=/dev/shm/x bs=1M count=24"
PAGE_CACHE = "dd if=/dev/zero of=/cached bs=1M count=12; sync; cat /cached >/dev/null"
DISK = "dd if=/dev/zero of=/file bs=1M count=8 oflag=direct"


@pytest.fixture(scope="module")
def source(engine: docker.DockerClient) -> DockerEngine:
    del engine
    return docker_engine(ENDPOINT, 8, 10)


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
def paused(source: DockerEngine, containers: dict[str, str]) -> dict[str, tuple[Reading, Reading]]:
    """The engine's reading and the files' of each container, of when it could change nothing."""
    # On a machine that is busy with something else its share comes later.
    deadline = time.monotonic() + LOAD_LIMIT_S
    while (source.read([containers["cpu"]])[0].cpu_ns or 0) <= LEAST_LOAD_NS:
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    run_docker("pause", *containers.values())
    files = CgroupFiles()
    try:
        time.sleep(SETTLE_S)
        return {name: both(source, files, key) for name, key in containers.items()}
    finally:
        run_docker("unpause", *containers.values())
        files.close()


def both(source: DockerEngine, files: CgroupFiles, container_id: str) -> tuple[Reading, Reading]:
    """Return the engine's reading between two equal ones of the files.

    The kernel gives back memory it held ready for a group in its own time, paused or not.
    """
    for _ in range(5):
        [before] = files.read(source.find_pids([container_id]))
        [between] = source.read([container_id])
        [after] = files.read(source.find_pids([container_id]))
        if figures(before) == figures(after):
            break
    return between, after


def figures(reading: Reading) -> dict[str, object]:
    return {
        name: getattr(reading, name)
        for name in (
            *("container_id", "cpu_ns", "memory_bytes"),
            *("disk_read_bytes", "disk_write_bytes", "interfaces"),
        )
    }


@pytest.mark.parametrize("load", LOADS)
def test_both_sources_give_the_same_reading_of_a_paused_container(
    paused: dict[str, tuple[Reading, Reading]], load: str
) -> None:
    engine, files = paused[load]
    assert figures(files) == figures(engine)
    assert files.cpu_ns


def test_the_loads_are_in_the_readings(paused: dict[str, tuple[Reading, Reading]]) -> None:
    found = {load: files for load, (_, files) in paused.items()}
    assert (found["cpu"].cpu_ns or 0) > LEAST_LOAD_NS
    assert (found["memory"].memory_bytes or 0) >= 24 * MIB
    assert found["disk"].disk_write_bytes == WRITTEN_BYTES
    assert found["client"].interfaces.keys() == {"eth0", "eth1"}
    assert max(tx for _, tx in found["client"].interfaces.values()) > SENT_BYTES
    assert max(rx for rx, _ in found["server"].interfaces.values()) > SENT_BYTES
    assert found["host-network"].interfaces == found["no-network"].interfaces == {}


def test_a_running_containers_figures_lie_between_two_of_the_engine(
    source: DockerEngine, containers: dict[str, str], files: CgroupFiles
) -> None:
    container_id = containers["cpu"]
    [before] = source.read([container_id])
    [reading] = files.read(source.find_pids([container_id]))
    [after] = source.read([container_id])
    assert before.read_ms <= reading.read_ms <= after.read_ms
    assert 0 < (before.cpu_ns or 0) <= (reading.cpu_ns or 0) <= (after.cpu_ns or 0)


def test_every_container_is_read_by_its_files(
    source: DockerEngine, containers: dict[str, str], files: CgroupFiles
) -> None:
    asked = Mock(spec=Source)
    by_files = CgroupSource(asked, find_pids=source.find_pids, files=files)
    for _ in range(2):
        readings = by_files.read(list(containers.values()))
        assert {reading.container_id for reading in readings} == set(containers.values())
    asked.read.assert_not_called()


def test_a_restart_never_gives_the_earlier_lifes_figures(
    source: DockerEngine, containers: dict[str, str], files: CgroupFiles
) -> None:
    container_id = containers["cpu"]
    old_pids = source.find_pids([container_id])
    [earlier] = files.read(old_pids)
    run_docker("restart", "-t", "0", container_id)
    # The group has the same name again; its open files are those of the old one.
    assert files.read(old_pids) == []
    assert files.kept == set()
    [later] = files.read(source.find_pids([container_id]))
    assert (later.cpu_ns or 0) < (earlier.cpu_ns or 0)


def test_the_files_of_a_removed_container_are_closed(
    source: DockerEngine, files: CgroupFiles
) -> None:
    container_id = run_docker("run", "-d", IMAGE, "sh", "-c", IDLE)
    try:
        pids = source.find_pids([container_id])
        assert len(files.read(pids)) == 1
    finally:
        run_docker("rm", "-f", container_id)
    assert files.read(pids) == []
    assert files.kept == set()


def test_the_kernels_files_are_found_for_containers_of_this_machine_only(
    source: DockerEngine, containers: dict[str, str]
) -> None:
    [pid] = source.find_pids([containers["memory"]]).values()
    assert cgroup_files_here(containers["memory"], pid)
    assert not cgroup_files_here(containers["disk"], pid)
    assert not cgroup_files_here("0" * 64, pid)
