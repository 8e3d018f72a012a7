"""The Docker engine as a source. The one file that imports its SDK."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cache
from typing import Any, TypeVar

from docker import APIClient
from docker.errors import APIError, DockerException, NotFound
from requests.exceptions import RequestException

from metering.period import EPOCH, MILLISECOND
from metering.samples import State
from metering.source import SANDBOX_LABEL, Change, Container, Listed, Reading, SourceError

# The first version whose statistics can be had in one shot.
API_VERSION = "1.41"
_EVENTS = ["start", "die", "oom", "destroy", "pause", "unpause"]
_STATES = {"running": State.RUNNING, "paused": State.PAUSED}
_NS = 10**9

Answer = TypeVar("Answer")


class DockerEngine:
    """One engine. Calls run side by side, at most `concurrency`, over pooled connections."""

    def __init__(self, endpoint: str, *, concurrency: int, timeout_s: int) -> None:
        self._endpoint = endpoint
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="docker")
        self._client = self._reach(
            lambda: APIClient(
                base_url=endpoint,
                version=API_VERSION,
                timeout=timeout_s,
                num_pools=1,
                max_pool_size=concurrency,
            )
        )

    def list_containers(self) -> list[Listed]:
        """Return every container with a sandbox label, running or not."""
        found = self._reach(
            lambda: self._client.containers(all=True, filters={"label": SANDBOX_LABEL})
        )
        return [Listed(c["Id"], _STATES.get(c["State"], State.STOPPED)) for c in found]

    def clock(self) -> datetime:
        """Return the time it is now."""
        return datetime.now(UTC)

    def engine_id(self) -> str:
        """Return the identity that the engine made for itself when it was installed."""
        return str(self._reach(self._client.info)["ID"])

    def changes_between(self, start: datetime, end: datetime) -> dict[str, Change]:
        """Return the containers that started, ended or were removed, and when."""
        events = self._reach(
            lambda: list(
                self._client.events(  # type: ignore[call-overload]  # the stubs know no ns
                    since=_engine_time(start),
                    until=_engine_time(end),
                    filters={"type": "container", "event": _EVENTS, "label": SANDBOX_LABEL},
                    decode=True,
                )
            )
        )
        changes: dict[str, Change] = {}
        for event in events:
            container_id, at_ns = event["Actor"]["ID"], event["timeNano"]
            before = changes.get(container_id, Change(at_ns, None))
            died_ns = at_ns if event["Action"] == "die" else before.died_ns
            changes[container_id] = Change(at_ns, died_ns)
        return changes

    def inspect(self, container_ids: Sequence[str]) -> list[Container]:
        """Return what is known of these containers; those that are gone are left out."""
        return list(self._each(self._inspect_one, container_ids))

    def read(self, container_ids: Sequence[str]) -> list[Reading]:
        """Return a reading of each container that runs."""
        return list(self._each(self._read_one, container_ids))

    def _each(self, ask: Callable[[str], Answer | None], ids: Sequence[str]) -> Iterable[Answer]:
        return (answer for answer in self._pool.map(ask, ids) if answer is not None)

    def _inspect_one(self, container_id: str) -> Container | None:
        try:
            answer = self._client.inspect_container(container_id)
        except NotFound:
            return None
        except (APIError, RequestException) as error:
            raise self._unreachable(error) from error
        return parse_inspection(answer)

    def _read_one(self, container_id: str) -> Reading | None:
        try:
            answer = self._client.stats(container_id, stream=False, one_shot=True)
        except (APIError, RequestException):
            # One container that cannot be read now is read by the next pass; its counters
            # carry what it used meanwhile, and a gap row says what its gauges missed.
            return None
        return parse_statistics(answer)

    def _reach(self, ask: Callable[[], Answer]) -> Answer:
        try:
            return ask()
        except (DockerException, RequestException) as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> SourceError:
        return SourceError(f"The Docker engine at {self._endpoint} did not answer: {error}")


@cache
def docker_engine(endpoint: str, concurrency: int, timeout_s: int) -> DockerEngine:
    """Return this process' one client of an engine. Raises SourceError."""
    return DockerEngine(endpoint, concurrency=concurrency, timeout_s=timeout_s)


