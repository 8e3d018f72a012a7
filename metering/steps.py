"""Samples in order, the spans between them, and those spans cut at the edges of windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from metering.period import WINDOW_MS
from metering.readings import NEVER
from metering.samples import Records

# The square of it is still below 2^63.
LONGEST_IN_64_BITS_MS = 35 * 24 * 3_600_000

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Values = TypeVar("Values", Ints, Bools)


@dataclass(frozen=True, slots=True)
class Steps:
    """The accepted samples in order, each with the span since the reading before it.

    `series` is the row of `readings` that a sample belongs to, `first` the index of the first
    accepted sample of the same series, `last` the index of the newest one of each series that
    has any, and `dropped` how many samples of each series came too late to count.
    """

    rows: Records
    holds_ms: Ints
    missed: Ints
    series: Ints
    first: Ints
    last: Ints
    start_ms: Ints
    end_ms: Ints
    dropped: Ints

    def before(self, known: Bools) -> tuple[Ints, Bools]:
        """Return for each row the newest known row before it, and whether its series has one."""
        index = np.arange(len(known))
        newest = index if known.all() else np.maximum.accumulate(np.where(known, index, -1))
        before = np.empty_like(index)
        before[:1], before[1:] = -1, newest[:-1]
        return before, before >= self.first

    def newest(self, known: Bools) -> tuple[Ints, Bools]:
        """Return for each series in `last` its newest known row, and whether it has one."""
        if known.all():
            return self.last, np.ones(len(self.last), np.bool_)
        index = np.where(known, np.arange(len(known)), -1)
        newest = np.maximum.accumulate(index)[self.last]
        return newest, newest >= self.first[self.last]


@dataclass(frozen=True, slots=True)
class Pieces:
    """Steps cut at the edges of windows.

    `step` is the index of each piece's step; `is_end` says which piece the step's sample falls
    into; `groups` are the indexes at which the next window, or series, begins; `cut` are the
    pieces of steps that are in more than one.
    """

    steps: Steps
    step: Ints
    window: Ints
    start_ms: Ints
    end_ms: Ints
    is_end: Bools
    groups: Ints
    cut: Ints

    def of_steps(self, values: Values) -> Values:
        """Return a figure of steps, or whether one is so, for each piece."""
        # Hardly ever is a step cut; then its piece is itself.
        return values[self.step] if len(self.cut) else values


def find_steps(
    samples: Records,
    holds_ms: Ints,
    readings: Records,
    *,
    key: str,
    tie: Ints,
    missed: Ints | None = None,
) -> Steps:
    """Sort the samples, drop those not after the reading before them, and find the spans.

    `key` names the field that tells the series; `readings` is sorted by it. Of two samples with
    one time the one with the lower `tie` wins, whatever order they came in.
    """
    series, order = _in_order(samples[key], samples["read_ms"], readings[key], tie)
    times = samples["read_ms"][order]
    starts_series = _begins(series)
    repeats = np.zeros(len(times), np.bool_)
    repeats[1:] = (times[1:] == times[:-1]) & ~starts_series[1:]
    accepted = ~repeats & (times > readings["read_ms"][series])
    dropped = np.zeros(len(readings), np.int64)
    if not accepted.all():
        dropped = np.bincount(series[~accepted], minlength=len(readings)).astype(np.int64)
        order, series, times = order[accepted], series[accepted], times[accepted]
        starts_series = _begins(series)
    firsts = np.flatnonzero(starts_series)
    first = np.repeat(firsts, np.diff(np.append(firsts, len(series))))
    start_ms = np.empty_like(times)
    start_ms[1:] = times[:-1]
    start_ms[firsts] = readings["read_ms"][series[firsts]]
    return Steps(
        # Many times as fast as an index in brackets, which copies records field by field.
        rows=np.take(samples, order),
        holds_ms=holds_ms[order],
        missed=np.zeros(len(order), np.int64) if missed is None else missed[order],
        series=series,
        first=first,
        last=np.append(firsts[1:], len(series))[: len(firsts)] - 1,
        # Without a reading before it a sample has no span: it is a base line.
        start_ms=np.where(start_ms == NEVER, times, start_ms),
        end_ms=times,
        dropped=dropped,
    )


def _in_order(ids: Ints, times_ms: Ints, known: Ints, tie: Ints) -> tuple[Ints, Ints]:
    """Return the series of each sample, and the samples' order, by series and then by time.

    The series are given in that order.
    """
    period = period_of(ids)
    series = np.searchsorted(known, ids[:period])
    if period and len(ids) % period == 0:
        # Passes that read the same lives: each series has one sample a pass, in time's order.
        order = np.argsort(series)
        passes = np.arange(0, len(ids), period)
        in_passes = (order[:, None] + passes[None, :]).ravel()
        in_order = np.repeat(series[order], len(passes))
        times = times_ms[in_passes]
        if bool(((times[1:] > times[:-1]) | (in_order[1:] != in_order[:-1])).all()):
            return in_order, in_passes
    series = np.resize(series, len(ids))
    order = np.lexsort((tie, times_ms, series))
    return series[order], order


def period_of(ids: Ints) -> int:
    """Return after how many they repeat in the same order, all of them; else how many there are."""
    again = np.flatnonzero(ids[1:] == ids[:1])
    period = int(again[0]) + 1 if len(again) else len(ids)
    return period if np.array_equal(ids[period:], ids[: len(ids) - period]) else len(ids)


def _begins(series: Ints) -> Bools:
    begins = np.ones(len(series), np.bool_)
    begins[1:] = series[1:] != series[:-1]
    return begins


def cut(steps: Steps) -> Pieces:
    """Cut the steps at the edges of windows. A sample on an edge belongs to the window before."""
    first_window = steps.start_ms // WINDOW_MS
    last_window = np.maximum(first_window, (steps.end_ms - 1) // WINDOW_MS)
    step = np.arange(len(first_window))
    window, series, start_ms, end_ms = first_window, steps.series, steps.start_ms, steps.end_ms
    is_end = np.ones(len(step), np.bool_)
    cut_pieces = step[:0]
    if not np.array_equal(first_window, last_window):
        count = last_window - first_window + 1
        step = np.repeat(step, count)
        ends = np.cumsum(count)
        window = first_window[step] + np.arange(len(step)) - np.repeat(ends - count, count)
        is_end = np.zeros(len(step), np.bool_)
        is_end[ends - 1] = True
        series = steps.series[step]
        start_ms = np.maximum(steps.start_ms[step], window * WINDOW_MS)
        end_ms = np.minimum(steps.end_ms[step], (window + 1) * WINDOW_MS)
        cut_pieces = np.flatnonzero(count[step] > 1)
    begins = _begins(series)
    begins[1:] |= window[1:] != window[:-1]
    return Pieces(
        steps=steps,
        step=step,
        window=window,
        start_ms=start_ms,
        end_ms=end_ms,
        is_end=is_end,
        groups=np.flatnonzero(begins),
        cut=cut_pieces,
    )


def share(growth: Ints, part_ms: Ints, length_ms: Ints) -> Ints:
    """Return growth × part ÷ length, rounded down, exact in 64 bits.

    The product could pass 64 bits, so whole multiples of the length go first; a rest below
    the length times a part of it fits for any step of up to 35 days. Longer ones, after an
    outage of months, take Python's integers.
    """
    # A step without length is a base line and has no growth to share.
    length = np.maximum(length_ms, 1)
    whole, rest = np.divmod(growth, length)
    if length.max(initial=0) > LONGEST_IN_64_BITS_MS:
        rest, part_ms = rest.astype(object), part_ms.astype(object)
    shared: Ints = (whole * part_ms + rest * part_ms // length).astype(np.int64)
    return shared


def sums(values: Ints, pieces: Pieces) -> Ints:
    """Return the sum of a figure over the pieces of each window of each series."""
    return reduce_windows(np.add, values, pieces)


def reduce_windows(function: np.ufunc, values: Ints, pieces: Pieces) -> Ints:
    """Return a figure of the pieces reduced to one a window of each series."""
    if not len(values):
        return values
    reduced: Ints = function.reduceat(values, pieces.groups)
    return reduced
