"""What the kernel prints of a control group and of a network, and in which files.

Pure: bytes to integers. A function raises ValueError for what the kernel does not print.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

DiskBytes = tuple[int | None, int | None]
"""Bytes read and written; None is unknown, which is not zero."""

UNKNOWN_DISK: DiskBytes = (None, None)

# The engine names what it makes eth0, eth1, …
_ENGINE_INTERFACE = "eth"


def parse_field(content: bytes, name: bytes) -> int | None:
    """Return the value of the line `name value`, None when there is no such line."""
    needle = b"\n" + name + b" "
    lines = b"\n" + content
    found = lines.find(needle)
    if found < 0:
        return None
    start = found + len(needle)
    end = lines.find(b"\n", start)
    return int(lines[start:end] if end >= 0 else lines[start:])


def parse_cpu_stat(content: bytes) -> int:
    """Return nanoseconds of cpu time from version 2's `cpu.stat`."""
    usage_usec = parse_field(content, b"usage_usec")
    if usage_usec is None:
        raise ValueError("cpu.stat without usage_usec")
    return usage_usec * 1000


def working_set(usage_bytes: int, details: bytes) -> int:
    """Return memory in use less the page cache the kernel would give up first.

    The sum of the `docker stats` command: version 1 has `total_inactive_file`, version 2 only
    `inactive_file`; it is taken off only when it is the smaller.
    """
    inactive_bytes = parse_field(details, b"total_inactive_file")
    if inactive_bytes is None:
        inactive_bytes = parse_field(details, b"inactive_file") or 0
    return usage_bytes - inactive_bytes if inactive_bytes < usage_bytes else usage_bytes


def parse_blkio(content: bytes) -> DiskBytes:
    """Return bytes read and written, summed over devices, from version 1's `blkio` files.

    A control group that used no device prints `Total 0` and nothing else: that is unknown.
    """
    if content.startswith(b"Total"):
        return UNKNOWN_DISK
    totals: dict[bytes, int] = {}
    for line in content.splitlines():
        fields = line.split()
        if len(fields) == 3 and b":" in fields[0]:
            totals[fields[1]] = totals.get(fields[1], 0) + int(fields[2])
    return totals.get(b"Read"), totals.get(b"Write")


def parse_io_stat(content: bytes) -> DiskBytes:
    """Return bytes read and written, summed over devices, from version 2's `io.stat`.

    A device may stand there without counters, or without a number: neither says anything.
    """
    read_bytes = write_bytes = 0
    is_known = False
    for line in content.splitlines():
        device, *counters = line.split()
        if not counters or b":" not in device:
            continue
        is_known = True
        for counter in counters:
            name, _, value = counter.partition(b"=")
            if name == b"rbytes":
                read_bytes += int(value)
            elif name == b"wbytes":
                write_bytes += int(value)
    return (read_bytes, write_bytes) if is_known else UNKNOWN_DISK


def parse_net_dev(content: bytes) -> dict[str, tuple[int, int]]:
    """Return received and sent bytes of each interface in `/proc/PID/net/dev`.

    Left out are `lo`, and what kernel modules put into every network namespace (tunl0, sit0)
    as long as it has carried nothing.
    """
    interfaces: dict[str, tuple[int, int]] = {}
    # The two lines of headings have no colon, and the name of an interface cannot have one.
    for line in content.splitlines():
        name, colon, rest = line.partition(b":")
        if not colon:
            continue
        fields = rest.split()
        if len(fields) < 16:
            raise ValueError("a line of net/dev without all its counters")
        text = name.strip().decode(errors="replace")
        counters = (int(fields[0]), int(fields[8]))
        if text != "lo" and (counters != (0, 0) or text.startswith(_ENGINE_INTERFACE)):
            interfaces[text] = counters
    return interfaces


def has_foreign_interface(interfaces: Mapping[str, tuple[int, int]]) -> bool:
    """Return whether the engine may not have made all of them.

    A container that may make its own (a bridge for containers inside it) carries the same
    bytes over several; the engine counts those over its own only.
    """
    return any(not name.startswith(_ENGINE_INTERFACE) for name in interfaces)


def parse_group(content: bytes, container_id: str) -> str | None:
    """Return a container's control group, as `/proc/PID/cgroup` of a process in it tells.

    None when the process is in no group of that container. A container may have groups below
    its own (one that runs systemd has); its own is the one that is named for it.
    """
    for line in content.decode(errors="replace").splitlines():
        _, _, path = line.split(":", 2)
        parts = path.strip("/").split("/")
        for depth, part in enumerate(parts, start=1):
            if container_id in part:
                return "/".join(parts[:depth])
    return None


class KernelFile(NamedTuple):
    """A file of a control group: which hierarchy it is in, and its name."""

    hierarchy: str
    name: str


@dataclass(frozen=True, slots=True)
class Version:
    """Where one version of control groups keeps its figures, and how it prints them."""

    name: str
    cpu: KernelFile
    memory_usage: KernelFile
    memory_details: KernelFile
    disk: tuple[KernelFile, ...]
    parse_cpu: Callable[[bytes], int]
    parse_disk: Callable[[bytes], DiskBytes]


V1 = Version(
    name="cgroup v1",
    cpu=KernelFile("cpuacct", "cpuacct.usage"),
    memory_usage=KernelFile("memory", "memory.usage_in_bytes"),
    memory_details=KernelFile("memory", "memory.stat"),
    # The engine's order, so that both sources give the same: what the CFQ scheduler of kernels
    # before 5.0 counted, and if that is nothing, the throttle's count. The latter leaves out
    # groups below the container's; the file that has them is not the one the engine reads.
    disk=(
        KernelFile("blkio", "blkio.io_service_bytes_recursive"),
        KernelFile("blkio", "blkio.throttle.io_service_bytes"),
    ),
    parse_cpu=int,
    parse_disk=parse_blkio,
)
V2 = Version(
    name="cgroup v2",
    cpu=KernelFile("", "cpu.stat"),
    memory_usage=KernelFile("", "memory.current"),
    memory_details=KernelFile("", "memory.stat"),
    disk=(KernelFile("", "io.stat"),),
    parse_cpu=parse_cpu_stat,
    parse_disk=parse_io_stat,
)
