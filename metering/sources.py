"""Which source a host's figures come from: chosen by itself, by what can be reached."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache

from django.conf import settings

from metering.cgroup import CgroupSource, cgroup_files_here
from metering.docker import DockerEngine, docker_engine
from metering.models import Host
from metering.samples import State
from metering.simulator import SCHEME, Simulator, fleet_of
from metering.source import Source

_LOCAL = "unix:"
# By endpoint; None: the kernel's files of its containers cannot be read here.
_by_files: dict[str, CgroupSource | None] = {}


def open_source(host: Host) -> Source:
    """Return the source that a host's endpoint names. Raises SourceError.

    Figures come from the kernel's files where those of a running container can be read here,
    else from the engine.
    """
    if host.endpoint.startswith(SCHEME):
        return _simulated_fleet(host.endpoint, host.registered_at)
    engine = docker_engine(
        host.endpoint, settings.METERING_CONCURRENCY, settings.METERING_CALL_TIMEOUT_S
    )
    if settings.METERING_SOURCE == "engine" or not host.endpoint.startswith(_LOCAL):
        return engine
    if host.endpoint not in _by_files:
        _try_files(host.endpoint, engine)
    return _by_files.get(host.endpoint) or engine


def _try_files(endpoint: str, engine: DockerEngine) -> None:
    """Find out from a running container; while none runs it stays open."""
    listed = engine.list_containers()
    running = [found.container_id for found in listed if found.state is State.RUNNING]
    for container_id, pid in engine.find_pids(running[:1]).items():
        is_here = cgroup_files_here(container_id, pid)
        _by_files[endpoint] = CgroupSource(engine, find_pids=engine.find_pids) if is_here else None


@lru_cache(maxsize=8)
def _simulated_fleet(endpoint: str, started_at: datetime) -> Simulator:
    return fleet_of(endpoint, started_at=started_at)
