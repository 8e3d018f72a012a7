"""The kernel's own files as a source: for a collector that runs on the containers' host."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from metering.procfs import (
    UNKNOWN_DISK,
    V1,
    V2,
    KernelFile,
    has_foreign_interface,
    parse_group,
    parse_net_dev,
    working_set,
)
from metering.samples import State
from metering.source import (
    Container,
    Events,
    Listed,
    Offer,
    Reading,
    Source,
    SourceError,
    StorageReading,
)

CGROUP_ROOT = Path("/sys/fs/cgroup")
PROC_ROOT = Path("/proc")

# Descriptors left to the rest of the process: connections to the engine, Redis, PostgreSQL.
SPARE_DESCRIPTORS = 256

# Where the engine puts a container's group: its cgroupfs driver, its systemd driver.
_GROUPS = ("docker/{}", "system.slice/docker-{}.scope")
# Longer than any of these files, so that one call reads one state of it.
_READ_BYTES = 32_768
# /proc/PID/net/dev is printed a page at a time; an answer shorter than this was all of it.
_SURELY_WHOLE_BYTES = 3_584
_NUMBER_BYTES = 64


class _Opened(NamedTuple):
    """The open files of one container's life. `network` and `process` are of its pid."""

    pid: int | None
    cpu: int
    memory_usage: int
    memory_details: int
    disk: tuple[int, ...]
    network: int | None
    process: int | None

    def descriptors(self) -> list[int]:
        """Return every descriptor it holds."""
        own = (self.network, self.process)
        return [
            *(self.cpu, self.memory_usage, self.memory_details, *self.disk),
            *(descriptor for descriptor in own if descriptor is not None),
        ]


