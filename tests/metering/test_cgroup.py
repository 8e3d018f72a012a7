"""Trees of files as the kernel makes them: written here, or recorded of a real container.

`recorded/v1` is one container, paused, with the engine's own answer about it. Of `recorded/v2`
cpu.stat is recorded; its memory and io files are written in the format of kernel 6, since both
versions cannot hold the same controllers at once.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import Mock

import pytest

from metering.cgroup import CgroupFiles, CgroupSource, cgroup_files_here
from metering.procfs import (
    parse_blkio,
    parse_cpu_stat,
    parse_field,
    parse_group,
    parse_io_stat,
    parse_net_dev,
    working_set,
)
from metering.samples import State
from metering.source import Listed, Reading, Source

RECORDED = Path(__file__).parent / "recorded"
ID = "4e191468dbe9a72098f9cb0ec90ac833100da72139df34c81b64988316d4edb6"
OTHER_ID = "8fddaef89b849afe74ab552596d72e114b73e64542c5fd491453aee58034db18"
PID = 4242
CGROUPFS = "docker/{}"
SYSTEMD = "system.slice/docker-{}.scope"
ELSEWHERE = "tenants.slice/tenants-7.slice/docker-{}.scope"
ZEROS = " ".join(["0"] * 14)
HEADINGS = "Inter-|   Receive      |  Transmit\n face |bytes    packets|bytes    packets\n"


def net_dev(**interfaces: tuple[int, int]) -> str:
    lines = (
        f"{name:>6}: {rx} {' '.join('0' * 7)} {tx} {' '.join('0' * 7)}\n"
        for name, (rx, tx) in interfaces.items()
    )
    return HEADINGS + "".join(lines)


V1_FILES = {
    "cpuacct/{}/cpuacct.usage": "770000123\n",
    "memory/{}/memory.usage_in_bytes": "614400\n",
    "memory/{}/memory.stat": "cache 5\ninactive_file 999\ntotal_inactive_file 14400\ntotal_x 1\n",
    "blkio/{}/blkio.throttle.io_service_bytes": (
        "8:0 Read 4096\n8:0 Write 8192\n8:0 Sync 8192\n8:0 Total 12288\n8:16 Read 1000\n"
        "Total 13288\n"
    ),
}
V2_FILES = {
    "{}/cpu.stat": "usage_usec 770000\nuser_usec 1\n",
    "{}/memory.current": "614400\n",
    "{}/memory.stat": "anon 1\ninactive_file 14400\nactive_file 2\n",
    "{}/io.stat": "8:0 rbytes=4096 wbytes=8192 rios=1\n8:16 rbytes=1000 wbytes=0 rios=1\n",
}


@dataclass
class Tree:
    """A machine's files of containers."""

    root: Path
    files: dict[str, str]

    def __post_init__(self) -> None:
        self.cgroup.mkdir(parents=True)
        self.proc.mkdir()
        if self.files is V2_FILES:
            (self.cgroup / "cgroup.controllers").write_text("cpu io memory\n")
        self.write_process("1", "init.scope", net_dev(eth0=(10**9, 10**9)))

    @property
    def cgroup(self) -> Path:
        return self.root / "cgroup"

    @property
    def proc(self) -> Path:
        return self.root / "proc"

    def add(
        self,
        container_id: str = ID,
        *,
        group: str = CGROUPFS,
        pid: int = PID,
        instead: Mapping[str, str | None] | None = None,
    ) -> None:
        """Write a container's files; `instead` has other contents by name, None for no file."""
        own_group = group.format(container_id)
        for template, content in self.files.items():
            path = self.cgroup / template.format(own_group)
            text = (instead or {}).get(path.name, content)
            if text is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        self.write_process(str(pid), own_group, net_dev(lo=(9, 9), eth0=(1042, 7)))

    def write_process(self, pid: str, group: str, network: str) -> None:
        folder = self.proc / pid / "net"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "dev").write_text(network)
        (folder.parent / "comm").write_text("sleep\n")
        (folder.parent / "cgroup").write_text(f"4:memory:/{group}\n2:cpuacct:/{group}\n")

    def remove_group(self, container_id: str = ID) -> None:
        for folder in self.cgroup.rglob(f"*{container_id}*"):
            shutil.rmtree(folder)

    def open(self) -> CgroupFiles:
        return CgroupFiles(self.cgroup, self.proc)


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


