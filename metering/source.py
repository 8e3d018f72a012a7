"""What a source of readings offers: the Docker engine, the simulator, others to come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from metering.samples import State

SANDBOX_LABEL = "soulbox.sandbox_id"
ACCOUNT_LABEL = "soulbox.account_id"


class SourceError(Exception):
    """The source could not be asked; the message says what and why. Nothing was read."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One container as a list shows it, without its times."""

    container_id: str
    state: State


@dataclass(frozen=True, slots=True)
class Change:
    """When a container last began or ended a life, and when it last ended one, in ns.

    `died_ns` is None when it has not ended one in the time asked for.
    """

    changed_ns: int
    died_ns: int | None


@dataclass(frozen=True, slots=True)
class Container:
    """One container as an inspection shows it.

    `finished_at` is the end of its latest life, or for a running one that of the life before;
    times are in ns since 1970, None when there is none. Limits of None are no limits.
    """

    container_id: str
    labels: dict[str, str]
    state: State
    started_ns: int | None
    finished_ns: int | None
    cpu_limit_nano: int | None = None
    memory_limit_bytes: int | None = None
    network_unmetered: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of one running container. A figure of None was not to be had.

    Counters are totals since the life began; `interfaces` maps a network interface to its
    received and sent bytes.
    """

    container_id: str
    read_ms: int
    cpu_ns: int | None = None
    memory_bytes: int | None = None
    memory_limit_bytes: int = 0
    disk_read_bytes: int | None = None
    disk_write_bytes: int | None = None
    interfaces: dict[str, tuple[int, int]] = field(default_factory=dict)


class Source(Protocol):
    """Where a host's readings come from. Every call may raise SourceError."""

    def list_containers(self) -> list[Listed]:
        """Return every container with a sandbox label, running or not."""

    def clock(self) -> datetime:
        """Return the time it is now."""

    def engine_id(self) -> str:
        """Return the engine's own identity, empty when it has none."""

    def changes_between(self, start: datetime, end: datetime) -> dict[str, Change]:
        """Return the containers that started, ended, or were removed in `[start, end)`."""

    def inspect(self, container_ids: Sequence[str]) -> list[Container]:
        """Return what is known of these containers; those that are gone are left out."""

    def read(self, container_ids: Sequence[str]) -> list[Reading]:
        """Return a reading of each container that runs; one that gave none is left out."""