class CgroupFiles:
    """The kernel's figures of containers on this machine. Files are opened once and kept.

    For one thread. A container takes six descriptors or so. When they are many the limit of
    open files of this process is raised: the soft limit to the hard one, and where that is too
    low and the process may, both to the kernel's own, /proc/sys/fs/nr_open. To do so takes
    CAP_SYS_RESOURCE, which root has on a host and often has not in a container. Containers
    beyond the limit are opened for each reading.
    """

    def __init__(self, cgroup_root: Path = CGROUP_ROOT, proc_root: Path = PROC_ROOT) -> None:
        self._cgroup_root = str(cgroup_root)
        self._proc_root = str(proc_root)
        self._version = V2 if (cgroup_root / "cgroup.controllers").exists() else V1
        self._kept: dict[str, _Opened] = {}
        self._open_count = 0
        self._may_raise_hard_limit = True
        self._hosts_network = self._network_of("1")

    @property
    def name(self) -> str:
        """Return the version of control groups, as a source is named."""
        return self._version.name

    @property
    def kept(self) -> AbstractSet[str]:
        """Return the containers whose files are kept open."""
        return self._kept.keys()

    def read(self, processes: Mapping[str, int | None]) -> list[Reading]:
        """Return a reading of each container whose files can be read.

        `processes` is the pid of each container's first process; None reads no network. A pid
        is believed only while that process lives and is in the container's group, so that
        figures of an earlier life, or another container's, are never given.
        """
        readings = []
        for container_id, pid in processes.items():
            opened = self._kept.get(container_id)
            if opened is not None and opened.pid != pid:
                self._drop(container_id)
                opened = None
            is_kept = opened is not None
            opened = opened or self._open(container_id, pid)
            if opened is None:
                continue
            reading = self._figures(container_id, opened)
            if reading is not None:
                readings.append(reading)
            if is_kept and reading is None:
                self._drop(container_id)
            elif not is_kept:
                self._keep_or_close(container_id, opened, worth_keeping=reading is not None)
        return readings

    def keep_only(self, container_ids: AbstractSet[str]) -> None:
        """Close the files of every other container."""
        for container_id in self._kept.keys() - container_ids:
            self._drop(container_id)

    def close(self) -> None:
        """Close every file. It may be read again, which opens them."""
        self.keep_only(frozenset())

    def _figures(self, container_id: str, opened: _Opened) -> Reading | None:
        try:
            cpu_ns = self._version.parse_cpu(os.pread(opened.cpu, _READ_BYTES, 0))
            read_ms = time.time_ns() // 10**6
            usage_bytes = int(os.pread(opened.memory_usage, _NUMBER_BYTES, 0))
            memory_bytes = working_set(usage_bytes, _contents(opened.memory_details))
            disk = UNKNOWN_DISK
            for descriptor in opened.disk:
                disk = self._version.parse_disk(_contents(descriptor))
                if disk != UNKNOWN_DISK:
                    break
            interfaces = {} if opened.network is None else parse_net_dev(_contents(opened.network))
            if opened.process is not None:
                # An open net/dev outlives its process. That this can still be read, after all
                # else was, says that everything was of one life.
                os.pread(opened.process, 1, 0)
        except (OSError, ValueError):
            # The group or the process is gone, or these are not the kernel's files.
            return None
        return Reading(
            container_id=container_id,
            read_ms=read_ms,
            cpu_ns=cpu_ns,
            memory_bytes=memory_bytes,
            disk_read_bytes=disk[0],
            disk_write_bytes=disk[1],
            interfaces=interfaces,
        )

    def _open(self, container_id: str, pid: int | None) -> _Opened | None:
        opened: list[int] = []

        def open_file(path: str) -> int:
            opened.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            return opened[-1]

        try:
            groups = [group.format(container_id) for group in _GROUPS]
            network = process = None
            if pid is not None:
                process = open_file(f"{self._proc_root}/{pid}/comm")
                network = open_file(f"{self._proc_root}/{pid}/net/dev")
                # After they are open: a process that is in the container's group now was the
                # one of that number before.
                groups.append(self._group_of(pid, container_id))
            group = self._existing(groups)
            cpu, usage, details = (
                open_file(self._path(file, group))
                for file in (
                    self._version.cpu,
                    self._version.memory_usage,
                    self._version.memory_details,
                )
            )
            disk = tuple(
                open_file(path)
                for file in self._version.disk
                if os.path.exists(path := self._path(file, group))  # noqa: PTH110 -- half the cost
            )
            if network is not None and self._is_hosts(network):
                opened.remove(network)
                os.close(network)
                network = None
        except (OSError, LookupError, ValueError):
            _close(opened)
            return None
        return _Opened(pid, cpu, usage, details, disk, network, process)

    def _path(self, file: KernelFile, group: str) -> str:
        return f"{self._cgroup_root}/{file.hierarchy}/{group}/{file.name}"

    def _existing(self, groups: Iterable[str]) -> str:
        """Return the first group that there is. Raises LookupError."""
        for group in groups:
            if os.path.exists(self._path(self._version.cpu, group)):  # noqa: PTH110 -- half the cost
                return group
        raise LookupError("no control group")

    def _group_of(self, pid: int, container_id: str) -> str:
        """Return the container's group. Raises LookupError when the process is not in it."""
        # Not Path.read_bytes: this is most of what opening a container costs.
        descriptor = os.open(f"{self._proc_root}/{pid}/cgroup", os.O_RDONLY | os.O_CLOEXEC)
        try:
            content = os.pread(descriptor, _READ_BYTES, 0)
        finally:
            os.close(descriptor)
        group = parse_group(content, container_id)
        if group is None:
            raise LookupError(f"process {pid} is not in container {container_id}")
        return group

    def _network_of(self, pid: str) -> tuple[int, int] | None:
        """Return what tells a process' network namespace from others, None when unknown.

        The kernel makes a net/dev for each namespace, with a number of its own. Unlike the
        namespace's own file, anybody may ask for it.
        """
        try:
            found = os.stat(f"{self._proc_root}/{pid}/net/dev")  # noqa: PTH116 -- as fstat below
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _is_hosts(self, network: int) -> bool:
        """Return whether a container shares the host's network: its bytes are not its own."""
        found = os.fstat(network)
        return (found.st_dev, found.st_ino) == self._hosts_network

    def _keep_or_close(self, container_id: str, opened: _Opened, *, worth_keeping: bool) -> None:
        descriptors = opened.descriptors()
        if worth_keeping and self._may_be_open(self._open_count + len(descriptors)):
            self._kept[container_id] = opened
            self._open_count += len(descriptors)
        else:
            _close(descriptors)

    def _may_be_open(self, count: int) -> bool:
        """Return whether so many files may be kept open, after raising the limits if need be."""
        wanted = count + SPARE_DESCRIPTORS
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if wanted > hard and self._may_raise_hard_limit:
            # Once: who may not now may not at the next container either.
            self._may_raise_hard_limit = False
            _raise_hard_limit(Path(self._proc_root))
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < wanted and soft < hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return wanted <= hard

    def _drop(self, container_id: str) -> None:
        descriptors = self._kept.pop(container_id).descriptors()
        self._open_count -= len(descriptors)
        _close(descriptors)


