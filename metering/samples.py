"""The packed form of one reading of many lives: fixed records, little endian, one version byte."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

import numpy as np
import numpy.typing as npt

VERSION = 1

Records = npt.NDArray[np.void]
"""A one-dimensional array of records; which, its dtype says."""


class Known(IntFlag):
    """Which figures of a sample were read. A figure that was not is no zero."""

    CPU = 1
    MEMORY = 2
    DISK_READ = 4
    DISK_WRITE = 8


class State(IntEnum):
    """What the life was doing when it was read."""

    RUNNING = 1
    PAUSED = 2
    STOPPED = 3


class Event(IntEnum):
    """Why the sample was taken. A STOPPED one may carry no figures, only the time of the end."""

    PERIODIC = 1
    STARTED = 2
    STOPPED = 3


SAMPLE = np.dtype(
    [
        ("life", "<i8"),
        ("read_ms", "<i8"),
        ("cpu_ns", "<i8"),
        ("memory_bytes", "<i8"),
        ("memory_limit_bytes", "<i8"),
        ("disk_read_bytes", "<i8"),
        ("disk_write_bytes", "<i8"),
        ("known", "<u2"),
        ("state", "u1"),
        ("event", "u1"),
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

# Version, three bytes of padding, interval in ms, time of collection in ms, two record counts.
_HEADER = struct.Struct("<B3xIqII")


class EncodingError(ValueError):
    """A packed batch has another version or another length than its header says."""


@dataclass(frozen=True, slots=True)
class Batch:
    """All samples one pass over a host gave.

    `interval_ms` is the time to the next pass as it was planned; it bounds how long a gauge
    is held. A batch without samples says that the host was looked at and ran nothing.
    """

    collected_ms: int
    interval_ms: int
    samples: Records = field(default_factory=lambda: np.empty(0, SAMPLE))
    interfaces: Records = field(default_factory=lambda: np.empty(0, INTERFACE_SAMPLE))


def pack(batch: Batch) -> bytes:
    """Return the batch as bytes that `unpack` reads."""
    header = _HEADER.pack(
        VERSION,
        batch.interval_ms,
        batch.collected_ms,
        len(batch.samples),
        len(batch.interfaces),
    )
    return header + batch.samples.tobytes() + batch.interfaces.tobytes()


def unpack(packed: bytes) -> Batch:
    """Return the batch that `pack` was given. Raises EncodingError."""
    if not packed or packed[0] != VERSION:
        raise EncodingError(f"batch version is {packed[:1].hex() or 'missing'}, not {VERSION:02x}")
    if len(packed) < _HEADER.size:
        raise EncodingError(f"batch of {len(packed)} bytes is shorter than its header")
    _, interval_ms, collected_ms, samples, interfaces = _HEADER.unpack_from(packed)
    samples_end = _HEADER.size + samples * SAMPLE.itemsize
    end = samples_end + interfaces * INTERFACE_SAMPLE.itemsize
    if len(packed) != end:
        raise EncodingError(f"batch has {len(packed)} bytes, its header says {end}")
    return Batch(
        collected_ms=collected_ms,
        interval_ms=interval_ms,
        samples=np.frombuffer(packed, SAMPLE, samples, _HEADER.size),
        interfaces=np.frombuffer(packed, INTERFACE_SAMPLE, interfaces, samples_end),
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
