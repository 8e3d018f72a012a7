from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

GB = 2**30
"""Bytes of one GB, everywhere in this system: memory, storage and network."""


class Meter(StrEnum):
    """What is measured. The value names it in tables, prices and the API."""

    CPU = "cpu"
    MEMORY = "memory"
    NETWORK_EGRESS = "network_egress"
    NETWORK_INGRESS = "network_ingress"
    STORAGE = "storage"
    GPU = "gpu"
    DISK_READ = "disk_read"
    DISK_WRITE = "disk_write"
    CPU_ALLOCATED = "cpu_allocated"
    MEMORY_ALLOCATED = "memory_allocated"


@dataclass(frozen=True, slots=True)
class Unit:
    """How a meter is stored and shown.

    `stored` is the integer base unit, `shown` the unit of prices and the API, and `size`
    the number of base units in one shown unit.
    """

    stored: str
    shown: str
    size: int

    def shown_quantity(self, stored_quantity: int) -> Fraction:
        """Return the exact quantity in the shown unit."""
        return Fraction(stored_quantity, self.size)


UNITS: dict[Meter, Unit] = {
    Meter.CPU: Unit("cpu_ns", "cpu_seconds", 10**9),
    Meter.MEMORY: Unit("memory_byte_ms", "memory_gb_seconds", GB * 1000),
    Meter.NETWORK_EGRESS: Unit("network_tx_bytes", "network_egress_gb", GB),
    Meter.NETWORK_INGRESS: Unit("network_rx_bytes", "network_ingress_gb", GB),
    Meter.STORAGE: Unit("storage_byte_ms", "storage_gb_hours", GB * 3_600_000),
    Meter.GPU: Unit("gpu_ms", "gpu_seconds", 1000),
    Meter.DISK_READ: Unit("disk_read_bytes", "disk_read_bytes", 1),
    Meter.DISK_WRITE: Unit("disk_write_bytes", "disk_write_bytes", 1),
    Meter.CPU_ALLOCATED: Unit("cpu_allocated_ns", "cpu_allocated_seconds", 10**9),
    Meter.MEMORY_ALLOCATED: Unit(
        "memory_allocated_byte_ms", "memory_allocated_gb_seconds", GB * 1000
    ),
}
