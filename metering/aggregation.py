"""From samples to usage: how readings of one life become growth inside windows.

Everything works on whole arrays, one row a sample, sorted by series (a life or one of its
interfaces) and time. The span from a series' reading before to this one is its *step*; a step
that crosses a window's edge is cut into *pieces*, one a window.
"""

from __future__ import annotations

import numpy as np

from metering.period import WINDOW_MS
from metering.readings import (
    ALL_COUNTERS,
    INTERFACE_COUNTERS,
    LIFE_COUNTERS,
    NETWORK_USAGE,
    NEVER,
    USAGE,
    Fold,
    Gap,
    Reset,
)
from metering.samples import Event, Known, Records, State
from metering.steps import Bools, Ints, Pieces, Steps, cut, find_steps, reduce_windows, share, sums


def fold_lives(samples: Records, holds_ms: Ints, readings: Records) -> Fold:
    """Fold samples of any number of lives onto their last readings.

    `holds_ms` says for each sample how long its gauges count. `readings` has one row for each
    life, sorted by life. A sample that is not after its life's last reading is counted as out
    of order and changes nothing else.
    """
    # At one time a sample with figures wins over the bare end of a life.
    last_of_all = np.iinfo(np.int64).max
    tie = np.where(samples["known"] == 0, last_of_all, samples["cpu_ns"])
    steps = find_steps(samples, holds_ms, readings, key="life", tie=tie)
    pieces = cut(steps)
    usage = _empty_usage(pieces, readings, "life", USAGE)
    after = readings.copy()
    resets: list[Reset] = []
    for counter, bit in LIFE_COUNTERS.items():
        known = (steps.rows["known"] & int(bit)) != 0
        resets += _fold_counter(counter, int(bit), known, pieces, readings, after, usage)
    gaps = _fold_memory(pieces, readings, after, usage)
    gaps += _tail_gaps(steps, readings)
    gaps += [_reset_gap(reset) for reset in resets]
    _count_samples(pieces, after, usage)
    return Fold(usage, after, gaps, resets)


def fold_interfaces(samples: Records, readings: Records) -> Fold:
    """Fold samples of network interfaces onto their last readings, sorted by interface."""
    steps = find_steps(
        samples,
        np.zeros(len(samples), np.int64),
        readings,
        key="interface",
        tie=samples["rx_bytes"],
    )
    pieces = cut(steps)
    usage = _empty_usage(pieces, readings, "interface", NETWORK_USAGE)
    after = readings.copy()
    known = np.ones(len(steps.rows), np.bool_)
    resets: list[Reset] = []
    for counter, bit in INTERFACE_COUNTERS.items():
        resets += _fold_counter(counter, bit, known, pieces, readings, after, usage)
    after["read_ms"][steps.series[steps.last]] = steps.end_ms[steps.last]
    usage["sample_count"] = sums(pieces.is_end.astype(np.int64), pieces)
    return Fold(usage, after, [_reset_gap(reset) for reset in resets], resets)


def _empty_usage(pieces: Pieces, readings: Records, key: str, dtype: np.dtype[np.void]) -> Records:
    usage = np.zeros(len(pieces.groups), dtype)
    usage[key] = readings[key][pieces.steps.series[pieces.step[pieces.groups]]]
    usage["window_ms"] = pieces.window[pieces.groups] * WINDOW_MS
    return usage


def _fold_counter(
    counter: str,
    bit: int,
    known: Bools,
    pieces: Pieces,
    readings: Records,
    after: Records,
    usage: Records,
) -> list[Reset]:
    """Add one counter's growth to `usage`, move its reading in `after`, return its resets."""
    steps = pieces.steps
    values = steps.rows[counter]
    before, seen = steps.before(known)
    previous = np.where(seen, values[before], readings[counter][steps.series])
    based = seen | ((readings["known"][steps.series] & bit) != 0)
    closing = np.where(known, values, previous)
    growth = np.where(known & based, closing - previous, 0)
    fallen = np.flatnonzero(growth < 0)
    growth[fallen] = 0
    opening = closing - growth

    length = (steps.end_ms - steps.start_ms)[pieces.step]
    from_ms = pieces.start_ms - steps.start_ms[pieces.step]
    to_ms = pieces.end_ms - steps.start_ms[pieces.step]
    piece_growth = growth[pieces.step]
    opened = opening[pieces.step] + share(piece_growth, from_ms, length)
    closed = opening[pieces.step] + share(piece_growth, to_ms, length)
    group_ends = np.append(pieces.groups[1:], len(pieces.step))[: len(pieces.groups)] - 1
    usage[counter] = sums(closed - opened, pieces)
    usage["opening_" + counter] = opened[pieces.groups]
    usage["closing_" + counter] = closed[group_ends]

    base_lines = np.flatnonzero(known & ~based)
    after["base_" + counter][steps.series[base_lines]] = values[base_lines]
    after["known"][steps.series[base_lines]] |= bit
    after[counter][steps.series[steps.last]] = closing[steps.last]
    series_ids = after["interface" if counter in INTERFACE_COUNTERS else "life"]
    return [
        Reset(
            life=int(steps.rows["life"][i]),
            series=int(series_ids[steps.series[i]]),
            counter=counter,
            start_ms=int(steps.start_ms[i]),
            at_ms=int(steps.end_ms[i]),
            before=int(previous[i]),
            after=int(values[i]),
        )
        for i in fallen
    ]


