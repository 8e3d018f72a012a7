"""Between which figures a stretch is folded, and samples that would pass them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from metering.backfill.series import LIVES, MISSED_BY_REASON, Kind, knows
from metering.readings import NEVER, Gap, Reset
from metering.samples import Missed, Records


@dataclass(frozen=True, slots=True)
class Past:
    """What is recorded of a series.

    `last` is its reading, `fresh` one before any sample with what it may take as recorded, both
    arrays of one. `anchor` gives its counters at an edge; `started_ms` is when it began to
    count from zero, NEVER where its first sample is its base line.
    """

    last: Records
    fresh: Records
    started_ms: int
    growth: Mapping[int, Mapping[str, int]]
    growth_beyond: Mapping[str, int]
    resets: Sequence[Reset]
    gaps: Sequence[Gap]
    sample_counts: Mapping[int, int]
    has_earlier: bool

    def anchor(self, kind: Kind, edge_ms: int) -> dict[str, int]:
        """Return the counters at an edge, those that have a base line."""
        after = [by_counter for window, by_counter in self.growth.items() if window >= edge_ms]
        return {
            counter: int(self.last[counter][0])
            - sum(by_counter.get(counter, 0) for by_counter in after)
            - self.growth_beyond.get(counter, 0)
            + sum(
                reset.before - reset.after
                for reset in self.resets
                if reset.counter == counter and reset.at_ms > edge_ms
            )
            for counter, bit in kind.counters.items()
            if int(self.last["known"][0]) & bit
        }

    def began_after(self, edge_ms: int, kind: Kind) -> bool:
        """Return whether nothing was counted before an edge."""
        if self.started_ms != NEVER:
            return self.started_ms >= edge_ms
        if self.has_earlier or any(window < edge_ms for window in self.sample_counts):
            return False
        anchors = self.anchor(kind, edge_ms)
        return all(value == int(self.last["base_" + name][0]) for name, value in anchors.items())


@dataclass(frozen=True, slots=True)
class Ends:
    """From where to where a stretch is folded, and the anchors it has at its end."""

    start_ms: int
    end_ms: int
    reading: Records
    anchors: Mapping[str, int]


def between_anchors(kind: Kind, inside: Records, ends: Ends, past: Past, rows: Records) -> Records:
    """Return rows none of which passes an anchor, but where the counter did fall there.

    An anchor is a share of a step that was longer than now known, so a sample near it can be
    past it. Taken as it is that would be a fall of the counter, and what lies between would be
    billed again on the other side.
    """
    inside = inside.copy()
    before = rows[rows["read_ms"] <= ends.start_ms]
    for counter, bit in kind.counters.items():
        known = np.flatnonzero(knows(kind, inside, counter))
        values = inside[counter][known]
        if not len(values):
            continue
        falls = np.flatnonzero(values[1:] < values[:-1]) + 1
        first, last = (int(falls[0]), int(falls[-1])) if len(falls) else (len(values), 0)
        low = int(ends.reading[counter][0])
        has_low = bool(int(ends.reading["known"][0]) & bit)
        has_low &= not _fell_over(
            counter, values[0], before[knows(kind, before, counter)], ends, past
        )
        high = ends.anchors.get(counter)
        if high is not None and _fell_between(
            counter, int(inside["read_ms"][known[-1]]), ends.end_ms, past
        ):
            high = None
        if high is not None and has_low and not len(falls) and high < low:
            continue
        if has_low:
            values[:first] = np.maximum(values[:first], low)
        if high is not None:
            values[last:] = np.minimum(values[last:], high)
        inside[counter][known] = values
    return inside


def is_disputed(kind: Kind, inside: Records, ends: Ends, past: Past, rows: Records) -> bool:
    """Return whether samples put a fall that straddles an edge on the other side of it."""
    before = rows[rows["read_ms"] <= ends.start_ms]
    is_anchored = int(ends.reading["read_ms"][0]) == ends.start_ms
    anchors = {name: int(ends.reading[name][0]) for name in kind.counters if is_anchored}
    return any(
        len(known := samples[knows(kind, samples, counter)])
        and int(known[counter][-1]) < at_edge.get(counter, 0)
        for samples, edge_ms, at_edge in (
            (before, ends.start_ms, anchors),
            (inside, ends.end_ms, ends.anchors),
        )
        for counter in falls_over(edge_ms, past)
    )


def _fell_over(counter: str, value: int, before: Records, ends: Ends, past: Past) -> bool:
    """Return whether a counter fell in the step over the start of a stretch."""
    if len(before):
        return bool(before[counter][-1] > value)
    return counter in falls_over(ends.start_ms, past)


def _fell_between(counter: str, start_ms: int, end_ms: int, past: Past) -> bool:
    """Return whether a fall is recorded after the last sample of a stretch."""
    return any(
        reset.counter == counter and start_ms < reset.at_ms <= end_ms for reset in past.resets
    )


def _over(edge_ms: int, past: Past) -> list[Gap]:
    """Return the gaps that lie over an edge."""
    return [gap for gap in past.gaps if gap.start_ms < edge_ms < gap.end_ms]


def missed_over(edge_ms: int, past: Past, kind: Kind) -> int:
    """Return why nothing was measured over an edge, as samples say it."""
    for gap in _over(edge_ms, past):
        if gap.meter in kind.meters and gap.reason in MISSED_BY_REASON:
            return int(MISSED_BY_REASON[gap.reason])
    return int(Missed.UNEXPLAINED)


def falls_over(edge_ms: int, past: Past) -> dict[str, int]:
    """Return what the counters that fall in the step over an edge fall to."""
    fallen = {(gap.meter, gap.end_ms) for gap in _over(edge_ms, past)}
    return {
        reset.counter: reset.after
        for reset in past.resets
        if (reset.counter, reset.at_ms) in fallen
    }


def unread_over(edge_ms: int, past: Past) -> list[tuple[str, str]]:
    """Return the gaps over an edge in which counters were not read, by meter and reason."""
    meters = {"counters", *LIVES.counters}
    return [(gap.meter, gap.reason) for gap in _over(edge_ms, past) if gap.meter in meters]


def unexplained(kind: Kind, last: Records, rows: Records) -> dict[str, int]:
    """Return the counters of a last reading that none of the samples up to it gave.

    Of any other the newest sample tells more: the reading may have kept an older figure.
    """
    return {
        counter: value
        for counter, value in _counters(kind, last).items()
        if not (knows(kind, rows, counter) & (rows[counter] == value)).any()
    }


def _counters(kind: Kind, reading: Records) -> dict[str, int]:
    return {
        counter: int(reading[counter][0])
        for counter, bit in kind.counters.items()
        if int(reading["known"][0]) & bit
    }


def pinned(kind: Kind, reading: Records, rows: Records, anchors: Mapping[str, int]) -> Records:
    """Return rows after the last of which the counters stand at their anchors."""
    rows = rows.copy()
    for counter, value in anchors.items():
        known = np.flatnonzero(knows(kind, rows, counter))
        stands_at = rows[counter][known[-1]] if len(known) else reading[counter][0]
        if int(stands_at) != value:
            rows[counter][-1] = value
            if kind is LIVES:
                rows["known"][-1] |= kind.counters[counter]
    return rows
