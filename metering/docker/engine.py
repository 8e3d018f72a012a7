from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import TypeVar

from metering.docker import answers
from metering.docker.client import AbsentError, EngineClient, Stream, UnreachableError, with_query
from metering.period import EPOCH, MILLISECOND, to_ms
from metering.source import (
    SANDBOX_LABEL,
    UNKNOWN_GPUS,
    Action,
    Container,
    ContainerEvent,
    Events,
    Listed,
    Offer,
    Reading,
    SourceError,
    StorageReading,
)

# What takes long is counting the files of every volume. Below the time a task may take.
STORAGE_TIMEOUT_S = 80
# Of all events, whatever they are about.
REMEMBERED_EVENTS = 256

Answer = TypeVar("Answer")


class DockerEngine:
    """One engine. Calls about containers run side by side, at most `concurrency` at once.

    An answer about one container that cannot be read costs that container only.
    """

    def __init__(
        self, endpoint: str, *, concurrency: int, timeout_s: float, certificates: str = ""
    ) -> None:
        self._client = EngineClient(
            endpoint, concurrency=concurrency, timeout_s=timeout_s, certificates=certificates
        )

    @property
    def name(self) -> str:
        """Return what gives the figures."""
        return "engine"

    def clock(self) -> datetime:
        """Return the time it is now."""
        return datetime.now(UTC)

    def engine_id(self) -> str:
        """Return the identity that the engine made for itself when it was installed."""
        return answers.parse_engine_id(self._client.get("/info"))

    def offer(self) -> Offer:
        """Return what the host has to give; its gpus where the engine discovers devices."""
        return answers.parse_offer(self._client.get("/info"))

    def list_containers(self) -> list[Listed]:
        """Return every container with a sandbox label, running or not."""
        path = with_query("/containers/json", all=1, filters=_filters())
        return answers.parse_list(self._client.get(path))

    def events_between(self, start: datetime, end: datetime) -> Events:
        """Return what happened to containers with a sandbox label in `[start, end)`.

        The engine remembers its last 256 events of any kind and nothing from before it was
        started: what is missing here, the list and the inspection show. It answers when `end`
        is over by its own clock.
        """
        start_ns, end_ns = _to_ns(start), _to_ns(end)
        # Not filtered by the engine: only the number of all events tells whether some are lost.
        times = {"since": _engine_time(start), "until": _engine_time(end)}
        lines = self._client.get(with_query("/events", **times)).splitlines()
        events = [event for line in lines if (event := answers.parse_event(line))]
        return Events(
            tuple(
                sorted(
                    (event for event in events if start_ns <= event.at_ns < end_ns),
                    key=lambda event: event.at_ns,
                )
            ),
            is_complete=len(lines) < REMEMBERED_EVENTS,
        )

    def watch_events(self, since: datetime) -> Stream[ContainerEvent]:
        """Return what happens to containers with a sandbox label, as it happens.

        Iterating blocks, and raises SourceError when the connection ends. `close()` from any
        thread ends it. What the engine remembers since `since` comes first.
        """
        return self._client.follow(_events_path(since=since), answers.parse_event)

    def inspect(self, container_ids: Sequence[str]) -> list[Container]:
        """Return what is known of these containers; those that are gone are left out.

        So are those whose answer cannot be read.
        """
        containers = self._inspect_each(container_ids, answers.parse_inspection)
        if all(container.gpu_count != UNKNOWN_GPUS for container in containers):
            return containers
        if (gpu_count := self.offer().gpu_count) is None:
            return containers
        return [
            replace(container, gpu_count=gpu_count)
            if container.gpu_count == UNKNOWN_GPUS
            else container
            for container in containers
        ]

    def find_pids(self, container_ids: Sequence[str]) -> dict[str, int]:
        """Return the first process of each of these containers that runs, as the host sees it."""
        return dict(self._inspect_each(container_ids, answers.parse_pid))

    def read(self, container_ids: Sequence[str]) -> list[Reading]:
        """Return a reading of each container that runs; one that gave none is left out.

        The next pass reads it: its counters carry what it used meanwhile, and a gap says what
        its gauges missed.
        """
        paths = [
            with_query(f"/containers/{key}/stats", stream="false", **{"one-shot": "true"})
            for key in container_ids
        ]
        found = self._client.get_each(paths, answers.parse_statistics)
        unreachable = [answer for answer in found if isinstance(answer, UnreachableError)]
        if unreachable and len(unreachable) == len(found):
            raise unreachable[0]
        return [
            reading
            for key, reading in zip(container_ids, found, strict=True)
            if isinstance(reading, Reading) and reading.container_id == key
        ]

    def read_storage(self) -> list[StorageReading]:
        """Return what each container with a sandbox label takes up. Slow: minutes apart.

        One whose layer the engine cannot measure is left out.
        """
        containers, disk_use = self._client.get_all(
            [
                with_query("/containers/json", all=1, size=1, filters=_filters()),
                with_query("/system/df", type="volume"),
            ],
            timeout_s=STORAGE_TIMEOUT_S,
        )
        return answers.parse_storage(containers, disk_use, read_ms=to_ms(self.clock()))

    def _inspect_each(
        self, container_ids: Sequence[str], parse: Callable[[bytes], Answer | None]
    ) -> list[Answer]:
        found = []
        for answer in self._client.get_each(
            [f"/containers/{key}/json" for key in container_ids], parse
        ):
            if isinstance(answer, SourceError) and not isinstance(answer, AbsentError):
                # Left out, its container would pass for one that is gone, and its life end.
                raise answer
            if answer is not None and not isinstance(answer, SourceError):
                found.append(answer)
        return found


@cache
def docker_engine(
    endpoint: str, concurrency: int, timeout_s: int, certificates: str = ""
) -> DockerEngine:
    """Return this process' one client of an engine. Raises SourceError.

    `certificates` is the folder of what proves the two to each other over TLS; empty: none.
    """
    return DockerEngine(
        endpoint, concurrency=concurrency, timeout_s=timeout_s, certificates=certificates
    )


def _filters(**more: list[str]) -> str:
    return json.dumps({"label": [SANDBOX_LABEL], **more})


def _events_path(**bounds: datetime) -> str:
    times = {name: _engine_time(moment) for name, moment in bounds.items()}
    filters = _filters(type=["container"], event=[str(action) for action in Action])
    return with_query("/events", filters=filters, **times)


def _to_ns(moment: datetime) -> int:
    return (moment - EPOCH) // (MILLISECOND / 1000) * 1000


def _engine_time(moment: datetime) -> str:
    seconds, ns = divmod(_to_ns(moment), 10**9)
    return f"{seconds}.{ns:09d}"
