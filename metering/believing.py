"""Which samples can be true. The others are counted with what is wrong, and left out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from metering.lives import refuse
from metering.models import Host, Refusal
from metering.period import to_ms
from metering.samples import Known, Records, State
from metering.steps import Bools

ACCEPTED_AHEAD = timedelta(minutes=5)
ACCEPTED_BEHIND = timedelta(days=35)
# Held for a window, more memory than this would pass 64 bits; no host has so much.
LARGEST_MEMORY_BYTES = 8 * 2**40
LARGEST_STORAGE_BYTES = 8 * 2**40
LARGEST_CPU_LIMIT_MICRO = 100_000 * 10**6

TIME_COMPLAINT = "read_ms is over 35 days old or over 5 minutes ahead"
# The most that a field may say, and how people write it. Below zero nothing may be.
_LIMITS = {
    "cpu_ns": (2**62, "2^62"),
    "disk_read_bytes": (2**62, "2^62"),
    "disk_write_bytes": (2**62, "2^62"),
    "memory_bytes": (LARGEST_MEMORY_BYTES, "8 TiB"),
    "memory_limit_bytes": (LARGEST_MEMORY_BYTES, "8 TiB"),
    "cpu_limit_micro": (LARGEST_CPU_LIMIT_MICRO, "100,000 cpus"),
}
LARGEST_COUNTER = 2**62


def implausible_time(samples: Records, now: datetime) -> Bools | None:
    """Return which samples are of a time that cannot be; None when none is."""
    earliest, latest = to_ms(now - ACCEPTED_BEHIND), to_ms(now + ACCEPTED_AHEAD)
    return outside(samples, "read_ms", earliest, latest)


def outside(samples: Records, field: str, lowest: int, highest: int) -> Bools | None:
    """Return which samples have a figure that cannot be; None when none has."""
    values = samples[field]
    if not len(values) or (values.min() >= lowest and values.max() <= highest):
        return None
    outside: Bools = (values < lowest) | (values > highest)
    return outside


def believable(host: Host, samples: Records, now: datetime) -> Bools | None:
    """Return which samples can be true, None when all; the others are counted, and left."""
    complaints = {TIME_COMPLAINT: implausible_time(samples, now)}
    for field, (highest, complaint) in _LIMITS.items():
        complaints[f"{field} is negative or over {complaint}"] = outside(samples, field, 0, highest)
    complaints["a figure without a name is marked"] = outside(samples, "known", 0, int(~Known(0)))
    complaints["the state has no name"] = outside(
        samples, "state", int(min(State)), int(max(State))
    )
    return believed(host, samples, now, complaints)


def believed(
    host: Host, samples: Records, now: datetime, complaints: Mapping[str, Bools | None]
) -> Bools | None:
    """Return which samples nothing is wrong with, None when all; the others are counted."""
    good = None
    for complaint, bad in complaints.items():
        if bad is None:
            continue
        good = np.ones(len(samples), np.bool_) if good is None else good
        bad_here = samples["life"][bad & good]
        reason = Refusal.Reason.SAMPLE_UNBELIEVABLE
        for life, count in zip(*np.unique(bad_here, return_counts=True), strict=True):
            refuse(host, reason, str(life), complaint, now=now, count=int(count))
        good &= ~bad
    return good


def only(kept: Bools | None, *arrays: Any) -> Any:
    """Return the kept elements of arrays that belong together."""
    return arrays if kept is None else tuple(array.compress(kept) for array in arrays)
