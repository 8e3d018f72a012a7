from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import Mock

import pytest

from metering.cgroup import CgroupSource
from metering.samples import State
from metering.source import Listed, Reading, Source, SourceError
from tests.metering.kernel_tree import (
    CGROUPFS,
    ID,
    OTHER_ID,
    PID,
    V1_FILES,
    V2_FILES,
    Tree,
    net_dev,
)


@pytest.fixture(params=[V1_FILES, V2_FILES], ids=["v1", "v2"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Tree:
    return Tree(tmp_path / "machine", request.param)


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


def test_an_engine_that_fails_costs_only_the_readings_that_files_do_not_give(tree: Tree) -> None:
    tree.add()
    asked = Mock(spec=Source)
    asked.read.side_effect = SourceError("stuck")
    source = CgroupSource(asked, find_pids=Engine({ID: PID}).find_pids, files=tree.open())
    assert [reading.container_id for reading in source.read([ID, OTHER_ID])] == [ID]
    with pytest.raises(SourceError, match="stuck"):
        source.read([OTHER_ID])


def test_known_containers_are_read_while_the_engine_tells_no_pids(tree: Tree) -> None:
    tree.add()
    engine = Engine({ID: PID})
    find_pids = Mock(side_effect=[{ID: PID}, SourceError("down")])
    asked = Mock(spec=Source, read=engine.read)
    source = CgroupSource(asked, find_pids=find_pids, files=tree.open())
    source.read([ID])
    readings = source.read([ID, OTHER_ID])
    assert [(r.container_id, r.cpu_ns == 7) for r in readings] == [(ID, False), (OTHER_ID, True)]


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
