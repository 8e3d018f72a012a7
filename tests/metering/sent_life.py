"""A life that is sent, and what it comes to."""

from __future__ import annotations

from typing import Any

from metering.meters import GB, Meter
from tests.metering.runtime import MINUTE, NOON, Runtime, text_of


def a_life_of_ten_minutes(runtime: Runtime, life: str = "pod-1/0") -> list[dict[str, Any]]:
    """A sample each minute of a life that uses half a cpu and ends at the tenth."""
    start = NOON - 10 * MINUTE
    return [
        runtime.sample(
            life=life,
            started_at=text_of(start),
            read_at=text_of(start + minute * MINUTE),
            cpu_ns=30 * 10**9 * minute,
            memory_bytes=GB,
            storage_bytes=2 * GB,
            disk_read_bytes=100 * minute,
            disk_write_bytes=200 * minute,
            interfaces={
                "eth0": {"rx_bytes": 5 * minute, "tx_bytes": 7 * minute},
                "lo": {"rx_bytes": 10**9, "tx_bytes": 10**9},
            },
            cpu_limit_micro=500_000,
            memory_limit_bytes=2 * GB,
            gpu_count=1,
            interval_s=60,
            **({"state": "stopped", "event": "stopped"} if minute == 10 else {}),
        )
        for minute in range(1, 11)
    ]


CLOSED_FORM = {
    Meter.CPU: 300 * 10**9,
    # Held from the first sample, after a minute, to the end.
    Meter.MEMORY: GB * 540_000,
    Meter.STORAGE: 2 * GB * 540_000,
    Meter.NETWORK_EGRESS: 70,
    Meter.NETWORK_INGRESS: 50,
    Meter.DISK_READ: 1000,
    Meter.DISK_WRITE: 2000,
    Meter.GPU: 600_000,
    Meter.CPU_ALLOCATED: 500_000 * 600_000,
    Meter.MEMORY_ALLOCATED: 2 * GB * 600_000,
}