def _fold_memory(pieces: Pieces, readings: Records, after: Records, usage: Records) -> list[Gap]:
    """Add memory held over running time to `usage`; return the spans nothing could be held."""
    steps = pieces.steps
    series, rows = steps.series, steps.rows
    stopped = rows["state"] == State.STOPPED
    known = ((rows["known"] & int(Known.MEMORY)) != 0) & ~stopped
    # The end of a life ends what is held, as a reading of nothing would.
    values = np.where(known, rows["memory_bytes"], 0)
    held_until = np.where(known, steps.end_ms + steps.holds_ms, steps.end_ms)
    before, seen = steps.before(known | stopped)
    memory = np.where(seen, values[before], readings["memory_bytes"][series])
    held = np.where(seen, held_until[before], readings["memory_held_until_ms"][series])
    running = _running(steps, readings)

    step = pieces.step
    running_ms = np.where(running[step], pieces.end_ms - pieces.start_ms, 0)
    measured_ms = np.where(
        running[step],
        np.maximum(np.minimum(pieces.end_ms, held[step]) - pieces.start_ms, 0),
        0,
    )
    usage["running_ms"] = sums(running_ms, pieces)
    usage["measured_ms"] = sums(measured_ms, pieces)
    usage["memory_byte_ms"] = sums(memory[step] * measured_ms, pieces)

    newest, any_here = _newest(known | stopped, steps)
    moved = series[steps.last][any_here]
    after["memory_bytes"][moved] = values[newest[any_here]]
    after["memory_held_until_ms"][moved] = held_until[newest[any_here]]
    limits, limit_here = _newest(known, steps)
    after["memory_limit_bytes"][series[steps.last][limit_here]] = rows["memory_limit_bytes"][
        limits[limit_here]
    ]

    unmeasured = np.flatnonzero(running & (steps.end_ms > np.maximum(held, steps.start_ms)))
    return [
        Gap(
            life=int(rows["life"][i]),
            meter="memory",
            start_ms=int(max(held[i], steps.start_ms[i])),
            end_ms=int(steps.end_ms[i]),
            reason="before_first_sample" if held[i] == NEVER else "held_too_long",
        )
        for i in unmeasured
    ]


def _tail_gaps(steps: Steps, readings: Records) -> list[Gap]:
    """Return the ends of lives that no reading covers: from the last reading to the stop."""
    rows = steps.rows
    unread = (rows["event"] == Event.STOPPED) & ((rows["known"] & ALL_COUNTERS) == 0)
    tails = np.flatnonzero(unread & _running(steps, readings) & (steps.end_ms > steps.start_ms))
    return [
        Gap(
            life=int(rows["life"][i]),
            meter="counters",
            start_ms=int(steps.start_ms[i]),
            end_ms=int(steps.end_ms[i]),
            reason="ended_between_readings",
        )
        for i in tails
    ]


def _count_samples(pieces: Pieces, after: Records, usage: Records) -> None:
    steps = pieces.steps
    end_ms = steps.end_ms[pieces.step]
    usage["sample_count"] = sums(pieces.is_end.astype(np.int64), pieces)
    usage["last_sample_ms"] = reduce_windows(
        np.maximum, np.where(pieces.is_end, end_ms, NEVER), pieces
    )
    far = np.iinfo(np.int64).max
    first = reduce_windows(np.minimum, np.where(pieces.is_end, end_ms, far), pieces)
    usage["first_sample_ms"] = np.where(first == far, NEVER, first)
    ended = steps.series[steps.last]
    after["read_ms"][ended] = steps.end_ms[steps.last]
    after["state"][ended] = steps.rows["state"][steps.last]
    after["sample_count"] += np.bincount(steps.series, minlength=len(after))
    after["out_of_order_count"] += steps.dropped


def _running(steps: Steps, readings: Records) -> Bools:
    """Return whether the life ran, or was paused, from the reading before to each sample."""
    index = np.arange(len(steps.rows))
    state = np.where(
        index > steps.first, steps.rows["state"][index - 1], readings["state"][steps.series]
    )
    running: Bools = (state == State.RUNNING) | (state == State.PAUSED)
    return running


def _newest(known: Bools, steps: Steps) -> tuple[Ints, Bools]:
    """Return for each series in `steps.last` its newest known row, and whether it has one."""
    newest = np.maximum.accumulate(np.where(known, np.arange(len(known)), -1))[steps.last]
    return newest, newest >= steps.first[steps.last]


def _reset_gap(reset: Reset) -> Gap:
    return Gap(reset.life, reset.counter, reset.start_ms, reset.at_ms, "counter_fell")
