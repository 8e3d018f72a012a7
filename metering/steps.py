"""Samples in order, the spans between them, and those spans cut at the edges of windows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from metering.period import WINDOW_MS
from metering.readings import NEVER
from metering.samples import Records

# The square of it is still below 2^63.
LONGEST_IN_64_BITS_MS = 35 * 24 * 3_600_000

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


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
        newest = np.maximum.accumulate(np.where(known, np.arange(len(known)), -1))
        before = np.concatenate(([-1], newest[:-1]))[: len(newest)]
        return before, before >= self.first


@dataclass(frozen=True, slots=True)
class Pieces:
    """Steps cut at the edges of windows.

    `step` is the index of each piece's step; `is_end` says which piece the step's sample falls
    into; `groups` are the indexes at which the next window, or series, begins.
    """

    steps: Steps
    step: Ints
    window: Ints
    start_ms: Ints
    end_ms: Ints
    is_end: Bools
    groups: Ints


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
    series = np.searchsorted(readings[key], samples[key])
    order = np.lexsort((tie, samples["read_ms"], series))
    series, times = series[order], samples["read_ms"][order]
    starts_series = np.concatenate(([True], series[1:] != series[:-1]))[: len(series)]
    repeats = np.concatenate(([False], times[1:] == times[:-1]))[: len(times)] & ~starts_series
    accepted = ~repeats & (times > readings["read_ms"][series])
    dropped = np.bincount(series[~accepted], minlength=len(readings)).astype(np.int64)

    order, series, times = order[accepted], series[accepted], times[accepted]
    starts_series = np.concatenate(([True], series[1:] != series[:-1]))[: len(series)]
    firsts = np.flatnonzero(starts_series)
    first = np.repeat(firsts, np.diff(np.append(firsts, len(series))))
    previous = np.concatenate(([NEVER], times[:-1]))[: len(times)]
    start_ms = np.where(starts_series, readings["read_ms"][series], previous)
    return Steps(
        rows=samples[order],
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


def cut(steps: Steps) -> Pieces:
    """Cut the steps at the edges of windows. A sample on an edge belongs to the window before."""
    first_window = steps.start_ms // WINDOW_MS
    last_window = np.maximum(first_window, (steps.end_ms - 1) // WINDOW_MS)
    count = last_window - first_window + 1
    step = np.repeat(np.arange(len(count)), count)
    ends = np.cumsum(count)
    window = first_window[step] + np.arange(len(step)) - np.repeat(ends - count, count)
    is_end = np.zeros(len(step), np.bool_)
    is_end[ends - 1] = True
    series = steps.series[step]
    begins = np.concatenate(([True], (series[1:] != series[:-1]) | (window[1:] != window[:-1])))[
        : len(step)
    ]
    return Pieces(
        steps=steps,
        step=step,
        window=window,
        start_ms=np.maximum(steps.start_ms[step], window * WINDOW_MS),
        end_ms=np.minimum(steps.end_ms[step], (window + 1) * WINDOW_MS),
        is_end=is_end,
        groups=np.flatnonzero(begins),
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