class CgroupSource:
    """An engine whose readings come from the kernel's files, and from itself where it must.

    `find_pids` gives the pid of each container's first process, those that do not run left
    out; it is asked once for each life.
    """

    def __init__(
        self,
        engine: Source,
        *,
        find_pids: Callable[[Sequence[str]], dict[str, int]],
        files: CgroupFiles | None = None,
    ) -> None:
        self._engine = engine
        self._find_pids = find_pids
        self._files = files or CgroupFiles()
        self._pids: dict[str, int] = {}

    @property
    def name(self) -> str:
        """Return cgroup v1 or cgroup v2."""
        return self._files.name

    def clock(self) -> datetime:
        """Return the engine's time."""
        return self._engine.clock()

    def engine_id(self) -> str:
        """Return the engine's own identity."""
        return self._engine.engine_id()

    def offer(self) -> Offer:
        """Return what the host has to give."""
        return self._engine.offer()

    def list_containers(self) -> list[Listed]:
        """Return the engine's list. What it shows not to run is forgotten: no file leaks."""
        listed = self._engine.list_containers()
        alive = {found.container_id for found in listed if found.state is not State.STOPPED}
        self._files.keep_only(alive)
        self._pids = {key: pid for key, pid in self._pids.items() if key in alive}
        return listed

    def events_between(self, start: datetime, end: datetime) -> Events:
        """Return the engine's events."""
        return self._engine.events_between(start, end)

    def inspect(self, container_ids: Sequence[str]) -> list[Container]:
        """Return the engine's answers."""
        return self._engine.inspect(container_ids)

    def read(self, container_ids: Sequence[str]) -> list[Reading]:
        """Return a reading of each container that runs, by its files or else by the engine.

        A container that began another life is read by the engine once, and its new process
        is learned by the next call.
        """
        if unknown := [key for key in container_ids if key not in self._pids]:
            # An engine that does not answer says so below, when it is asked for readings.
            with suppress(SourceError):
                self._pids.update(self._find_pids(unknown))
        found = self._files.read(
            {key: self._pids[key] for key in container_ids if key in self._pids}
        )
        read = {reading.container_id for reading in found}
        for container_id in self._pids.keys() & (set(container_ids) - read):
            del self._pids[container_id]
        readings = [r for r in found if not has_foreign_interface(r.interfaces)]
        return readings + self._read_by_engine(container_ids, readings)

    def _read_by_engine(
        self, container_ids: Sequence[str], readings: Sequence[Reading]
    ) -> list[Reading]:
        """Return the engine's readings of the others. Raises SourceError when nothing was read."""
        read = {reading.container_id for reading in readings}
        others = [key for key in container_ids if key not in read]
        if not others:
            return []
        try:
            return self._engine.read(others)
        except SourceError:
            # One container that the engine is stuck with must not cost the others' readings.
            if readings:
                return []
            raise

    def read_storage(self) -> list[StorageReading]:
        """Return the engine's sizes."""
        return self._engine.read_storage()


def cgroup_files_here(
    container_id: str,
    pid: int,
    *,
    cgroup_root: Path = CGROUP_ROOT,
    proc_root: Path = PROC_ROOT,
) -> bool:
    """Return whether a running container's files can be read by this process.

    `pid` is its first process as its engine numbers it. An engine on another machine, behind
    a forwarded socket, answers no here: its container is in no group of this kernel.
    """
    files = CgroupFiles(cgroup_root, proc_root)
    try:
        return bool(files.read({container_id: pid}))
    finally:
        files.close()


def _contents(descriptor: int) -> bytes:
    """Return all that a file of the kernel holds now."""
    content = os.pread(descriptor, _READ_BYTES, 0)
    if len(content) < _SURELY_WHOLE_BYTES:
        return content
    while more := os.pread(descriptor, _READ_BYTES, len(content)):
        content += more
    return content


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _raise_hard_limit(proc_root: Path) -> None:
    """Raise both limits of open files to the kernel's own, if this process may."""
    # Without the right, or above the kernel's limit, Python raises ValueError.
    with suppress(OSError, ValueError):
        most = int((proc_root / "sys" / "fs" / "nr_open").read_text())
        if most > resource.getrlimit(resource.RLIMIT_NOFILE)[1]:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
