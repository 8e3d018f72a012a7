"""Which source a host's figures come from: chosen by itself, by what can be reached."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache

from django.conf import settings

from metering.cgroup import CgroupFiles, CgroupSource, cgroup_files_here
from metering.docker import DockerEngine, docker_engine
from metering.models import Host
from metering.samples import State
from metering.simulator import SCHEME, Simulator, fleet_of
from metering.source import Source

_LOCAL = "unix:"
CONTAINERS_TRIED = 3
# By endpoint; None: the kernel's files of its containers cannot be read here.
_by_files: dict[str, CgroupSource | None] = {}


def open_source(host: Host) -> Source:
    """Return the source that a host's endpoint names. Raises SourceError.

    Figures come from the kernel's files where those of a running container can be read here,
    else from the engine.
    """
    if host.endpoint.startswith(SCHEME):
        return _simulated_fleet(host.endpoint, host.registered_at)
    engine = _engine(host.endpoint)
    if settings.METERING_SOURCE == "engine" or not host.endpoint.startswith(_LOCAL):
        return engine
    if host.endpoint not in _by_files:
        _try_files(host.endpoint, engine)
    return _by_files.get(host.endpoint) or engine


@contextmanager
def apart(host: Host, source: Source) -> Iterator[Source]:
    """Give a source like a host's own, whose open files no other thread uses.

    A thread that closed a file in another's hands would have that one read, under the same
    number, the next file to be opened: another container's.
    """
    if not isinstance(source, CgroupSource):
        yield source
        return
    engine, files = _engine(host.endpoint), CgroupFiles()
    try:
        yield CgroupSource(engine, find_pids=engine.find_pids, files=files)
    finally:
        files.close()


def engine_of(host: Host) -> DockerEngine | None:
    """Return the engine that a host's endpoint names, None where there is none."""
    return None if host.endpoint.startswith(SCHEME) else _engine(host.endpoint)


def _engine(endpoint: str) -> DockerEngine:
    return docker_engine(
        endpoint,
        settings.METERING_CONCURRENCY,
        settings.METERING_CALL_TIMEOUT_S,
        settings.METERING_CERT_PATH,
    )


def _try_files(endpoint: str, engine: DockerEngine) -> None:
    """Find out from running containers; while none stays running it is left open."""
    listed = engine.list_containers()
    running = [found.container_id for found in listed if found.state is State.RUNNING]
    tried = engine.find_pids(running[:CONTAINERS_TRIED])
    if any(cgroup_files_here(container_id, pid) for container_id, pid in tried.items()):
        _by_files[endpoint] = CgroupSource(engine, find_pids=engine.find_pids)
    elif tried.items() & engine.find_pids(list(tried)).items():
        # One that still runs could not be read, so it is not for having ended.
        _by_files[endpoint] = None


@lru_cache(maxsize=8)
def _simulated_fleet(endpoint: str, started_at: datetime) -> Simulator:
    return fleet_of(endpoint, started_at=started_at)
