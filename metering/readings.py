"""Where a series stands after its last reading, and what a fold of samples gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from metering.samples import Known, Records, State

NEVER = -1
"""A time in ms that stands for: no such reading yet."""

HELD_INTERVALS = 5
"""A gauge counts for at most so many of its own intervals after its reading."""

LIFE_COUNTERS = {
    "cpu_ns": Known.CPU,
    "disk_read_bytes": Known.DISK_READ,
    "disk_write_bytes": Known.DISK_WRITE,
}
ALL_COUNTERS = int(Known.CPU | Known.DISK_READ | Known.DISK_WRITE)
INTERFACE_COUNTERS = {"rx_bytes": 1, "tx_bytes": 2}
ALL_INTERFACE_COUNTERS = 3

# What counts in which state; the counters cannot grow where they do not count. Storage counts
# as long as the container exists, whatever it does.
COUNTING = {
    "memory_byte_ms": (State.RUNNING, State.PAUSED),
    "memory_allocated_byte_ms": (State.RUNNING, State.PAUSED),
    "gpu_ms": (State.RUNNING, State.PAUSED),
    "cpu_allocated_ns": (State.RUNNING,),
}
# Each is a fact of the life times the time it counts; a millionth of a cpu for 1 ms is 1 ns.
ALLOCATED = {
    "cpu_allocated_ns": "cpu_limit_micro",
    "memory_allocated_byte_ms": "memory_limit_bytes",
    "gpu_ms": "gpu_count",
}

# Where a life stands after its last reading; what the next batch goes on from.
LIFE_READING = np.dtype(
    [("life", "<i8"), ("read_ms", "<i8")]
    + [(prefix + name, "<i8") for name in LIFE_COUNTERS for prefix in ("", "base_")]
    + [
        ("known", "<i8"),
        ("memory_bytes", "<i8"),
        ("memory_held_until_ms", "<i8"),
        ("cpu_limit_micro", "<i8"),
        ("memory_limit_bytes", "<i8"),
        ("gpu_count", "<i8"),
        ("state", "<i8"),
        ("sample_count", "<i8"),
        ("out_of_order_count", "<i8"),
    ]
)
INTERFACE_READING = np.dtype(
    [("interface", "<i8"), ("life", "<i8"), ("read_ms", "<i8")]
    + [(prefix + name, "<i8") for name in INTERFACE_COUNTERS for prefix in ("", "base_")]
    + [("known", "<i8")]
)
STORAGE_READING = np.dtype(
    [
        ("life", "<i8"),
        ("read_ms", "<i8"),
        ("storage_bytes", "<i8"),
        ("storage_held_until_ms", "<i8"),
        ("is_gone", "<i8"),
        ("out_of_order_count", "<i8"),
    ]
)
USAGE = np.dtype(
    [("life", "<i8"), ("window_ms", "<i8")]
    + [(prefix + name, "<i8") for name in LIFE_COUNTERS for prefix in ("", "opening_", "closing_")]
    + [
        ("memory_byte_ms", "<i8"),
        ("cpu_allocated_ns", "<i8"),
        ("memory_allocated_byte_ms", "<i8"),
        ("gpu_ms", "<i8"),
        ("running_ms", "<i8"),
        ("measured_ms", "<i8"),
        ("sample_count", "<i8"),
        ("first_sample_ms", "<i8"),
        ("last_sample_ms", "<i8"),
    ]
)
NETWORK_USAGE = np.dtype(
    [("interface", "<i8"), ("window_ms", "<i8")]
    + [
        (prefix + name, "<i8")
        for name in INTERFACE_COUNTERS
        for prefix in ("", "opening_", "closing_")
    ]
    + [("sample_count", "<i8")]
)
STORAGE_USAGE = np.dtype(
    [
        ("life", "<i8"),
        ("window_ms", "<i8"),
        ("storage_byte_ms", "<i8"),
        ("existing_ms", "<i8"),
        ("measured_ms", "<i8"),
        ("sample_count", "<i8"),
    ]
)


@dataclass(frozen=True, slots=True)
class Gap:
    """Time in which a life ran and a meter was not measured. Times in ms, half-open."""

    life: int
    meter: str
    start_ms: int
    end_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class Reset:
    """A counter that fell inside a life: one segment ends, the next starts at `after`.

    The fall itself is billed to nobody. `series` is the life, or the interface, that fell.
    """

    life: int
    series: int
    counter: str
    start_ms: int
    at_ms: int
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Fold:
    """What a batch of samples adds: usage to add up, readings to replace, gaps and resets."""

    usage: Records
    readings: Records
    gaps: list[Gap]
    resets: list[Reset]


@dataclass(frozen=True, slots=True)
class Allocation:
    """What a life may take: millionths of a cpu, bytes of memory, devices it holds."""

    cpu_limit_micro: int = 0
    memory_limit_bytes: int = 0
    gpu_count: int = 0


def new_life_reading(
    life: int, *, started_ms: int, counts_from_zero: bool, allocation: Allocation | None = None
) -> Records:
    """Return where a life stands before its first sample, an array of one.

    A life that began after its account and host were registered counts from zero. Any other
    has no base line yet: its first sample becomes that, and what was before is not billed.
    """
    allocation = allocation or Allocation()
    reading = np.zeros(1, LIFE_READING)
    reading["life"] = life
    reading["read_ms"] = started_ms if counts_from_zero else NEVER
    reading["known"] = ALL_COUNTERS if counts_from_zero else 0
    reading["memory_held_until_ms"] = NEVER
    reading["state"] = State.RUNNING
    for name in ALLOCATED.values():
        reading[name] = getattr(allocation, name)
    return reading


def new_storage_readings(
    lives: npt.NDArray[np.int64], *, from_ms: npt.NDArray[np.int64]
) -> Records:
    """Return where the storage of lives stands before its first sample, a row for each life.

    `from_ms` is when each began to count, or NEVER: then its first sample is where it begins.
    """
    readings = np.zeros(len(lives), STORAGE_READING)
    readings["life"] = lives
    readings["read_ms"] = from_ms
    readings["storage_held_until_ms"] = NEVER
    return readings


def new_interface_readings(
    first_samples: Records, *, life_readings: Records, life_samples: Records
) -> Records:
    """Return where interfaces stand before their first samples, a row for each of these.

    An interface counts from the reading of its life before it was first seen: the newest of
    `life_samples` before that, else the life's row in `life_readings`, which is sorted by life
    and was true before those samples.
    """
    life = np.searchsorted(life_readings["life"], first_samples["life"])
    from_ms = np.maximum(
        life_readings["read_ms"][life],
        _newest_before(life, first_samples["read_ms"], life_readings, life_samples),
    )
    readings = np.zeros(len(first_samples), INTERFACE_READING)
    readings["interface"] = first_samples["interface"]
    readings["life"] = first_samples["life"]
    readings["read_ms"] = from_ms
    # A first reading of the life is the base line of its interfaces too.
    readings["known"] = np.where(from_ms == NEVER, 0, ALL_INTERFACE_COUNTERS)
    return readings


def _newest_before(
    life: npt.NDArray[np.int64],
    at_ms: npt.NDArray[np.int64],
    life_readings: Records,
    life_samples: Records,
) -> npt.NDArray[np.int64]:
    """Return the time of each life's newest sample before a time, NEVER where it has none."""
    if not (len(life_samples) and len(life)):
        return np.full(len(life), NEVER)
    # Life and time in one number that sorts as the pair does.
    earliest_ms = min(int(life_samples["read_ms"].min()), int(at_ms.min()))
    span_ms = max(int(life_samples["read_ms"].max()), int(at_ms.max())) - earliest_ms + 1
    row = np.searchsorted(life_readings["life"], life_samples["life"])
    codes = np.sort(row * span_ms + (life_samples["read_ms"] - earliest_ms))
    before = np.searchsorted(codes, life * span_ms + (at_ms - earliest_ms)) - 1
    newest = codes[np.maximum(before, 0)]
    is_of_life = (before >= 0) & (newest // span_ms == life)
    return np.where(is_of_life, newest % span_ms + earliest_ms, NEVER)
