"""The engine's answers: as one of 20.10 gave them, with a scripted container's figures put in."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.lookalike.containers import MS_NS, Scripted

RECORDED: dict[str, dict[str, Any]] = json.loads(
    Path(__file__).with_name("recorded.json").read_text()
)
CPUS = 2
NEVER = "0001-01-01T00:00:00Z"
# Of blkio, in the order and the spelling of each cgroup version.
_OPERATIONS = {
    1: ("Read", "Write", "Sync", "Async", "Discard", "Total"),
    2: ("read", "write"),
}


def time_text(ns: int | None) -> str:
    """Return a time as Go prints it: without the zeros at its end."""
    if ns is None:
        return NEVER
    seconds, rest = divmod(ns, 10**9)
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{rest:09d}".rstrip("0").rstrip(".")
    return f"{whole}{fraction}Z"


def entry(container: Scripted, *, with_size: bool) -> dict[str, Any]:
    """Return one container of `/containers/json`."""
    shown = RECORDED["entry"] | {
        "Id": container.container_id,
        "Names": [f"/{container.name}"],
        "Created": container.created_ns // 10**9,
        "Labels": container.labels,
        "State": container.status,
        "Status": f"{container.status.title()} for a while",
        "HostConfig": {"NetworkMode": container.network_mode},
        "Mounts": [RECORDED["mount"] | {"Name": name} for name in container.volumes],
    }
    del shown["SizeRootFs"]
    if with_size:
        shown["SizeRootFs"] = 2_000_000 + container.load.layer_bytes
        # Go leaves out a zero here.
        if container.load.layer_bytes:
            shown["SizeRw"] = container.load.layer_bytes
    return shown


def inspection(container: Scripted) -> dict[str, Any]:
    """Return the answer of `/containers/{id}/json`."""
    recorded = RECORDED["inspection"]
    return recorded | {
        "Id": container.container_id,
        "Created": time_text(container.created_ns),
        "Name": f"/{container.name}",
        "State": recorded["State"]
        | {
            "Status": container.status,
            "Running": container.is_running,
            "Paused": container.status == "paused",
            "Pid": container.pid if container.is_running else 0,
            "ExitCode": container.exit_code,
            "StartedAt": time_text(container.started_ns),
            "FinishedAt": time_text(container.finished_ns),
        },
        "Config": recorded["Config"]
        | {"Labels": container.labels, "Env": ["PASSWORD=a-secret-of-the-customer"]},
        "HostConfig": recorded["HostConfig"]
        | {
            "NanoCpus": container.nano_cpus,
            "Memory": container.memory_limit_bytes,
            "NetworkMode": container.network_mode,
            "DeviceRequests": container.device_requests,
        },
        "Mounts": [RECORDED["inspected_mount"] | {"Name": name} for name in container.volumes],
    }


def no_statistics(container: Scripted) -> dict[str, Any]:
    """Return what the engine says of a container that does not run: zeros."""
    return RECORDED["statistics_none"] | {
        "name": f"/{container.name}",
        "id": container.container_id,
    }


def statistics(container: Scripted, now_ns: int, *, cgroup_version: int) -> dict[str, Any]:
    """Return the answer of `/containers/{id}/stats` in one shot."""
    if not container.is_running:
        return no_statistics(container)
    counters, load = container.counters(now_ns), container.load
    recorded = RECORDED[f"statistics_v{cgroup_version}"]
    cpu, memory = recorded["cpu_stats"], recorded["memory_stats"]
    usage = cpu["cpu_usage"] | {"total_usage": counters.cpu_ns}
    if cgroup_version == 1:
        usage["percpu_usage"] = [counters.cpu_ns, *[0] * (CPUS - 1)]
    inactive = "total_inactive_file" if cgroup_version == 1 else "inactive_file"
    disk = _disk_entries(counters.disk_read_bytes, counters.disk_write_bytes, cgroup_version)
    shown = recorded | {
        "read": time_text(now_ns),
        "name": f"/{container.name}",
        "id": container.container_id,
        "cpu_stats": cpu | {"cpu_usage": usage, "system_cpu_usage": CPUS * now_ns},
        "memory_stats": memory
        | {
            "usage": load.memory_bytes + load.page_cache_bytes,
            "limit": container.memory_limit_bytes or RECORDED["info"]["MemTotal"],
            "stats": memory["stats"] | {inactive: load.page_cache_bytes},
        },
        "blkio_stats": recorded["blkio_stats"] | {"io_service_bytes_recursive": disk},
        "networks": {
            name: RECORDED["interface"] | {"rx_bytes": rx, "tx_bytes": tx}
            for name, (rx, tx) in counters.network_bytes.items()
        },
    }
    if container.network_mode == "host" or container.network_mode.startswith("container:"):
        del shown["networks"]
    return shown


def _disk_entries(read_bytes: int, write_bytes: int, cgroup_version: int) -> list[dict[str, Any]]:
    if not read_bytes and not write_bytes:
        return []
    figures = {"read": read_bytes, "write": write_bytes, "total": read_bytes + write_bytes}
    return [
        {"major": 254, "minor": 0, "op": operation, "value": figures.get(operation.lower(), 0)}
        for operation in _OPERATIONS[cgroup_version]
    ]


def disk_use(volume_bytes: dict[str, int]) -> dict[str, Any]:
    """Return the answer of `/system/df`."""
    volumes = [
        RECORDED["volume"] | {"Name": name, "UsageData": {"RefCount": 1, "Size": size}}
        for name, size in volume_bytes.items()
    ]
    return RECORDED["disk_use"] | {"Volumes": volumes}


def event(
    kind: str, action: str, subject: str, at_ns: int, attributes: dict[str, str]
) -> dict[str, Any]:
    """Return one line of `/events`."""
    shown = {
        "Type": kind,
        "Action": action,
        "Actor": {"ID": subject, "Attributes": attributes},
        "scope": "local",
        "time": at_ns // 10**9,
        "timeNano": at_ns,
    }
    if kind == "container":
        return {"status": action, "id": subject, "from": "busybox"} | shown
    return shown


def whole_ms(ns: int) -> int:
    """Return a time without the part below a millisecond."""
    return ns // MS_NS * MS_NS
