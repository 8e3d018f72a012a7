"""The three kinds of series a backfill recomputes, and the rows it does that from.

A row is a sample with how long its gauges hold and why nothing was measured before it, which a
batch says of all its samples at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from metering.period import WINDOW_MS
from metering.readings import (
    INTERFACE_COUNTERS,
    INTERFACE_READING,
    LIFE_COUNTERS,
    LIFE_READING,
    NEVER,
    STORAGE_READING,
)
from metering.samples import (
    INTERFACE_SAMPLE,
    SAMPLE,
    STORAGE_SAMPLE,
    Event,
    Known,
    Missed,
    Records,
    State,
)
from metering.steps import Bools, Ints

_BESIDES = [("hold_ms", "<i8"), ("missed", "<i8")]
_FIGURES = int(Known.CPU | Known.MEMORY | Known.DISK_READ | Known.DISK_WRITE)
_LAST = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Kind:
    """Lives, interfaces or storage: how their rows and readings are numbered and counted.

    `key` numbers the series in both; `counters` maps each to its bit in a reading's `known`;
    `meters` are those of the gaps that a fold of it leaves.
    """

    name: str
    key: str
    counters: Mapping[str, int]
    row: np.dtype[np.void]
    reading: np.dtype[np.void]
    meters: frozenset[str]


LIVES = Kind(
    name="lives",
    key="life",
    counters={name: int(bit) for name, bit in LIFE_COUNTERS.items()},
    row=np.dtype(SAMPLE.descr + _BESIDES),
    reading=LIFE_READING,
    meters=frozenset({"memory", "counters", *LIFE_COUNTERS}),
)
INTERFACES = Kind(
    name="interfaces",
    key="interface",
    counters=INTERFACE_COUNTERS,
    row=np.dtype(INTERFACE_SAMPLE.descr + _BESIDES),
    reading=INTERFACE_READING,
    meters=frozenset(INTERFACE_COUNTERS),
)
STORAGE = Kind(
    name="storage",
    key="life",
    counters={},
    row=np.dtype(STORAGE_SAMPLE.descr + _BESIDES),
    reading=STORAGE_READING,
    meters=frozenset({"storage"}),
)
KINDS = (LIVES, INTERFACES, STORAGE)


def with_holds(kind: Kind, samples: Records, *, hold_ms: int, missed: int) -> Records:
    """Return samples of one batch as rows."""
    rows = np.zeros(len(samples), kind.row)
    for name in samples.dtype.names or ():
        if name != "padding":
            rows[name] = samples[name]
    rows["hold_ms"] = hold_ms
    rows["missed"] = missed
    return rows


def in_order(kind: Kind, rows: Records) -> Records:
    """Return rows sorted by series and time, of those at one time the one a fold takes."""
    order = np.lexsort((_tie(kind, rows), rows["read_ms"], rows[kind.key]))
    rows = rows[order]
    is_first = np.ones(len(rows), np.bool_)
    is_first[1:] = (rows[kind.key][1:] != rows[kind.key][:-1]) | (
        rows["read_ms"][1:] != rows["read_ms"][:-1]
    )
    return rows[is_first]


def _tie(kind: Kind, rows: Records) -> Ints:
    if kind is LIVES:
        tie: Ints = np.where((rows["known"] & _FIGURES) == 0, _LAST, rows["cpu_ns"])
    elif kind is INTERFACES:
        tie = rows["rx_bytes"]
    else:
        tie = np.where(rows["is_gone"] != 0, 0, 1)
    return tie


def knows(kind: Kind, rows: Records, counter: str) -> Bools:
    """Return which rows have a figure of this counter."""
    if kind is LIVES:
        known: Bools = (rows["known"] & kind.counters[counter]) != 0
        return known
    return np.ones(len(rows), np.bool_)


def windows_of(times_ms: Ints) -> Ints:
    """Return the window each sample counts in; one on an edge is of the window before."""
    return (times_ms - 1) // WINDOW_MS * WINDOW_MS


def row_of_reading(kind: Kind, reading: Records) -> Records:
    """Return a row, an array of one, after which a series stands where this reading does.

    Its counters are left to be pinned.
    """
    row = np.zeros(1, kind.row)
    row[kind.key] = reading[kind.key]
    row["life"] = reading["life"]
    row["read_ms"] = reading["read_ms"]
    if kind is LIVES:
        _take_state(row, reading)
    elif kind is STORAGE:
        row["layer_bytes"] = reading["storage_bytes"]
        row["is_gone"] = reading["is_gone"]
        row["hold_ms"] = reading["storage_held_until_ms"] - reading["read_ms"]
    return row


def _take_state(row: Records, reading: Records) -> None:
    is_stopped = int(reading["state"][0]) == State.STOPPED
    row["state"] = reading["state"]
    row["event"] = Event.STOPPED if is_stopped else Event.CHANGED
    known = Known.ALLOCATION
    for name in ("cpu_limit_micro", "memory_limit_bytes", "gpu_count"):
        row[name] = reading[name]
    if not is_stopped and reading["memory_held_until_ms"][0] != NEVER:
        known |= Known.MEMORY
        row["memory_bytes"] = reading["memory_bytes"]
        row["hold_ms"] = reading["memory_held_until_ms"] - reading["read_ms"]
    row["known"] = int(known)


def row_of_edge(kind: Kind, before: Records, at_ms: int, missed: int) -> Records:
    """Return a row, an array of one, that ends a series' last step at an edge and says no more."""
    row = np.zeros(1, kind.row)
    row[kind.key] = before[kind.key]
    row["life"] = before["life"]
    row["read_ms"] = at_ms
    row["missed"] = missed
    if kind is LIVES:
        row["state"] = before["state"]
        row["event"] = Event.CHANGED
    elif kind is STORAGE:
        row["is_gone"] = before["is_gone"]
    return row


MISSED_BY_REASON = {
    "collector_down": Missed.COLLECTOR_DOWN,
    "clock_skew": Missed.CLOCK_SKEW,
    "rejected": Missed.REJECTED,
    "batch_lost": Missed.BATCH_LOST,
}