def test_recorded_v1_tree_gives_the_figures_of_the_engines_answer_about_it(v1: Tree) -> None:
    answer = json.loads((RECORDED / "v1" / "statistics.json").read_text())
    [reading] = recorded(v1, "v1").open().read({ID: PID})
    memory, networks = answer["memory_stats"], answer["networks"]
    counted = answer["blkio_stats"]["io_service_bytes_recursive"]
    disk = {entry["op"]: entry["value"] for entry in counted}
    assert reading.cpu_ns == answer["cpu_stats"]["cpu_usage"]["total_usage"] > 0
    assert reading.memory_bytes == memory["usage"] - memory["stats"]["total_inactive_file"]
    assert (reading.disk_read_bytes, reading.disk_write_bytes) == (disk["Read"], disk["Write"])
    assert reading.interfaces == {
        "eth0": (networks["eth0"]["rx_bytes"], networks["eth0"]["tx_bytes"])
    }


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


# The source


@dataclass
class Engine:
    """An engine that answers from here, and notes what it was asked."""

    pids: dict[str, int]
    listed: list[Listed] = field(default_factory=list)
    asked: list[tuple[str, list[str]]] = field(default_factory=list)

    def find_pids(self, container_ids: Sequence[str]) -> dict[str, int]:
        self.asked.append(("pids", list(container_ids)))
        return {key: self.pids[key] for key in container_ids if key in self.pids}

    def read(self, container_ids: Sequence[str]) -> list[Reading]:
        self.asked.append(("read", list(container_ids)))
        return [Reading(key, 1, cpu_ns=7) for key in container_ids]

    def list_containers(self) -> list[Listed]:
        return self.listed

    def source(self, tree: Tree) -> CgroupSource:
        engine = Mock(spec=Source, read=self.read, list_containers=self.list_containers)
        return CgroupSource(engine, find_pids=self.find_pids, files=tree.open())


def test_the_engine_is_asked_for_a_pid_once_a_life_and_for_no_reading(tree: Tree) -> None:
    tree.add()
    engine = Engine({ID: PID})
    source = engine.source(tree)
    for _ in range(3):
        assert [reading.memory_bytes for reading in source.read([ID])] == [600_000]
    assert engine.asked == [("pids", [ID])]
    assert source.name == tree.open().name


def test_what_files_do_not_give_the_engine_reads(tree: Tree) -> None:
    tree.add()
    engine = Engine({ID: PID, OTHER_ID: PID + 1})
    readings = engine.source(tree).read([ID, OTHER_ID, "stopped"])
    assert [(r.container_id, r.cpu_ns == 7) for r in readings] == [
        (ID, False),
        (OTHER_ID, True),
        ("stopped", True),
    ]
    assert engine.asked[1:] == [("read", [OTHER_ID, "stopped"])]


def test_a_restarted_containers_new_process_is_learned(tree: Tree) -> None:
    tree.add()
    engine = Engine({ID: PID})
    source = engine.source(tree)
    source.read([ID])
    tree.remove_group()
    shutil.rmtree(tree.proc / str(PID))
    tree.add(pid=PID + 1)
    engine.pids[ID] = PID + 1
    # Real descriptors of a removed group answer an error by themselves.
    source._files.close()
    assert [reading.cpu_ns for reading in source.read([ID])] == [7]
    assert [reading.memory_bytes for reading in source.read([ID])] == [600_000]
    assert engine.asked == [("pids", [ID]), ("read", [ID]), ("pids", [ID])]


def test_a_container_with_interfaces_of_its_own_making_is_read_by_the_engine(tree: Tree) -> None:
    tree.add()
    network = net_dev(eth0=(100, 100), docker0=(90, 90), tunl0=(0, 0))
    tree.write_process(str(PID), CGROUPFS.format(ID), network)
    engine = Engine({ID: PID})
    source = engine.source(tree)
    assert [reading.cpu_ns for reading in source.read([ID])] == [7]
    source.read([ID])
    assert engine.asked == [("pids", [ID]), ("read", [ID]), ("read", [ID])]


def test_what_the_list_shows_not_to_run_is_forgotten(tree: Tree) -> None:
    tree.add()
    tree.add(OTHER_ID, pid=PID + 1)
    engine = Engine({ID: PID, OTHER_ID: PID + 1})
    engine.listed = [Listed(ID, State.STOPPED), Listed(OTHER_ID, State.PAUSED)]
    source = engine.source(tree)
    source.read([ID, OTHER_ID])
    assert source.list_containers() == engine.listed
    assert source._files.kept == {OTHER_ID}
    source.read([ID])
    assert engine.asked == [("pids", [ID, OTHER_ID]), ("pids", [ID])]


