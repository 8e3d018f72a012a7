"""Trees of files as the kernel makes them: written here, or recorded of a real container.

`recorded/v1` is one container, paused, with the engine's own answer about it. Of `recorded/v2`
cpu.stat is recorded; its memory and io files are written in the format of kernel 6, since both
versions cannot hold the same controllers at once.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from metering.cgroup import cgroup_files_here
from metering.docker import parse_statistics
from metering.source import Reading
from tests.metering.kernel_tree import (
    CGROUPFS,
    ELSEWHERE,
    HEADINGS,
    ID,
    OTHER_ID,
    PID,
    SYSTEMD,
    V1_FILES,
    V2_FILES,
    Tree,
    net_dev,
)

RECORDED = Path(__file__).parent / "recorded"


@pytest.fixture
def v1(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "v1", V1_FILES)


@pytest.fixture
def v2(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "v2", V2_FILES)


@pytest.fixture(params=["v1", "v2"])
def tree(request: pytest.FixtureRequest) -> Tree:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


def recorded(tree: Tree, version: str, **names: str) -> Tree:
    """Fill a tree with a recorded container's files."""
    tree.add()
    for path in (RECORDED / version).iterdir():
        for target in tree.root.rglob(names.get(path.name, path.name)):
            if ID in str(target) or str(PID) in str(target):
                shutil.copy(path, target)
    shutil.copy(RECORDED / version / "net_dev", tree.proc / str(PID) / "net" / "dev")
    return tree


def figures(reading: Reading) -> tuple[object, ...]:
    return (
        reading.cpu_ns,
        reading.memory_bytes,
        reading.disk_read_bytes,
        reading.disk_write_bytes,
        reading.interfaces,
    )


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- a count, of no folder of ours


# Figures


def test_v1_files_give_every_figure(v1: Tree) -> None:
    v1.add()
    files = v1.open()
    [reading] = files.read({ID: PID})
    assert files.name == "cgroup v1"
    assert reading == Reading(
        container_id=ID,
        read_ms=reading.read_ms,
        cpu_ns=770_000_123,
        memory_bytes=600_000,
        disk_read_bytes=5096,
        disk_write_bytes=8192,
        interfaces={"eth0": (1042, 7)},
    )


def test_v2_files_give_every_figure_and_cpu_in_nanoseconds(v2: Tree) -> None:
    v2.add()
    files = v2.open()
    [reading] = files.read({ID: PID})
    assert files.name == "cgroup v2"
    assert reading == Reading(
        container_id=ID,
        read_ms=reading.read_ms,
        cpu_ns=770_000_000,
        memory_bytes=600_000,
        disk_read_bytes=5096,
        disk_write_bytes=8192,
        interfaces={"eth0": (1042, 7)},
    )


def test_recorded_v1_tree_gives_the_reading_in_the_engines_answer_about_it(v1: Tree) -> None:
    answer = parse_statistics((RECORDED / "v1" / "statistics.json").read_bytes())
    [reading] = recorded(v1, "v1").open().read({ID: PID})
    assert answer is not None
    assert figures(reading) == figures(answer)
    assert figures(reading) == (
        769_545_484,
        30_887_936 - 221_184,
        1_822_720,
        12_288,
        {"eth0": (736, 0)},
    )


def test_recorded_v2_tree_with_memory_and_io_in_the_format_of_kernel_6(v2: Tree) -> None:
    [reading] = recorded(v2, "v2").open().read({ID: PID})
    assert reading.cpu_ns == 769_545_000
    assert reading.memory_bytes == 22_478_848 - 626_688
    # A loop device without counters says nothing; two others are summed.
    assert reading.disk_read_bytes == 2 * 1_822_720
    assert reading.disk_write_bytes == 8_388_608 + 8_392_704


