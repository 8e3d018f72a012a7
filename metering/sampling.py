"""Readings as the records of a batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from metering.readings import Allocation
from metering.samples import (
    INTERFACE_SAMPLE,
    SAMPLE,
    STORAGE_SAMPLE,
    Event,
    Known,
    Records,
    State,
    interface_id,
)
from metering.source import Reading, StorageReading

_FIGURES = {
    "cpu_ns": Known.CPU,
    "memory_bytes": Known.MEMORY,
    "disk_read_bytes": Known.DISK_READ,
    "disk_write_bytes": Known.DISK_WRITE,
}
_LARGEST = 2**63 - 1
_MOST_GPUS = 2**16 - 1
_NAME_BYTES = INTERFACE_SAMPLE["name"].itemsize
# The hash of an interface costs more than the rest of its sample.
_interface_id = lru_cache(maxsize=2**18)(interface_id)


@dataclass(frozen=True, slots=True)
class Sampled:
    """What a sample says of a life beside its reading."""

    life: int
    state: State
    event: Event
    allocation: Allocation
    has_network: bool


@dataclass(frozen=True, slots=True)
class Turn:
    """A moment at which a life stopped, or began to do something else. It has no figures."""

    life: int
    at_ms: int
    state: State
    event: Event


@dataclass(frozen=True, slots=True)
class Gone:
    """The moment from which a life takes up no storage any more."""

    life: int
    at_ms: int


def life_samples(
    readings: Sequence[Reading], sampled: Mapping[str, Sampled], turns: Sequence[Turn]
) -> Records:
    """Return a record for each reading, `sampled` by container, and for each turn."""
    about = [sampled[reading.container_id] for reading in readings]
    rows = np.zeros(len(readings) + len(turns), SAMPLE)
    read, turned = rows[: len(readings)], rows[len(readings) :]
    read["life"] = [one.life for one in about]
    read["read_ms"] = [reading.read_ms for reading in readings]
    read["state"] = [one.state for one in about]
    read["event"] = [one.event for one in about]
    read["cpu_limit_micro"] = [one.allocation.cpu_limit_micro for one in about]
    read["memory_limit_bytes"] = [one.allocation.memory_limit_bytes for one in about]
    read["gpu_count"] = [min(one.allocation.gpu_count, _MOST_GPUS) for one in about]
    known = np.full(len(readings), int(Known.ALLOCATION), np.uint16)
    for name, bit in _FIGURES.items():
        values = [getattr(reading, name) for reading in readings]
        known |= np.fromiter((0 if v is None else int(bit) for v in values), np.uint16, len(values))
        read[name] = _in_64_bits([v or 0 for v in values])
    read["known"] = known
    turned["life"] = [turn.life for turn in turns]
    turned["read_ms"] = [turn.at_ms for turn in turns]
    turned["state"] = [turn.state for turn in turns]
    turned["event"] = [turn.event for turn in turns]
    return rows


def _in_64_bits(figures: list[int]) -> npt.NDArray[np.int64]:
    """Return figures as they are; one that no record can hold is the largest, and is refused.

    A kernel that counted below zero says 2^64 less it: that must not cost the others theirs.
    """
    try:
        return np.array(figures, np.int64)
    except OverflowError:
        return np.array([min(max(figure, -1), _LARGEST) for figure in figures], np.int64)


def _stored_name(name: str, number: int) -> bytes:
    """Return the name of an interface as it fits a record: one with odd bytes as its number."""
    encoded = name.encode()
    return encoded if len(encoded) <= _NAME_BYTES else f"{number:016x}".encode()


def interface_samples(readings: Iterable[Reading], sampled: Mapping[str, Sampled]) -> Records:
    """Return a record for each interface of each reading of a life with a network of its own."""
    rows = [
        (
            number := _interface_id(one.life, name),
            one.life,
            reading.read_ms,
            min(rx_bytes, _LARGEST),
            min(tx_bytes, _LARGEST),
            _stored_name(name, number),
        )
        for reading in readings
        if (one := sampled[reading.container_id]).has_network
        for name, (rx_bytes, tx_bytes) in reading.interfaces.items()
    ]
    return np.array(rows, INTERFACE_SAMPLE)


def storage_samples(
    readings: Iterable[StorageReading], lives: Mapping[str, int], gone: Iterable[Gone]
) -> Records:
    """Return a record for each reading of a container in `lives`, and for each life gone."""
    rows = [
        (
            lives[reading.container_id],
            reading.read_ms,
            min(reading.layer_bytes, _LARGEST),
            min(reading.volume_bytes, _LARGEST),
            0,
        )
        for reading in readings
        if reading.container_id in lives
    ]
    rows += [(one.life, one.at_ms, 0, 0, 1) for one in gone]
    return np.array(rows, STORAGE_SAMPLE)
