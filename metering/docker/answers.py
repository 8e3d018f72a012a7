"""What the engine's answers say.

An answer about one container that is not as expected gives None: names and labels are a
stranger's, and one bad container must not cost the others their reading.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from msgspec import DecodeError, Raw, convert, json

from metering.docker import shapes
from metering.period import EPOCH
from metering.samples import State
from metering.source import (
    SANDBOX_LABEL,
    UNKNOWN_GPUS,
    Container,
    ContainerEvent,
    Listed,
    Offer,
    Reading,
    SourceError,
    StorageReading,
)

_STATES = {"running": State.RUNNING, "paused": State.PAUSED}
_MICRO = 10**6
_NS = 10**9
_OUR_LABELS = "soulbox."
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII)
_MAX_REASON = 300

Expected = TypeVar("Expected")
Decoded = dict[str, Any]


def _decode(body: bytes | Raw | Decoded, expected: type[Expected]) -> Expected | None:
    try:
        if isinstance(body, dict):
            return convert(body, expected)
        return json.decode(body, type=expected)
    except (DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _decode_or_refuse(body: bytes, expected: type[Expected], what: str) -> Expected:
    if (answer := _decode(body, expected)) is None:
        raise SourceError(f"The Docker engine's answer on {what} cannot be read.")
    return answer


def _decode_each(bodies: Iterable[Raw], expected: type[Expected]) -> list[Expected]:
    return [entry for body in bodies if (entry := _decode(body, expected)) is not None]


def parse_versions(body: bytes) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the oldest and the newest API an engine speaks. Raises SourceError."""
    answer = _decode_or_refuse(body, shapes.Versions, "its version")
    try:
        return _version(answer.oldest), _version(answer.newest)
    except ValueError:
        raise SourceError("The Docker engine's API version cannot be read.") from None


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")
    return int(major), int(minor)


def parse_error(body: bytes) -> str:
    """Return the reason that an answer of refusal gives, in short."""
    error = _decode(body, shapes.Error)
    return (error.message if error else body.decode("utf-8", "replace"))[:_MAX_REASON]


def parse_engine_id(body: bytes) -> str:
    """Return the engine's own identity from an answer of `/info`. Raises SourceError."""
    return _decode_or_refuse(body, shapes.Info, "itself").engine_id


def parse_offer(body: bytes) -> Offer:
    """Return what a host has from an answer of `/info`. Raises SourceError."""
    info = _decode_or_refuse(body, shapes.Info, "itself")
    return Offer(
        cpu_micro=info.cpus * _MICRO,
        memory_bytes=info.memory_bytes,
        gpu_count=None if info.devices is None else _gpus_discovered(info.devices),
    )


def _gpus_discovered(devices: Iterable[shapes.Device]) -> int:
    """Return the gpus among devices that are listed by several names each.

    A gpu goes by its index and by its UUID, and `all` is every one of them.
    """
    names = {device.device_id for device in devices if device.source == "cdi"}
    gpus = {name.partition("=")[2] for name in names if "/gpu=" in name} - {"all", ""}
    by_uuid = {name for name in gpus if name.startswith(("GPU-", "MIG-"))}
    return len(by_uuid or gpus)


def parse_list(body: bytes) -> list[Listed]:
    """Return the containers of an answer of `/containers/json`. Raises SourceError."""
    entries = _decode_or_refuse(body, list[Raw], "its containers")
    return [
        Listed(entry.container_id, _STATES.get(entry.state, State.STOPPED))
        for entry in _decode_each(entries, shapes.Entry)
    ]


def parse_storage(containers: bytes, disk_use: bytes, *, read_ms: int) -> list[StorageReading]:
    """Return what containers take up, from a list with sizes and an answer of `/system/df`.

    A volume counts for the container that was created first. Raises SourceError.
    """
    entries = _decode_or_refuse(containers, list[Raw], "its containers")
    volumes = _decode_or_refuse(disk_use, shapes.DiskUse, "its disk use").volumes or []
    left = {volume.name: volume.use for volume in _decode_each(volumes, shapes.Volume)}
    readings = []
    for entry in sorted(
        _decode_each(entries, shapes.SizedEntry), key=lambda e: (e.created, e.container_id)
    ):
        names = {mount.name for mount in entry.mounts or () if mount.kind == "volume"}
        uses = [left.pop(name, None) for name in names]
        readings.append(
            StorageReading(
                container_id=entry.container_id,
                read_ms=read_ms,
                layer_bytes=entry.layer_bytes,
                # A size of −1 is one that the engine could not tell.
                volume_bytes=sum(use.size_bytes for use in uses if use and use.size_bytes > 0),
            )
        )
    return readings


def parse_event(line: bytes) -> ContainerEvent | None:
    """Return what a line of `/events` says, None when we do not look for it."""
    event = _decode(line, shapes.Event)
    if event is None or event.kind != "container":
        return None
    if SANDBOX_LABEL not in (event.actor.attributes or {}):
        return None
    return ContainerEvent(
        event.actor.container_id, event.action, event.at_ns, _our_labels(event.actor.attributes)
    )


def _our_labels(labels: Mapping[str, str] | None) -> dict[str, str]:
    return {key: value for key, value in (labels or {}).items() if key.startswith(_OUR_LABELS)}


def parse_pid(body: bytes) -> tuple[str, int] | None:
    """Return a running container's id and its first process from an inspection."""
    answer = _decode(body, shapes.Inspection)
    if answer is None or not answer.state.is_running or answer.state.pid <= 0:
        return None
    return answer.container_id, answer.state.pid


