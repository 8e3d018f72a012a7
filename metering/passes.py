"""Folding whole passes at once: the same lives, running, read again and again in one window.

That is what a host gives nearly always. Then nothing has to be sorted or cut: a pass is a row, a
series is a column, growth is the last row less the reading before, and memory is a sum down the
column. A series of which anything else is true is left to the fold for every case.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np

from metering.period import WINDOW_MS
from metering.readings import (
    ALL_COUNTERS,
    ALL_INTERFACE_COUNTERS,
    ALLOCATED,
    INTERFACE_COUNTERS,
    LIFE_COUNTERS,
    NETWORK_USAGE,
    USAGE,
)
from metering.samples import Known, Records, State
from metering.steps import Bools, Ints, period_of

_HAS_TO_BE_KNOWN = int(Known.MEMORY | Known.ALLOCATION)


def find_passes(ids: Ints, times_ms: Ints) -> Iterator[tuple[int, int, bool]]:
    """Yield runs of samples, first and last place, and whether they are passes in one window.

    All samples are in one run or another, in order. Samples that are no passes, or passes at a
    window's edge, are runs of the other kind.
    """
    period = period_of(ids)
    if not period or len(ids) % period or len(np.unique(ids[:period])) < period:
        yield 0, len(ids), False
        return
    times = times_ms.reshape(-1, period)
    if not (times[1:] > times[:-1]).all():
        # Some came out of order, and may belong before others of another run.
        yield 0, len(ids), False
        return
    first_window = times.min(axis=1) // WINDOW_MS
    last_window = (times.max(axis=1) - 1) // WINDOW_MS
    # A pass that may begin a window has steps that the edge cuts.
    is_inside = first_window == last_window
    is_inside[1:] &= last_window[1:] == last_window[:-1]
    edges = np.flatnonzero(is_inside[1:] != is_inside[:-1]) + 1
    bounds = [0, *edges.tolist(), len(times)]
    for start, end in pairwise(bounds):
        yield start * period, end * period, bool(is_inside[start])


def fold_life_passes(
    samples: Records, holds_ms: Ints, readings: Records, after: Records
) -> tuple[Records, Bools]:
    """Fold passes in one window; return the usage of the plain lives, and which samples are left.

    Moves the plain lives' readings in `after`, which has the rows of `readings`.
    """
    period = period_of(samples["life"])
    rows = samples.reshape(-1, period)
    held_ms = holds_ms.reshape(-1, period)
    series = np.searchsorted(readings["life"], rows["life"][0])
    before = np.take(readings, series)
    times, memory = rows["read_ms"], rows["memory_bytes"]
    spans = _spans(times, before["read_ms"])
    plain = _are_plain(times, spans, before)
    known = rows["known"]
    plain &= (known & _HAS_TO_BE_KNOWN == _HAS_TO_BE_KNOWN).all(axis=0)
    plain &= (rows["state"] == State.RUNNING).all(axis=0)
    plain &= (before["known"] == ALL_COUNTERS) & (before["state"] == State.RUNNING)
    plain &= times[0] <= before["memory_held_until_ms"]
    plain &= (spans[1:] <= held_ms[:-1]).all(axis=0)
    closing = {}
    for counter, bit in LIFE_COUNTERS.items():
        values = _with_gaps_filled(rows[counter], (known & int(bit)) != 0, before[counter])
        plain &= _only_grows(values, before[counter])
        closing[counter] = values[-1]
    for field in ALLOCATED.values():
        plain &= (rows[field] == before[field]).all(axis=0)

    usage = _usage(USAGE, "life", rows, before, closing)
    lasting_ms = times[-1] - before["read_ms"]
    usage["memory_byte_ms"] = before["memory_bytes"] * spans[0]
    usage["memory_byte_ms"] += (memory[:-1] * spans[1:]).sum(axis=0)
    for quantity, field in ALLOCATED.items():
        usage[quantity] = before[field] * lasting_ms
    usage["running_ms"] = usage["measured_ms"] = lasting_ms
    usage["first_sample_ms"], usage["last_sample_ms"] = times[0], times[-1]

    moved = before[plain]
    for name in ("read_ms", "memory_bytes"):
        moved[name] = rows[name][-1][plain]
    for counter, values in closing.items():
        moved[counter] = values[plain]
    moved["memory_held_until_ms"] = moved["read_ms"] + held_ms[-1][plain]
    moved["sample_count"] += len(rows)
    after[series[plain]] = moved
    return usage[plain], np.tile(~plain, len(rows))


def fold_interface_passes(
    samples: Records, readings: Records, after: Records
) -> tuple[Records, Bools]:
    """Fold passes of interfaces as `fold_life_passes` does those of lives."""
    rows = samples.reshape(-1, period_of(samples["interface"]))
    series = np.searchsorted(readings["interface"], rows["interface"][0])
    before = np.take(readings, series)
    times = rows["read_ms"]
    plain = _are_plain(times, _spans(times, before["read_ms"]), before)
    plain &= before["known"] == ALL_INTERFACE_COUNTERS
    for counter in INTERFACE_COUNTERS:
        plain &= _only_grows(rows[counter], before[counter])
    closing = {counter: rows[counter][-1] for counter in INTERFACE_COUNTERS}
    usage = _usage(NETWORK_USAGE, "interface", rows, before, closing)
    moved = before[plain]
    for name in ("read_ms", *INTERFACE_COUNTERS):
        moved[name] = rows[name][-1][plain]
    after[series[plain]] = moved
    return usage[plain], np.tile(~plain, len(rows))


def _spans(times: Ints, before_ms: Ints) -> Ints:
    """Return the time from the reading before to each."""
    spans = np.empty(times.shape, np.int64)
    spans[0] = times[0] - before_ms
    np.subtract(times[1:], times[:-1], out=spans[1:])
    return spans


def _are_plain(times: Ints, spans: Ints, before: Records) -> Bools:
    """Return which series have their samples in order, and in the window of their reading."""
    in_order = (spans > 0).all(axis=0)
    plain: Bools = in_order & (before["read_ms"] // WINDOW_MS == (times[-1] - 1) // WINDOW_MS)
    return plain


def _only_grows(counter: Ints, before: Ints) -> Bools:
    grows: Bools = (counter[1:] >= counter[:-1]).all(axis=0) & (counter[0] >= before)
    return grows


def _with_gaps_filled(counter: Ints, known: Bools, before: Ints) -> Ints:
    """Return a counter that stands, where it was not read, as it did in the pass before."""
    if known.all():
        return counter
    filled = np.where(known, counter, before)
    for number in range(1, len(filled)):
        np.copyto(filled[number], filled[number - 1], where=~known[number])
    return filled


def _usage(
    dtype: np.dtype[np.void],
    key: str,
    rows: Records,
    before: Records,
    closing: Mapping[str, Ints],
) -> Records:
    usage = np.zeros(rows.shape[1], dtype)
    usage[key] = before[key]
    usage["window_ms"] = (rows["read_ms"][-1] - 1) // WINDOW_MS * WINDOW_MS
    for counter, values in closing.items():
        usage[counter] = values - before[counter]
        usage[f"opening_{counter}"] = before[counter]
        usage[f"closing_{counter}"] = values
    usage["sample_count"] = len(rows)
    return usage
