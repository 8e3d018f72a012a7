"""What a source of readings offers: the Docker engine, the kernel's files, the simulator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from metering.samples import State

SANDBOX_LABEL = "soulbox.sandbox_id"
ACCOUNT_LABEL = "soulbox.account_id"
LABEL_PREFIX = "soulbox.label."
"""How a container's label begins that is one of the account's own; the rest is its name."""

UNKNOWN_GPUS = -1
"""A container holds GPUs and how many nobody said: it asked for all of a host that tells none."""


class SourceError(Exception):
    """The source could not be asked; the message says what and why. Nothing was read."""


class Action(StrEnum):
    """What an event says happened to a container, in the engine's own words."""

    CREATE = "create"
    START = "start"
    KILL = "kill"
    DIE = "die"
    OOM = "oom"
    PAUSE = "pause"
    UNPAUSE = "unpause"
    UPDATE = "update"
    DESTROY = "destroy"


@dataclass(frozen=True, slots=True)
class ContainerEvent:
    """One thing that happened to a container, in ns since 1970, with its labels at the time."""

    container_id: str
    action: Action
    at_ns: int
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Events:
    """What happened in a span of time, in order.

    `is_complete` is False when more may have happened than the engine remembered: then only
    inspections tell which lives there are now.
    """

    seen: tuple[ContainerEvent, ...] = ()
    is_complete: bool = True


@dataclass(frozen=True, slots=True)
class Offer:
    """What a host has to give: a container without a limit may take all of it.

    Cpus in millionths of one. `gpu_count` of None is not known.
    """

    cpu_micro: int
    memory_bytes: int
    gpu_count: int | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """One container as a list shows it, without its times."""

    container_id: str
    state: State


@dataclass(frozen=True, slots=True)
class Container:
    """One container as an inspection shows it.

    `finished_ns` is the end of its latest life, or for a running one that of the life before;
    times are in ns since 1970, None when there is none. Limits of None are no limits; cpus are
    in millionths of one. `gpu_count` is of devices held, or UNKNOWN_GPUS.
    """

    container_id: str
    labels: Mapping[str, str]
    state: State
    started_ns: int | None
    finished_ns: int | None
    cpu_limit_micro: int | None = None
    memory_limit_bytes: int | None = None
    gpu_count: int = 0
    network_unmetered: str = ""
    # False: nobody could be asked, only events tell of it.
    is_inspected: bool = True


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of one running container. A figure of None was not to be had.

    Counters are totals since the life began; `interfaces` maps a network interface to its
    received and sent bytes, `lo` left out.
    """

    container_id: str
    read_ms: int
    cpu_ns: int | None = None
    memory_bytes: int | None = None
    disk_read_bytes: int | None = None
    disk_write_bytes: int | None = None
    interfaces: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StorageReading:
    """What one container takes up, running or stopped: its writable layer and its volumes.

    A volume of several containers is in the reading of one of them.
    """

    container_id: str
    read_ms: int
    layer_bytes: int
    volume_bytes: int = 0


class Source(Protocol):
    """Where a host's readings come from. Every call may raise SourceError."""

    @property
    def name(self) -> str:
        """Return what gives the figures: engine, cgroup v1, cgroup v2 or simulator."""

    def clock(self) -> datetime:
        """Return the time it is now."""

    def engine_id(self) -> str:
        """Return the engine's own identity, empty when it has none."""

    def offer(self) -> Offer:
        """Return what the host has to give."""

    def list_containers(self) -> list[Listed]:
        """Return every container with a sandbox label, running or not."""

    def events_between(self, start: datetime, end: datetime) -> Events:
        """Return what happened to containers with a sandbox label in `[start, end)`."""

    def inspect(self, container_ids: Sequence[str]) -> list[Container]:
        """Return what is known of these containers; those that are gone are left out."""

    def read(self, container_ids: Sequence[str]) -> list[Reading]:
        """Return a reading of each container that runs; one that gave none is left out."""

    def read_storage(self) -> list[StorageReading]:
        """Return what each container with a sandbox label takes up. Slow: minutes apart."""