def parse_inspection(answer: dict[str, Any]) -> Container:
    """Return the container that an answer of `/containers/{id}/json` describes."""
    state, config = answer["State"], answer["HostConfig"]
    paused_or_running = State.PAUSED if state["Paused"] else State.RUNNING
    return Container(
        container_id=answer["Id"],
        labels=answer["Config"].get("Labels") or {},
        state=paused_or_running if state["Running"] else State.STOPPED,
        started_ns=parse_time(state["StartedAt"]),
        finished_ns=parse_time(state["FinishedAt"]),
        cpu_limit_nano=_cpu_limit_nano(config),
        memory_limit_bytes=config.get("Memory") or None,
        network_unmetered=_network_unmetered(config.get("NetworkMode", "")),
    )


def _cpu_limit_nano(config: dict[str, Any]) -> int | None:
    if nano := config.get("NanoCpus"):
        return int(nano)
    quota, period = config.get("CpuQuota") or 0, config.get("CpuPeriod") or 100_000
    return quota * _NS // period if quota > 0 else None


def _network_unmetered(mode: str) -> str:
    if mode.startswith("container:"):
        return "container"
    return mode if mode in {"host", "none"} else ""


def parse_statistics(answer: dict[str, Any]) -> Reading | None:
    """Return the reading in an answer of `/containers/{id}/stats`, None when it holds none.

    A container that does not run answers 200 with zeros: the read time is the year 1, or the
    host's own cpu time is absent. Both mean "no data".
    """
    read_ns = parse_time(answer.get("read", ""))
    cpu = answer.get("cpu_stats") or {}
    if read_ns is None or "system_cpu_usage" not in cpu:
        return None
    memory = answer.get("memory_stats") or {}
    disk = _disk_bytes(answer.get("blkio_stats") or {})
    return Reading(
        container_id=answer["id"],
        read_ms=read_ns // 10**6,
        cpu_ns=cpu["cpu_usage"]["total_usage"],
        memory_bytes=_working_set(memory),
        memory_limit_bytes=memory.get("limit") or 0,
        disk_read_bytes=disk.get("read"),
        disk_write_bytes=disk.get("write"),
        interfaces={
            name: (counters["rx_bytes"], counters["tx_bytes"])
            for name, counters in (answer.get("networks") or {}).items()
            if name != "lo"
        },
    )


def _working_set(memory: dict[str, Any]) -> int | None:
    """Return memory in use less the page cache the kernel would give up first.

    The formula of the `docker stats` command: `total_inactive_file` on cgroup v1,
    `inactive_file` on v2, taken off only when it is the smaller.
    """
    usage = memory.get("usage")
    if usage is None:
        return None
    details = memory.get("stats") or {}
    inactive = details.get("total_inactive_file", details.get("inactive_file", 0))
    return int(usage - inactive if inactive < usage else usage)


def _disk_bytes(blkio: dict[str, Any]) -> dict[str, int]:
    """Return bytes read and written, summed over devices; empty when nothing was counted.

    cgroup v1 says Read, Write, Sync, Async and Total; v2 says read and write. A list that is
    null or empty is unknown, not zero.
    """
    totals: dict[str, int] = {}
    for entry in blkio.get("io_service_bytes_recursive") or []:
        operation = entry["op"].lower()
        if operation in {"read", "write"}:
            totals[operation] = totals.get(operation, 0) + entry["value"]
    return totals


def parse_time(text: str) -> int | None:
    """Return an engine's RFC 3339 time in ns since 1970, None for the year 1 or no text."""
    if not text or text.startswith("0001-"):
        return None
    seconds, _, rest = text.removesuffix("Z").partition(".")
    whole = datetime.fromisoformat(seconds[:19]).replace(tzinfo=UTC)
    return (whole - EPOCH) // MILLISECOND * 10**6 + int((rest[:9] or "0").ljust(9, "0"))


def _engine_time(moment: datetime) -> str:
    microseconds = (moment - EPOCH) // (MILLISECOND / 1000)
    return f"{microseconds // 10**6}.{microseconds % 10**6 * 1000:09d}"