def test_all_else_is_asked_of_the_engine(tree: Tree) -> None:
    engine = Mock(spec=Source)
    source = CgroupSource(engine, find_pids=Mock(), files=tree.open())
    now = datetime.now(UTC)
    assert source.clock() is engine.clock.return_value
    assert source.engine_id() is engine.engine_id.return_value
    assert source.offer() is engine.offer.return_value
    assert source.events_between(now, now) is engine.events_between.return_value
    assert source.inspect([ID]) is engine.inspect.return_value
    assert source.read_storage() is engine.read_storage.return_value


# Parsing


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"inactive_file 5\n", 5),
        (b"a 1\ninactive_file 5\nb 2\n", 5),
        (b"a 1\ninactive_file 5", 5),
        (b"total_inactive_file 5\n", None),
        (b"inactive_file_x 5\n", None),
        (b"", None),
    ],
)
def test_a_field_is_a_line_of_its_own(content: bytes, value: int | None) -> None:
    assert parse_field(content, b"inactive_file") == value


@pytest.mark.parametrize(
    ("usage", "details", "bytes_left"),
    [
        (100, b"inactive_file 30\ntotal_inactive_file 40\n", 60),
        (100, b"inactive_file 30\n", 70),
        (100, b"inactive_file 99\n", 1),
        (100, b"inactive_file 100\n", 100),
        (100, b"inactive_file 101\n", 100),
        (100, b"", 100),
    ],
)
def test_inactive_file_pages_are_taken_off_when_they_are_fewer(
    usage: int, details: bytes, bytes_left: int
) -> None:
    assert working_set(usage, details) == bytes_left


def test_cpu_time_is_found_in_any_line() -> None:
    assert parse_cpu_stat(b"nr_periods 4\nusage_usec 3\n") == 3000
    with pytest.raises(ValueError, match="usage_usec"):
        parse_cpu_stat(b"user_usec 3\n")


@pytest.mark.parametrize(
    ("content", "figures"),
    [
        (b"8:0 Read 1\n8:0 Write 2\n8:0 Async 9\n8:16 Read 4\nTotal 7\n", (5, 2)),
        (b"8:0 Read 0\n8:0 Write 0\nTotal 0\n", (0, 0)),
        (b"8:0 Read 3\n", (3, None)),
        (b"(unknown) Read 3\nTotal 3\n", (None, None)),
    ],
)
def test_v1_devices_are_summed(content: bytes, figures: tuple[int | None, int | None]) -> None:
    assert parse_blkio(content) == figures


@pytest.mark.parametrize(
    ("content", "figures"),
    [
        (b"8:0 rbytes=1 wbytes=2 rios=9\n8:16 rbytes=4 wbytes=0\n", (5, 2)),
        (b"8:0 rbytes=0 wbytes=0\n", (0, 0)),
        (b"8:0 cost.usage=3\n", (0, 0)),
        (b"8:0 \n", (None, None)),
        (b"(unknown) rbytes=3 wbytes=3\n", (None, None)),
    ],
)
def test_v2_devices_are_summed(content: bytes, figures: tuple[int | None, int | None]) -> None:
    assert parse_io_stat(content) == figures


def test_interfaces_that_no_engine_made_count_once_they_carry_something() -> None:
    printed = net_dev(lo=(9, 9), eth0=(0, 0), tunl0=(0, 0), sit0=(0, 1)).encode()
    # The kernel leaves no space after the colon of a long number.
    printed += b"  eth1:12345678 " + ZEROS.replace(" ", "  ").encode() + b" 0\n"
    assert parse_net_dev(printed) == {"eth0": (0, 0), "sit0": (0, 1), "eth1": (12345678, 0)}


def test_more_interfaces_than_one_page_are_all_read(tree: Tree) -> None:
    tree.add()
    many = {f"eth{number}": (number, 10**18) for number in range(500)}
    (tree.proc / str(PID) / "net" / "dev").write_text(net_dev(**many))
    [reading] = tree.open().read({ID: PID})
    assert reading.interfaces == many


@pytest.mark.parametrize(
    ("content", "group"),
    [
        (f"0::/docker/{ID}\n", f"docker/{ID}"),
        (f"0::/a.slice/docker-{ID}.scope/init.scope\n", f"a.slice/docker-{ID}.scope"),
        (f"1:cpu:/\n2:memory:/x/{ID}\n", f"x/{ID}"),
        (f"0::/docker/{OTHER_ID}\n", None),
        ("", None),
    ],
)
def test_the_group_is_the_part_named_for_the_container(content: str, group: str | None) -> None:
    assert parse_group(content.encode(), ID) == group
