"""From samples to usage: how readings of one life become growth inside windows.

Everything works on whole arrays, one row a sample, sorted by series (a life or one of its
interfaces) and time. The span from a series' reading before to this one is its *step*; a step
that crosses a window's edge is cut into *pieces*, one a window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metering.period import WINDOW_MS
from metering.readings import (
    ALL_COUNTERS,
    ALLOCATED,
    COUNTING,
    INTERFACE_COUNTERS,
    LIFE_COUNTERS,
    NETWORK_USAGE,
    NEVER,
    STORAGE_USAGE,
    USAGE,
    Fold,
    Gap,
    Reset,
)
from metering.samples import Event, Known, Missed, Records, State
from metering.steps import Bools, Ints, Pieces, Steps, cut, find_steps, reduce_windows, share, sums

_MISSED = {
    Missed.COLLECTOR_DOWN: "collector_down",
    Missed.CLOCK_SKEW: "clock_skew",
    Missed.REJECTED: "rejected",
    Missed.BATCH_LOST: "batch_lost",
}
_FIGURES = int(Known.CPU | Known.MEMORY | Known.DISK_READ | Known.DISK_WRITE)


def fold_lives(
    samples: Records, holds_ms: Ints, readings: Records, missed: Ints | None = None
) -> Fold:
    """Fold samples of any number of lives onto their last readings.

    `holds_ms` says for each sample how long its gauges count, `missed` why nothing was measured
    before it (samples.Missed). `readings` has one row for each life, sorted by life. A sample
    that is not after its life's last reading is counted as out of order and changes nothing else.
    """
    # At one time a sample with figures wins over the bare end of a life.
    last_of_all = np.iinfo(np.int64).max
    tie = np.where((samples["known"] & _FIGURES) == 0, last_of_all, samples["cpu_ns"])
    steps = find_steps(samples, holds_ms, readings, key="life", tie=tie, missed=missed)
    pieces = cut(steps)
    usage = _empty_usage(pieces, readings, "life", USAGE)
    after = readings.copy()
    resets: list[Reset] = []
    for counter, bit in LIFE_COUNTERS.items():
        known = (steps.rows["known"] & int(bit)) != 0
        resets += _fold_counter(counter, int(bit), known, pieces, readings, after, usage)
    state = _state_before(steps, readings)
    gaps = _fold_memory(pieces, state, readings, after, usage)
    _fold_allocated(pieces, state, readings, after, usage)
    gaps += _tail_gaps(steps, state)
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


def _fold_memory(
    pieces: Pieces, state: Ints, readings: Records, after: Records, usage: Records
) -> list[Gap]:
    """Add memory held over running time to `usage`; return the spans nothing could be held."""
    steps = pieces.steps
    rows = steps.rows
    stopped = rows["state"] == State.STOPPED
    known = ((rows["known"] & int(Known.MEMORY)) != 0) & ~stopped
    counts = np.isin(state, COUNTING["memory_byte_ms"])
    gauge = _Gauge(
        name="memory",
        amount="memory_bytes",
        # The end of a life ends what is held, as a reading of nothing would.
        known=known | stopped,
        values=np.where(known, rows["memory_bytes"], 0),
        held_until=np.where(known, steps.end_ms + steps.holds_ms, steps.end_ms),
    )
    usage["running_ms"] = sums(_lasting(pieces, counts), pieces)
    usage["memory_byte_ms"], usage["measured_ms"], gaps = _fold_gauge(
        gauge, pieces, counts, readings, after
    )
    return gaps


@dataclass(frozen=True, slots=True)
class _Gauge:
    """A level: what each row says of it, and until when that holds unless another row says more."""

    name: str
    amount: str
    known: Bools
    values: Ints
    held_until: Ints


def _fold_gauge(
    gauge: _Gauge, pieces: Pieces, counts: Bools, readings: Records, after: Records
) -> tuple[Ints, Ints, list[Gap]]:
    """Return level × time held and time held for each window, and where nothing was held.

    `counts` says for each step whether the gauge counts in it. Moves its reading in `after`.
    """
    steps, step = pieces.steps, pieces.step
    series, until_field = steps.series, f"{gauge.name}_held_until_ms"
    before, seen = steps.before(gauge.known)
    value = np.where(seen, gauge.values[before], readings[gauge.amount][series])
    held = np.where(seen, gauge.held_until[before], readings[until_field][series])

    measured_ms = np.maximum(np.minimum(pieces.end_ms, held[step]) - pieces.start_ms, 0)
    measured_ms[~counts[step]] = 0

    newest, any_here = _newest(gauge.known, steps)
    moved = series[steps.last][any_here]
    after[gauge.amount][moved] = gauge.values[newest[any_here]]
    after[until_field][moved] = gauge.held_until[newest[any_here]]

    unmeasured = np.flatnonzero(counts & (steps.end_ms > np.maximum(held, steps.start_ms)))
    gaps = [
        Gap(
            life=int(steps.rows["life"][i]),
            meter=gauge.name,
            start_ms=int(max(held[i], steps.start_ms[i])),
            end_ms=int(steps.end_ms[i]),
            reason="before_first_sample" if held[i] == NEVER else _reason(steps, int(i)),
        )
        for i in unmeasured
    ]
    return sums(value[step] * measured_ms, pieces), sums(measured_ms, pieces), gaps


def _reason(steps: Steps, row: int) -> str:
    """Return why nothing was held up to a row: as its batch says, else only that it was long."""
    return _MISSED.get(Missed(int(steps.missed[row])), "held_too_long")


def _fold_allocated(
    pieces: Pieces, state: Ints, readings: Records, after: Records, usage: Records
) -> None:
    """Add limits and devices over time to `usage`. What is allocated holds until told otherwise."""
    steps, step = pieces.steps, pieces.step
    known = (steps.rows["known"] & int(Known.ALLOCATION)) != 0
    before, seen = steps.before(known)
    newest, any_here = _newest(known, steps)
    moved = steps.series[steps.last][any_here]
    lasting = {
        states: _lasting(pieces, np.isin(state, states))
        for states in {COUNTING[quantity] for quantity in ALLOCATED}
    }
    for quantity, field in ALLOCATED.items():
        values = steps.rows[field].astype(np.int64)
        value = np.where(seen, values[before], readings[field][steps.series])
        usage[quantity] = sums(value[step] * lasting[COUNTING[quantity]], pieces)
        after[field][moved] = values[newest[any_here]]


def _lasting(pieces: Pieces, counts: Bools) -> Ints:
    """Return how long each piece is, 0 where its step does not count."""
    lasting_ms: Ints = np.where(counts[pieces.step], pieces.end_ms - pieces.start_ms, 0)
    return lasting_ms


def fold_storage(
    samples: Records, holds_ms: Ints, readings: Records, missed: Ints | None = None
) -> Fold:
    """Fold samples of storage onto their last readings, sorted by life.

    It counts whether the life runs or not, until the container is gone.
    """
    is_gone = samples["is_gone"] != 0
    # At one time the end wins: what is gone takes up nothing.
    steps = find_steps(
        samples, holds_ms, readings, key="life", tie=np.where(is_gone, 0, 1), missed=missed
    )
    pieces = cut(steps)
    usage = _empty_usage(pieces, readings, "life", STORAGE_USAGE)
    after = readings.copy()
    rows = steps.rows
    is_gone = rows["is_gone"] != 0
    exists = _row_before(rows["is_gone"], readings["is_gone"], steps) == 0
    gauge = _Gauge(
        name="storage",
        amount="storage_bytes",
        known=np.ones(len(rows), np.bool_),
        values=np.where(is_gone, 0, rows["layer_bytes"] + rows["volume_bytes"]),
        held_until=np.where(is_gone, steps.end_ms, steps.end_ms + steps.holds_ms),
    )
    usage["existing_ms"] = sums(_lasting(pieces, exists), pieces)
    usage["storage_byte_ms"], usage["measured_ms"], gaps = _fold_gauge(
        gauge, pieces, exists, readings, after
    )
    usage["sample_count"] = sums(pieces.is_end.astype(np.int64), pieces)
    ended = steps.series[steps.last]
    after["read_ms"][ended] = steps.end_ms[steps.last]
    after["is_gone"][ended] = rows["is_gone"][steps.last]
    after["out_of_order_count"] += steps.dropped
    return Fold(usage, after, gaps, [])


def _tail_gaps(steps: Steps, state: Ints) -> list[Gap]:
    """Return the ends of lives that no reading covers: from the last reading to the stop."""
    rows = steps.rows
    unread = (rows["event"] == Event.STOPPED) & ((rows["known"] & ALL_COUNTERS) == 0)
    ran = np.isin(state, (State.RUNNING, State.PAUSED)) & (steps.end_ms > steps.start_ms)
    return [
        Gap(
            life=int(rows["life"][i]),
            meter="counters",
            start_ms=int(steps.start_ms[i]),
            end_ms=int(steps.end_ms[i]),
            reason="ended_between_readings",
        )
        for i in np.flatnonzero(unread & ran)
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


def _state_before(steps: Steps, readings: Records) -> Ints:
    """Return what each step's life was doing in it: its state as the row before left it."""
    return _row_before(steps.rows["state"], readings["state"], steps)


def _row_before(rows: Ints, readings: Ints, steps: Steps) -> Ints:
    """Return for each row a figure of the row before it, or of its series' reading."""
    index = np.arange(len(rows))
    # The first row of all has itself before it here, and takes its reading's figure.
    value: Ints = np.where(index > steps.first, rows[index - 1], readings[steps.series])
    return value


def _newest(known: Bools, steps: Steps) -> tuple[Ints, Bools]:
    """Return for each series in `steps.last` its newest known row, and whether it has one."""
    newest = np.maximum.accumulate(np.where(known, np.arange(len(known)), -1))[steps.last]
    return newest, newest >= steps.first[steps.last]


def _reset_gap(reset: Reset) -> Gap:
    return Gap(reset.life, reset.counter, reset.start_ms, reset.at_ms, "counter_fell")
