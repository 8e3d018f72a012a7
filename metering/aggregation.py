"""From samples to usage: how readings of one life become growth inside windows.

Everything works on whole arrays, one row a sample, sorted by series (a life or one of its
interfaces) and time. The span from a series' reading before to this one is its *step*; a step
that crosses a window's edge is cut into *pieces*, one a window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metering.passes import find_passes, fold_interface_passes, fold_life_passes
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
from metering.records import copy
from metering.samples import Event, Known, Missed, Records, State
from metering.steps import Bools, Ints, Pieces, Steps, cut, find_steps, reduce_windows, share, sums
from metering.tally import Tally

_MISSED: dict[int, str] = {
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
    tally = Tally("life", readings)
    for start, end, are_passes in find_passes(samples["life"], samples["read_ms"]):
        run, holds = samples[start:end], holds_ms[start:end]
        why = None if missed is None else missed[start:end]
        if are_passes:
            after = copy(tally.readings)
            usage, left = fold_life_passes(run, holds, tally.readings, after)
            tally.add(Fold(usage, after, [], []))
            if not left.any():
                continue
            run, holds, why = run[left], holds[left], None if why is None else why[left]
        tally.add(_fold_any_lives(run, holds, tally.readings, why))
    return Fold(tally.total(), tally.readings, tally.gaps, tally.resets)


def _fold_any_lives(
    samples: Records, holds_ms: Ints, readings: Records, missed: Ints | None
) -> Fold:
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
    tally = Tally("interface", readings)
    for start, end, are_passes in find_passes(samples["interface"], samples["read_ms"]):
        run = samples[start:end]
        if are_passes:
            after = copy(tally.readings)
            usage, left = fold_interface_passes(run, tally.readings, after)
            tally.add(Fold(usage, after, [], []))
            if not left.any():
                continue
            run = run[left]
        tally.add(_fold_any_interfaces(run, tally.readings))
    return Fold(tally.total(), tally.readings, tally.gaps, tally.resets)


def _fold_any_interfaces(samples: Records, readings: Records) -> Fold:
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

    opened, closed = _share_growth(opening, growth, pieces)
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


def _share_growth(opening: Ints, growth: Ints, pieces: Pieces) -> tuple[Ints, Ints]:
    """Return the counter where each piece opens and where it closes."""
    steps, cut_pieces = pieces.steps, pieces.cut
    opened, closed = pieces.of_steps(opening), pieces.of_steps(opening + growth)
    if len(cut_pieces):
        step = pieces.step[cut_pieces]
        length_ms = steps.end_ms[step] - steps.start_ms[step]
        for counter, edge_ms in ((opened, pieces.start_ms), (closed, pieces.end_ms)):
            passed_ms = edge_ms[cut_pieces] - steps.start_ms[step]
            counter[cut_pieces] = opening[step] + share(growth[step], passed_ms, length_ms)
    return opened, closed


def _fold_memory(
    pieces: Pieces, state: Ints, readings: Records, after: Records, usage: Records
) -> list[Gap]:
    """Add memory held over running time to `usage`; return the spans nothing could be held."""
    steps = pieces.steps
    rows = steps.rows
    stopped = rows["state"] == State.STOPPED
    known = ((rows["known"] & int(Known.MEMORY)) != 0) & ~stopped
    counts = _is_one_of(state, COUNTING["memory_byte_ms"])
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
    steps = pieces.steps
    series, until_field = steps.series, f"{gauge.name}_held_until_ms"
    before, seen = steps.before(gauge.known)
    value = np.where(seen, gauge.values[before], readings[gauge.amount][series])
    held = np.where(seen, gauge.held_until[before], readings[until_field][series])

    held_ms = np.minimum(pieces.end_ms, pieces.of_steps(held)) - pieces.start_ms
    measured_ms = np.maximum(held_ms, 0) * pieces.of_steps(counts)

    newest, any_here = steps.newest(gauge.known)
    moved = series[steps.last][any_here]
    after[gauge.amount][moved] = gauge.values[newest[any_here]]
    after[until_field][moved] = gauge.held_until[newest[any_here]]

    unmeasured = np.flatnonzero(counts & (steps.end_ms > np.maximum(held, steps.start_ms)))
    gaps = [
        Gap(life, gauge.name, start_ms, end_ms, _reason(held_ms, missed))
        for life, start_ms, end_ms, held_ms, missed in zip(
            steps.rows["life"][unmeasured].tolist(),
            np.maximum(held, steps.start_ms)[unmeasured].tolist(),
            steps.end_ms[unmeasured].tolist(),
            held[unmeasured].tolist(),
            steps.missed[unmeasured].tolist(),
            strict=True,
        )
    ]
    return sums(pieces.of_steps(value) * measured_ms, pieces), sums(measured_ms, pieces), gaps


def _reason(held_until_ms: int, missed: int) -> str:
    """Return why nothing was held: as the batch that ends it says, else only that it was long."""
    if held_until_ms == NEVER:
        return "before_first_sample"
    return _MISSED.get(missed, "held_too_long")


def _fold_allocated(
    pieces: Pieces, state: Ints, readings: Records, after: Records, usage: Records
) -> None:
    """Add limits and devices over time to `usage`. What is allocated holds until told otherwise."""
    steps = pieces.steps
    known = (steps.rows["known"] & int(Known.ALLOCATION)) != 0
    before, seen = steps.before(known)
    newest, any_here = steps.newest(known)
    moved = steps.series[steps.last][any_here]
    lasting = {
        states: _lasting(pieces, _is_one_of(state, states))
        for states in {COUNTING[quantity] for quantity in ALLOCATED}
    }
    for quantity, field in ALLOCATED.items():
        values = steps.rows[field].astype(np.int64)
        if not (values.any() or readings[field].any()):
            continue  # Hardly any host has devices.
        value = np.where(seen, values[before], readings[field][steps.series])
        usage[quantity] = sums(pieces.of_steps(value) * lasting[COUNTING[quantity]], pieces)
        after[field][moved] = values[newest[any_here]]


def _is_one_of(state: Ints, states: tuple[State, ...]) -> Bools:
    is_one = np.zeros(int(max(State)) + 1, np.bool_)
    is_one[list(states)] = True
    found: Bools = is_one[state]
    return found


def _lasting(pieces: Pieces, counts: Bools) -> Ints:
    """Return how long each piece is, 0 where its step does not count."""
    lasting_ms: Ints = (pieces.end_ms - pieces.start_ms) * pieces.of_steps(counts)
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
    unread &= steps.end_ms > steps.start_ms
    if not unread.any():
        return []
    ran = _is_one_of(state, (State.RUNNING, State.PAUSED))
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
    end_ms = pieces.of_steps(steps.end_ms)
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


def _reset_gap(reset: Reset) -> Gap:
    return Gap(reset.life, reset.counter, reset.start_ms, reset.at_ms, "counter_fell")