def test_a_reading_carries_the_time_in_whole_milliseconds(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.add()
    monkeypatch.setattr(time, "time_ns", lambda: 1_795_366_450_664_999_999)
    [reading] = tree.open().read({ID: PID})
    assert reading.read_ms == 1_795_366_450_664


@pytest.mark.parametrize("group", [CGROUPFS, SYSTEMD, ELSEWHERE])
def test_a_group_is_found_wherever_the_engine_put_it(tree: Tree, group: str) -> None:
    tree.add(group=group)
    assert [reading.container_id for reading in tree.open().read({ID: PID})] == [ID]


def test_the_first_process_may_be_in_a_group_below_the_containers(tree: Tree) -> None:
    tree.add(group=ELSEWHERE)
    below = ELSEWHERE.format(ID) + "/init.scope"
    tree.write_process(str(PID), below, net_dev(eth0=(1, 2)))
    [reading] = tree.open().read({ID: PID})
    assert reading.memory_bytes == 600_000


def test_a_container_without_a_pid_has_no_network(tree: Tree) -> None:
    tree.add()
    [reading] = tree.open().read({ID: None})
    assert (reading.cpu_ns is not None, reading.interfaces) == (True, {})


def test_the_hosts_network_is_nobodys(tree: Tree) -> None:
    tree.add()
    own = tree.proc / str(PID) / "net" / "dev"
    own.unlink()
    own.hardlink_to(tree.proc / "1" / "net" / "dev")
    [reading] = tree.open().read({ID: PID})
    assert reading.interfaces == {}


@pytest.mark.parametrize(
    ("nothing", "files"),
    [("Total 0\n", V1_FILES), ("", V1_FILES), ("", V2_FILES), (None, V2_FILES)],
)
def test_no_line_of_a_device_is_unknown_and_not_zero(
    tmp_path: Path, nothing: str | None, files: dict[str, str]
) -> None:
    tree = Tree(tmp_path / "tree", files)
    tree.add(instead={"blkio.throttle.io_service_bytes": nothing, "io.stat": nothing})
    [reading] = tree.open().read({ID: PID})
    assert (reading.disk_read_bytes, reading.disk_write_bytes) == (None, None)
    assert reading.cpu_ns is not None


@pytest.mark.parametrize(
    ("scheduler", "read_bytes"), [("8:0 Read 77\n8:0 Write 1\nTotal 78\n", 77), ("Total 0\n", 5096)]
)
def test_v1_the_schedulers_count_comes_before_the_throttles(
    v1: Tree, scheduler: str, read_bytes: int
) -> None:
    v1.add()
    (v1.cgroup / f"blkio/docker/{ID}/blkio.io_service_bytes_recursive").write_text(scheduler)
    [reading] = v1.open().read({ID: PID})
    assert reading.disk_read_bytes == read_bytes


def test_more_interfaces_than_one_page_are_all_read(tree: Tree) -> None:
    tree.add()
    many = {f"eth{number}": (number, 10**18) for number in range(500)}
    (tree.proc / str(PID) / "net" / "dev").write_text(net_dev(**many))
    [reading] = tree.open().read({ID: PID})
    assert reading.interfaces == many


# What cannot be read


@pytest.mark.parametrize("missing", ["cpuacct.usage", "memory.usage_in_bytes", "memory.stat"])
def test_v1_a_container_with_a_missing_file_is_left_out(v1: Tree, missing: str) -> None:
    v1.add(instead={missing: None})
    assert v1.open().read({ID: PID}) == []


@pytest.mark.parametrize("garbled", ["cpu.stat", "memory.current", "memory.stat", "io.stat"])
def test_v2_a_container_with_garbage_is_left_out_and_the_others_are_not(
    v2: Tree, garbled: str
) -> None:
    v2.add(instead={garbled: "inactive_file x\n8:0 rbytes=x\n"})
    v2.add(OTHER_ID, pid=PID + 1)
    before = open_descriptors()
    files = v2.open()
    assert [r.container_id for r in files.read({ID: PID, OTHER_ID: PID + 1})] == [OTHER_ID]
    files.close()
    assert open_descriptors() == before


def test_a_network_cut_short_leaves_its_container_out(tree: Tree) -> None:
    tree.add()
    (tree.proc / str(PID) / "net" / "dev").write_text(HEADINGS + "  eth0: 1 2 3\n")
    assert tree.open().read({ID: PID}) == []


def test_a_process_of_another_container_is_not_believed(tree: Tree) -> None:
    tree.add()
    tree.add(OTHER_ID, pid=PID)
    assert tree.open().read({ID: PID}) == []


def test_a_process_that_is_gone_leaves_its_container_out(tree: Tree) -> None:
    tree.add()
    shutil.rmtree(tree.proc / str(PID))
    assert tree.open().read({ID: PID}) == []


def test_files_are_here_when_a_running_containers_can_be_read(tree: Tree) -> None:
    tree.add()
    before = open_descriptors()
    roots = {"cgroup_root": tree.cgroup, "proc_root": tree.proc}
    assert cgroup_files_here(ID, PID, **roots)
    assert not cgroup_files_here(OTHER_ID, PID, **roots)
    assert not cgroup_files_here(ID, PID + 1, **roots)
    assert open_descriptors() == before


# Descriptors


def test_files_are_opened_once_and_read_anew(tree: Tree) -> None:
    tree.add()
    files = tree.open()
    files.read({ID: PID})
    before = open_descriptors()
    # Written in place: a descriptor that is kept sees it.
    (tree.proc / str(PID) / "net" / "dev").write_text(net_dev(eth0=(5000, 6000)))
    [reading] = files.read({ID: PID})
    assert reading.interfaces == {"eth0": (5000, 6000)}
    assert open_descriptors() == before
    shutil.rmtree(tree.proc)
    assert len(files.read({ID: PID})) == 1


def test_another_pid_is_another_life_and_opens_other_files(tree: Tree) -> None:
    tree.add()
    files = tree.open()
    files.read({ID: PID})
    before = open_descriptors()
    tree.remove_group()
    used = {"memory.usage_in_bytes": "20000\n", "memory.current": "20000\n"}
    tree.add(pid=PID + 1, instead=used)
    [reading] = files.read({ID: PID + 1})
    assert reading.memory_bytes == 5600
    assert open_descriptors() == before


@pytest.mark.parametrize("error", [OSError(19, "No such device"), ProcessLookupError(3, "gone")])
@pytest.mark.parametrize("gone", ["cpu", "process"])
def test_one_gone_file_drops_all_of_its_container(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, error: OSError, gone: str
) -> None:
    tree.add()
    tree.add(OTHER_ID, pid=PID + 1)
    files = tree.open()
    before = open_descriptors()
    processes = {ID: PID, OTHER_ID: PID + 1}
    files.read(processes)
    with_both = open_descriptors()
    descriptor = getattr(files._kept[ID], gone)
    pread = os.pread

    def read(number: int, length: int, offset: int) -> bytes:
        if number == descriptor:
            raise error
        return pread(number, length, offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", read)
        assert [r.container_id for r in files.read(processes)] == [OTHER_ID]
    assert files.kept == {OTHER_ID}
    assert open_descriptors() - before == (with_both - before) // 2
    assert len(files.read(processes)) == 2


def test_a_container_that_is_no_longer_there_is_closed(tree: Tree) -> None:
    tree.add()
    tree.add(OTHER_ID, pid=PID + 1)
    files = tree.open()
    before = open_descriptors()
    files.read({ID: PID, OTHER_ID: PID + 1})
    files.keep_only({OTHER_ID})
    assert files.kept == {OTHER_ID}
    files.close()
    assert open_descriptors() == before


def limit_files(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int) -> Mock:
    setrlimit = Mock()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    return setrlimit


def test_a_limit_that_suffices_is_left_alone(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.add()
    setrlimit = limit_files(monkeypatch, 1024, 4096)
    tree.open().read({ID: PID})
    setrlimit.assert_not_called()


def test_the_limit_of_open_files_is_raised_as_far_as_allowed(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.add()
    setrlimit = limit_files(monkeypatch, 64, 4096)
    files = tree.open()
    files.read({ID: PID})
    setrlimit.assert_called_once_with(resource.RLIMIT_NOFILE, (4096, 4096))
    assert files.kept == {ID}


class Limits:
    """The limits of open files, as the kernel keeps them for one who may raise them or not."""

    def __init__(self, soft: int, hard: int, *, may_raise_hard: bool) -> None:
        self.now = (soft, hard)
        self.may_raise_hard = may_raise_hard
        self.asked: list[tuple[int, int]] = []

    def get(self, _: int) -> tuple[int, int]:
        return self.now

    def set(self, _: int, limits: tuple[int, int]) -> None:
        self.asked.append(limits)
        if limits[1] > self.now[1] and not self.may_raise_hard:
            raise ValueError("not allowed to raise maximum limit")
        self.now = limits


@pytest.mark.parametrize(
    ("may_raise_hard", "most", "asked", "kept"),
    [
        (True, "1048576\n", [(1_048_576, 1_048_576)], 2),
        (False, "1048576\n", [(1_048_576, 1_048_576)], 1),
        # Nothing to be gained, nothing to be known.
        (True, "266\n", [], 1),
        (True, "", [], 1),
        # Room for one file more.
        (True, "267\n", [(267, 267)], 1),
    ],
)
def test_the_hard_limit_is_raised_once_to_the_kernels_where_allowed(
    v2: Tree,
    monkeypatch: pytest.MonkeyPatch,
    *,
    may_raise_hard: bool,
    most: str,
    asked: list[tuple[int, int]],
    kept: int,
) -> None:
    v2.add()
    v2.add(OTHER_ID, pid=PID + 1)
    (v2.proc / "sys" / "fs").mkdir(parents=True)
    (v2.proc / "sys" / "fs" / "nr_open").write_text(most)
    limits = Limits(64, 266, may_raise_hard=may_raise_hard)
    monkeypatch.setattr(resource, "getrlimit", limits.get)
    monkeypatch.setattr(resource, "setrlimit", limits.set)
    files = v2.open()
    for _ in range(2):
        assert len(files.read({ID: PID, OTHER_ID: PID + 1})) == 2
    # The first container fits below the hard limit.
    assert limits.asked == [(266, 266), *asked]
    assert len(files.kept) == kept


def test_beyond_the_limit_files_are_opened_for_each_reading(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.add()
    tree.add(OTHER_ID, pid=PID + 1)
    # Room for one container beside the descriptors that are spared.
    limit_files(monkeypatch, 266, 266)
    before = open_descriptors()
    files = tree.open()
    for _ in range(3):
        assert len(files.read({ID: PID, OTHER_ID: PID + 1})) == 2
    assert files.kept == {ID}
    assert open_descriptors() - before == 6


def test_a_process_with_few_descriptors_reads_all(tree: Tree) -> None:
    ids = [f"{number:064x}" for number in range(100)]
    for number, container_id in enumerate(ids):
        tree.add(container_id, pid=1000 + number)
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (32, 64))\n"
        "from pathlib import Path; from metering.cgroup import CgroupFiles\n"
        f"files = CgroupFiles(Path({str(tree.cgroup)!r}), Path({str(tree.proc)!r}))\n"
        "wanted = {f'{number:064x}': 1000 + number for number in range(100)}\n"
        "print([len(files.read(wanted)) for _ in range(2)], len(files.kept))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[0] == "[100, 100] 0"
