"""Which windows of a series are recomputed, and the fold that does it. Pure.

**Conservation.** What a series is billed is its last reading less its base line, plus what its
counters fell by. So the counter at any edge of a window follows from what is recorded after it:
last reading − growth after the edge + falls after the edge. A *stretch* of windows is folded
from that figure at its start to that figure at its end, its *anchors*. Its windows then sum to
what they did, whatever samples came to light between: only their shares, memory, measured time
and gaps change. A fall that straddles an edge counts as after it: an anchor is the figure before.

**Ends.** Where the series' last reading lies in the stretch, that is the anchor: samples after
it were never folded, and are folded onto it as any others. Where the series began in the
stretch, it begins there again: a base line then moves to the first sample.

**Stretches** begin and end in a window with a sample, so that an anchor shares its one window
with the sample next to it and no rounding of a long step is done again from another start.
Windows whose records count more samples than there are now would lose by it: they are kept, and
part one stretch from the next.

**Gauges** have no anchors. What was held at the start is told by the samples just before it;
without any, memory up to the first sample is a gap, and allocation is that of the life as it
was recorded.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from metering.aggregation import fold_interfaces, fold_lives, fold_storage
from metering.backfill.anchors import (
    Ends,
    Past,
    between_anchors,
    falls_over,
    is_disputed,
    missed_over,
    pinned,
    unexplained,
    unread_over,
)
from metering.backfill.series import (
    INTERFACES,
    LIVES,
    STORAGE,
    Kind,
    row_of_edge,
    row_of_reading,
    windows_of,
)
from metering.period import WINDOW_MS
from metering.readings import ALLOCATED, NEVER, Fold, Gap, Reset
from metering.samples import Known, Records, State
from metering.steps import Ints


@dataclass(frozen=True, slots=True, order=True)
class Stretch:
    """Windows that follow each other, from `start_ms` to before `end_ms`."""

    start_ms: int
    end_ms: int

    def holds(self, window_ms: int) -> bool:
        """Return whether a window is one of them."""
        return self.start_ms <= window_ms < self.end_ms


@dataclass(frozen=True, slots=True)
class Plan:
    """One series over one stretch: the reading to start from, and the rows to fold onto it.

    `has_edge`: the last row is no sample, only the stretch's end. Of the step over that end,
    `closing` has the figures with which the last window closes because a counter falls in it,
    `unread` the gaps of counters, meter and reason, that begin in it.
    """

    kind: Kind
    stretch: Stretch
    reading: Records
    rows: Records
    has_edge: bool
    closing: Mapping[str, int] = field(default_factory=dict)
    unread: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Recomputed:
    """What a plan came to: the records its windows should have, and where the series stands."""

    stretch: Stretch
    usage: Records
    gaps: list[Gap]
    resets: list[Reset]
    reading: Records


def find_stretches(
    times_ms: Ints, recorded: Mapping[int, int], *, born_ms: int | None
) -> tuple[list[Stretch], int]:
    """Return the stretches that samples at these times can recompute, and how many windows not.

    `recorded` says how many samples the record of each window counts, `born_ms` when the series
    began, if that is to be recomputed too.
    """
    windows, counts = np.unique(windows_of(times_ms), return_counts=True)
    found = dict(zip(windows.tolist(), counts.tolist(), strict=True))
    kept = sorted(window for window, count in recorded.items() if count > found.get(window, 0))
    marks = set(found)
    if born_ms is not None:
        marks.add(born_ms // WINDOW_MS * WINDOW_MS)
    stretches: list[Stretch] = []
    parted = -1
    for window in sorted(marks - set(kept)):
        part = bisect_left(kept, window)
        if part == parted:
            stretches[-1] = replace(stretches[-1], end_ms=window + WINDOW_MS)
        else:
            stretches.append(Stretch(window, window + WINDOW_MS))
        parted = part
    sampled = [one for one in stretches if any(one.holds(window) for window in found)]
    return sampled, len(set(kept) & set(found))


def make_plan(kind: Kind, stretch: Stretch, rows: Records, past: Past) -> Plan | None:
    """Return how to fold a series' rows over a stretch. `rows` are in order, with those before.

    None where a counter is recorded to have fallen in the step over an edge and the samples
    show that it fell on the other side of it: only a range that has both sides can say more.
    """
    last_ms = int(past.last["read_ms"][0])
    is_newest = last_ms <= stretch.end_ms
    reading = _reading_at_start(kind, stretch, rows, past)
    begins_ms = stretch.start_ms if reading["read_ms"][0] != NEVER else stretch.start_ms - 1
    times = rows["read_ms"]
    end_ms = last_ms if is_newest else stretch.end_ms
    if is_newest:
        anchors = unexplained(kind, past.last, rows[times <= end_ms])
    else:
        anchors = past.anchor(kind, end_ms)
    inside = rows[(times > begins_ms) & (times <= end_ms)]
    ends = Ends(stretch.start_ms, end_ms, reading, anchors)
    if is_disputed(kind, inside, ends, past, rows):
        return None
    inside = between_anchors(kind, inside, ends, past, rows)
    has_end = int(inside["read_ms"][-1]) == end_ms
    if not has_end:
        edge = (
            row_of_reading(kind, past.last)
            if is_newest
            else row_of_edge(kind, inside[-1:], end_ms, missed_over(end_ms, past, kind))
        )
        inside = np.concatenate([inside, edge])
    has_edge = not (has_end or is_newest)
    return Plan(
        kind=kind,
        stretch=stretch,
        reading=reading,
        rows=pinned(kind, reading, inside, anchors),
        has_edge=has_edge,
        closing=falls_over(end_ms, past) if has_edge else {},
        unread=unread_over(end_ms, past) if has_edge and kind is LIVES else (),
    )


def _reading_at_start(kind: Kind, stretch: Stretch, rows: Records, past: Past) -> Records:
    reading: Records = past.fresh.copy()
    begins_ms = int(reading["read_ms"][0])
    is_in_reach = begins_ms == NEVER or begins_ms >= stretch.start_ms
    if is_in_reach and past.began_after(stretch.start_ms, kind):
        return reading
    reading["read_ms"] = stretch.start_ms
    if kind.counters:
        reading["known"] = past.last["known"]
    for counter, value in past.anchor(kind, stretch.start_ms).items():
        reading[counter] = value
        reading["base_" + counter] = past.last["base_" + counter]
    hold(kind, reading, rows[rows["read_ms"] <= stretch.start_ms])
    return reading


def hold(kind: Kind, reading: Records, before: Records) -> None:
    """Let a reading, an array of one, hold what the samples before it tell of gauges and state."""
    if len(before) and kind is LIVES:
        _hold_life(reading, before)
    elif len(before) and kind is STORAGE:
        newest = before[-1]
        is_gone = bool(newest["is_gone"])
        amount = 0 if is_gone else newest["layer_bytes"] + newest["volume_bytes"]
        reading["storage_bytes"] = amount
        reading["storage_held_until_ms"] = newest["read_ms"] + (0 if is_gone else newest["hold_ms"])
        reading["is_gone"] = newest["is_gone"]


def _hold_life(reading: Records, before: Records) -> None:
    reading["state"] = before["state"][-1]
    is_stopped = before["state"] == State.STOPPED
    has_memory = ((before["known"] & int(Known.MEMORY)) != 0) & ~is_stopped
    if len(told := np.flatnonzero(has_memory | is_stopped)):
        newest = before[told[-1]]
        is_held = bool(has_memory[told[-1]])
        reading["memory_bytes"] = newest["memory_bytes"] if is_held else 0
        reading["memory_held_until_ms"] = newest["read_ms"] + (newest["hold_ms"] if is_held else 0)
    if len(told := np.flatnonzero((before["known"] & int(Known.ALLOCATION)) != 0)):
        for name in ALLOCATED.values():
            reading[name] = before[name][told[-1]]


def fold_rows(kind: Kind, rows: Records, readings: Records) -> Fold:
    """Fold rows of a kind onto their readings, sorted by series."""
    if kind is INTERFACES:
        return fold_interfaces(rows, readings)
    fold = fold_lives if kind is LIVES else fold_storage
    return fold(rows, rows["hold_ms"], readings, rows["missed"])


def recompute(kind: Kind, plans: Sequence[Plan]) -> list[Recomputed]:
    """Return what the plans come to, in their order. No series may have two of them."""
    if not plans:
        return []
    numbers = np.array([plan.reading[kind.key][0] for plan in plans])
    order = np.argsort(numbers)
    fold = fold_rows(
        kind,
        np.concatenate([plan.rows for plan in plans]),
        np.concatenate([plans[at].reading for at in order]),
    )
    gaps: dict[int, list[Gap]] = {}
    for gap in fold.gaps:
        gaps.setdefault(gap.life, []).append(gap)
    resets: dict[int, list[Reset]] = {}
    for reset in fold.resets:
        resets.setdefault(reset.series, []).append(reset)
    done: dict[int, Recomputed] = {}
    for place, at in enumerate(order.tolist()):
        plan, number = plans[at], int(numbers[at])
        low, high = np.searchsorted(fold.usage[kind.key], [number, number + 1])
        series_resets = resets.get(number, [])
        if kind is INTERFACES:
            # A life's interfaces have their gaps in common: take those of this one's falls.
            own_gaps = [_gap_of(reset) for reset in series_resets]
        else:
            own_gaps = gaps.get(number, []) + _begun_unread(plan)
        done[at] = Recomputed(
            stretch=plan.stretch,
            usage=_of_stretch(plan, fold.usage[low:high]),
            gaps=own_gaps,
            resets=series_resets,
            reading=fold.readings[place : place + 1],
        )
    return [done[at] for at in range(len(plans))]


def _gap_of(reset: Reset) -> Gap:
    return Gap(reset.life, reset.counter, reset.start_ms, reset.at_ms, "counter_fell")


def _begun_unread(plan: Plan) -> list[Gap]:
    if not plan.unread:
        return []
    life, end_ms = int(plan.rows["life"][-1]), plan.stretch.end_ms
    begin_ms = int(plan.rows["read_ms"][-2])
    return [Gap(life, meter, begin_ms, end_ms, reason) for meter, reason in plan.unread]


def _of_stretch(plan: Plan, usage: Records) -> Records:
    """Return a plan's usage without what only its end has put there."""
    usage = usage.copy()
    if not plan.has_edge:
        return usage
    usage["sample_count"][-1] -= 1
    if "last_sample_ms" in (usage.dtype.names or ()):
        samples = plan.rows["read_ms"][:-1]
        window = int(usage["window_ms"][-1])
        newest = int(samples[-1])
        is_here = int(windows_of(samples[-1:])[0]) == window and usage["sample_count"][-1] > 0
        usage["last_sample_ms"][-1] = newest if is_here else NEVER
        if not is_here:
            usage["first_sample_ms"][-1] = NEVER
    for counter, value in plan.closing.items():
        usage["closing_" + counter][-1] = value
    return usage
