"""The shapes of the engine's answers: only what we read of them, and of the types we expect.

So nothing of a container's environment, which holds secrets, gets in here.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Raw, Struct, field

from metering.source import Action

# Sums of a hundred of these still fit 64 bits: 2^56 bytes are 64 PiB.
Bytes = Annotated[int, Meta(ge=0, le=2**56)]
Nanoseconds = Annotated[int, Meta(ge=0, le=2**63 - 1)]
ContainerId = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class Versions(Struct):
    """Of `/version`."""

    oldest: str = field(name="MinAPIVersion")
    newest: str = field(name="ApiVersion")


class Error(Struct):
    """Of any refusal."""

    message: str


class Device(Struct):
    """A device that the engine discovered; one gpu goes by several names."""

    source: str = field(name="Source", default="")
    device_id: str = field(name="ID", default="")


class Info(Struct):
    """Of `/info`."""

    engine_id: str = field(name="ID")
    cpus: Annotated[int, Meta(ge=0, le=10**6)] = field(name="NCPU")
    memory_bytes: Bytes = field(name="MemTotal")
    devices: list[Device] | None = field(name="DiscoveredDevices", default=None)


class Mount(Struct):
    """What a container has mounted."""

    kind: str = field(name="Type", default="")
    name: str = field(name="Name", default="")


class Entry(Struct):
    """One container of `/containers/json`."""

    container_id: ContainerId = field(name="Id")
    state: str = field(name="State", default="")


class SizedEntry(Struct):
    """One container of `/containers/json?size=1`."""

    container_id: ContainerId = field(name="Id")
    created: int = field(name="Created")
    # Left out when it is zero. The engine says −1 when it could not tell.
    layer_bytes: Bytes = field(name="SizeRw", default=0)
    mounts: list[Mount] | None = field(name="Mounts", default=None)


class VolumeUse(Struct):
    """What a volume takes up, −1 when the engine could not tell."""

    size_bytes: int = field(name="Size", default=-1)


class Volume(Struct):
    """One volume of `/system/df`."""

    name: str = field(name="Name")
    use: VolumeUse | None = field(name="UsageData", default=None)


class DiskUse(Struct):
    """Of `/system/df`."""

    volumes: list[Raw] | None = field(name="Volumes", default=None)


class Actor(Struct):
    """What an event is about; its labels are among the attributes."""

    container_id: ContainerId = field(name="ID")
    attributes: dict[str, str] | None = field(name="Attributes", default=None)


class Event(Struct):
    """One line of `/events`."""

    kind: str = field(name="Type")
    action: Action = field(name="Action")
    actor: Actor = field(name="Actor")
    at_ns: Nanoseconds = field(name="timeNano")


class State(Struct):
    """Whether a container runs, and since when."""

    is_running: bool = field(name="Running")
    is_paused: bool = field(name="Paused")
    started_at: str = field(name="StartedAt")
    finished_at: str = field(name="FinishedAt")
    pid: int = field(name="Pid", default=0)
    # It waits to be started again; the engine calls that running.
    is_restarting: bool = field(name="Restarting", default=False)


class Config(Struct):
    """What a container was made with. Its `Env` holds secrets and is not read."""

    labels: dict[str, str] | None = field(name="Labels", default=None)


class DeviceRequest(Struct):
    """Devices that a container asked for; a count of −1 is every one."""

    driver: str = field(name="Driver", default="")
    count: int = field(name="Count", default=0)
    device_ids: list[str] | None = field(name="DeviceIDs", default=None)
    capabilities: list[list[str]] | None = field(name="Capabilities", default=None)


class HostConfig(Struct):
    """What a container may use. Zero and absent are no limit."""

    nano_cpus: Nanoseconds | None = field(name="NanoCpus", default=None)
    cpu_quota: int | None = field(name="CpuQuota", default=None)
    cpu_period: int | None = field(name="CpuPeriod", default=None)
    memory_bytes: Bytes | None = field(name="Memory", default=None)
    network_mode: str = field(name="NetworkMode", default="")
    device_requests: list[DeviceRequest] | None = field(name="DeviceRequests", default=None)


class Inspection(Struct):
    """Of `/containers/{id}/json`."""

    container_id: ContainerId = field(name="Id")
    state: State = field(name="State")
    config: Config = field(name="Config")
    host_config: HostConfig = field(name="HostConfig")


class CpuUsage(Struct):
    """Of a container's cgroup."""

    total_usage: Nanoseconds | None = None


class Cpu(Struct):
    """Of `cpu_stats`; the host's own time is absent when nothing was read."""

    cpu_usage: CpuUsage | None = None
    system_cpu_usage: int | None = None


class Memory(Struct):
    """Of `memory_stats`."""

    usage: Bytes | None = None
    limit: int | None = None
    stats: dict[str, int] | None = None


class DiskEntry(Struct):
    """Bytes of one operation on one device."""

    op: str
    value: Bytes


class Disk(Struct):
    """Of `blkio_stats`; null and empty are unknown."""

    io_service_bytes_recursive: list[DiskEntry] | None = None


class Interface(Struct):
    """Of one network interface."""

    rx_bytes: Bytes
    tx_bytes: Bytes


class Statistics(Struct):
    """Of `/containers/{id}/stats`."""

    container_id: ContainerId = field(name="id")
    read: str = ""
    cpu_stats: Cpu | None = None
    memory_stats: Memory | None = None
    blkio_stats: Disk | None = None
    networks: dict[str, Interface] | None = None
