"""The packed form of one reading of many lives: fixed records, little endian, one version byte."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

import numpy as np
import numpy.typing as npt

VERSION = 2

Records = npt.NDArray[np.void]
"""A one-dimensional array of records; which, its dtype says."""


class Known(IntFlag):
    """Which figures of a sample were read. A figure that was not is no zero."""

    CPU = 1
    MEMORY = 2
    DISK_READ = 4
    DISK_WRITE = 8
    # The limits and the devices held: facts of the container, which hold until others are read.
    ALLOCATION = 16


class State(IntEnum):
    """What the life was doing from this sample on. What counts in each is in readings.COUNTING."""

    RUNNING = 1
    PAUSED = 2
    STOPPED = 3


class Event(IntEnum):
    """Why the sample was taken.

    A STOPPED or a CHANGED one (another state, other limits) may carry no figures, only its time.
    """

    PERIODIC = 1
    STARTED = 2
    STOPPED = 3
    CHANGED = 4


class Missed(IntEnum):
    """Why nothing was measured before a batch. It explains the gaps that the batch ends."""

    UNEXPLAINED = 0
    COLLECTOR_DOWN = 1
    CLOCK_SKEW = 2
    REJECTED = 3
    # Not sent: it is found where the numbers of batches have a hole.
    BATCH_LOST = 4


SAMPLE = np.dtype(
    [
        ("life", "<i8"),
        ("read_ms", "<i8"),
        ("cpu_ns", "<i8"),
        ("memory_bytes", "<i8"),
        ("disk_read_bytes", "<i8"),
        ("disk_write_bytes", "<i8"),
        # What the life may take, in millionths of a cpu and bytes, and the devices it holds.
        ("cpu_limit_micro", "<i8"),
        ("memory_limit_bytes", "<i8"),
        ("gpu_count", "<u2"),
        ("known", "<u2"),
        ("state", "u1"),
        ("event", "u1"),
        # Whole words: an array of records is then as fast as one of columns.
        ("padding", "V2"),
    ]
)

INTERFACE_SAMPLE = np.dtype(
    [
        ("interface", "<i8"),
        ("life", "<i8"),
        ("read_ms", "<i8"),
        ("rx_bytes", "<i8"),
        ("tx_bytes", "<i8"),
        # Linux allows 15 bytes for the name of an interface.
        ("name", "S16"),
    ]
)

STORAGE_SAMPLE = np.dtype(
    [
        ("life", "<i8"),
        ("read_ms", "<i8"),
        ("layer_bytes", "<i8"),
        ("volume_bytes", "<i8"),
        # 1: the container is gone, or lives another life; this one takes up nothing any more.
        ("is_gone", "<i8"),
    ]
)

# Version, why nothing was measured before, two bytes of padding, two intervals in ms, time of
# collection in ms, three record counts.
_HEADER = struct.Struct("<BB2xIIqIII")
_PARTS = (SAMPLE, INTERFACE_SAMPLE, STORAGE_SAMPLE)
_MISSED = frozenset(Missed)


class EncodingError(ValueError):
    """A packed batch has another version or another length than its header says."""


@dataclass(frozen=True, slots=True)
class Batch:
    """All samples one pass over a host gave.

    `interval_ms` is the time to the next pass as it was planned, `storage_interval_ms` that to
    the next reading of storage; they bound how long a gauge is held. `collected_ms` of 0 is no
    whole pass: it says nothing of the host's other lives. A batch without samples says that the
    host was looked at and ran nothing.
    """

    collected_ms: int
    interval_ms: int
    samples: Records = field(default_factory=lambda: np.empty(0, SAMPLE))
    interfaces: Records = field(default_factory=lambda: np.empty(0, INTERFACE_SAMPLE))
    storage: Records = field(default_factory=lambda: np.empty(0, STORAGE_SAMPLE))
    storage_interval_ms: int = 0
    missed: Missed = Missed.UNEXPLAINED


def pack(batch: Batch) -> bytes:
    """Return the batch as bytes that `unpack` reads."""
    header = _HEADER.pack(
        VERSION,
        batch.missed,
        batch.interval_ms,
        batch.storage_interval_ms,
        batch.collected_ms,
        len(batch.samples),
        len(batch.interfaces),
        len(batch.storage),
    )
    records = (batch.samples, batch.interfaces, batch.storage)
    return header + b"".join(part.tobytes() for part in records)


def unpack(packed: bytes) -> Batch:
    """Return the batch that `pack` was given. Raises EncodingError."""
    if not packed or packed[0] != VERSION:
        raise EncodingError(f"batch version is {packed[:1].hex() or 'missing'}, not {VERSION:02x}")
    if len(packed) < _HEADER.size:
        raise EncodingError(f"batch of {len(packed)} bytes is shorter than its header")
    _, missed, interval_ms, storage_interval_ms, collected_ms, *counts = _HEADER.unpack_from(packed)
    starts = [_HEADER.size]
    for dtype, count in zip(_PARTS, counts, strict=True):
        starts.append(starts[-1] + dtype.itemsize * count)
    if len(packed) != starts[-1]:
        raise EncodingError(f"batch has {len(packed)} bytes, its header says {starts[-1]}")
    samples, interfaces, storage = (
        np.frombuffer(packed, dtype, count, start)
        for dtype, count, start in zip(_PARTS, counts, starts, strict=False)
    )
    return Batch(
        collected_ms=collected_ms,
        interval_ms=interval_ms,
        samples=samples,
        interfaces=interfaces,
        storage=storage,
        storage_interval_ms=storage_interval_ms,
        missed=Missed(missed) if missed in _MISSED else Missed.UNEXPLAINED,
    )


def life_id(host_key: str, life_key: str) -> int:
    """Return the 63-bit number of a life.

    It is made from the life's own key, so that every process, and a database restored from a
    backup, gives the same life the same number.
    """
    return _hash63(f"{host_key}/{life_key}")


def interface_id(life: int, name: str) -> int:
    """Return the 63-bit number of one network interface of a life."""
    return _hash63(f"{life}/{name}")


def _hash63(text: str) -> int:
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