def parse_inspection(body: bytes) -> Container | None:
    """Return the container that an answer of `/containers/{id}/json` describes."""
    if (answer := _decode(body, shapes.Inspection)) is None:
        return None
    state, config = answer.state, answer.host_config
    runs = state.is_running and not state.is_restarting
    paused_or_running = State.PAUSED if state.is_paused else State.RUNNING
    try:
        started_ns, finished_ns = parse_time(state.started_at), parse_time(state.finished_at)
    except ValueError:
        return None
    return Container(
        container_id=answer.container_id,
        labels=_our_labels(answer.config.labels),
        state=paused_or_running if runs else State.STOPPED,
        started_ns=started_ns,
        finished_ns=finished_ns,
        cpu_limit_micro=_cpu_limit(config, _MICRO),
        memory_limit_bytes=config.memory_bytes or None,
        gpu_count=_gpus_requested(config.device_requests or ()),
        network_unmetered=_network_unmetered(config.network_mode),
    )


def _cpu_limit(config: shapes.HostConfig, parts: int) -> int | None:
    """Return the limit in parts of a cpu, rounded down: whole ones of 1 ms are whole ns."""
    if config.nano_cpus:
        return config.nano_cpus * parts // _NS
    quota, period = config.cpu_quota or 0, config.cpu_period or 100_000
    return quota * parts // period if quota > 0 and period > 0 else None


def _gpus_requested(requests: Iterable[shapes.DeviceRequest]) -> int:
    """Return how many gpus a container holds, UNKNOWN_GPUS when it holds every one."""
    total = 0
    for request in requests:
        ids = set(request.device_ids or ())
        if request.driver == "cdi":
            ids = {name.partition("=")[2] for name in ids if "/gpu=" in name}
        elif request.driver not in {"", "nvidia"} or not any(
            "gpu" in capabilities for capabilities in request.capabilities or ()
        ):
            continue
        if "all" in ids or (request.count < 0 and not ids):
            return UNKNOWN_GPUS
        total += len(ids) if request.driver == "cdi" or ids else request.count
    return total


def _network_unmetered(mode: str) -> str:
    if mode.startswith("container:"):
        return "container"
    return mode if mode in {"host", "none"} else ""


def parse_statistics(body: bytes | Decoded) -> Reading | None:
    """Return the reading in an answer of `/containers/{id}/stats`, None when it holds none.

    The answer is as the engine gave it, or as another client of the engine decoded it.
    A container that does not run answers 200 with zeros: the read time is the year 1, or the
    host's own cpu time is absent. Both mean "no data".
    """
    answer = _decode(body, shapes.Statistics)
    if answer is None or answer.cpu_stats is None or answer.cpu_stats.system_cpu_usage is None:
        return None
    try:
        read_ns = parse_time(answer.read)
    except ValueError:
        return None
    if read_ns is None:
        return None
    memory, cpu = (
        answer.memory_stats or shapes.Memory(),
        answer.cpu_stats.cpu_usage or shapes.CpuUsage(),
    )
    disk = _disk_bytes((answer.blkio_stats or shapes.Disk()).io_service_bytes_recursive or ())
    return Reading(
        container_id=answer.container_id,
        read_ms=read_ns // 10**6,
        cpu_ns=cpu.total_usage,
        memory_bytes=_working_set(memory),
        disk_read_bytes=disk.get("read"),
        disk_write_bytes=disk.get("write"),
        interfaces={
            name: (interface.rx_bytes, interface.tx_bytes)
            for name, interface in (answer.networks or {}).items()
            if name != "lo"
        },
    )


def _working_set(memory: shapes.Memory) -> int | None:
    """Return memory in use less the page cache the kernel would give up first.

    The formula of the `docker stats` command: `total_inactive_file` on cgroup v1,
    `inactive_file` on v2, taken off only when it is the smaller.
    """
    if memory.usage is None:
        return None
    details = memory.stats or {}
    inactive = details.get("total_inactive_file", details.get("inactive_file", 0))
    return memory.usage - inactive if 0 <= inactive < memory.usage else memory.usage


def _disk_bytes(entries: Iterable[shapes.DiskEntry]) -> dict[str, int]:
    """Return bytes read and written, summed over devices; empty when nothing was counted.

    cgroup v1 says Read, Write, Sync, Async and Total; v2 says read and write. A list that is
    null or empty is unknown, not zero.
    """
    totals: dict[str, int] = {}
    for entry in entries:
        operation = entry.op.lower()
        if operation in {"read", "write"}:
            totals[operation] = totals.get(operation, 0) + entry.value
    return totals


def parse_time(text: str) -> int | None:
    """Return an engine's RFC 3339 time in ns since 1970, None for the year 1 or no text.

    Raises ValueError when it is no time, or none that an engine could have seen.
    """
    if not text or text.startswith("0001-"):
        return None
    if not (found := _TIME.fullmatch(text)):
        raise ValueError(f"{text[:40]!r} is no RFC 3339 time.")
    whole = datetime.fromisoformat(found[1] + found[3]) - EPOCH
    ns = (whole.days * 86400 + whole.seconds) * _NS + int((found[2] or "").ljust(9, "0"))
    if not 0 <= ns < 2**63:
        raise ValueError(f"{text[:40]!r} is before 1970 or after 2262.")
    return ns
