"""A life's gaps, with those of recomputed windows in the place of what they were. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from metering.backfill.series import INTERFACES, MISSED_BY_REASON, Kind
from metering.backfill.stretches import Recomputed
from metering.readings import Gap

# What a fold says of gaps. Others, as that a host was silent, no samples take back.
FOLDED_REASONS = frozenset(
    {
        "before_first_sample",
        "held_too_long",
        "ended_between_readings",
        "counter_fell",
        *MISSED_BY_REASON,
    }
)


def replace_gaps(
    gaps: Sequence[Gap], kind: Kind, done: Recomputed, *, falls_ms: Collection[int]
) -> list[Gap]:
    """Return a life's gaps with those of a stretch replaced.

    One that lies over an edge of the stretch keeps its part outside, and is whole again if
    there is still a gap for the same reason inside. Of gaps in interfaces, which a life has in
    common, those that end with this one's falls, at `falls_ms`, are replaced.
    """
    start_ms, end_ms = done.stretch.start_ms, done.stretch.end_ms
    before: dict[tuple[str, str], Gap] = {}
    after: dict[tuple[str, str], Gap] = {}
    result = []
    for gap in gaps:
        is_replaced = (
            gap.meter in kind.meters
            and gap.reason in FOLDED_REASONS
            and gap.start_ms < end_ms
            and gap.end_ms > start_ms
            and (kind is not INTERFACES or gap.end_ms in falls_ms)
        )
        if not is_replaced:
            result.append(gap)
            continue
        if gap.start_ms < start_ms:
            before[gap.meter, gap.reason] = replace(gap, end_ms=start_ms)
        if gap.end_ms > end_ms:
            after[gap.meter, gap.reason] = replace(gap, start_ms=end_ms)
    for gap in done.gaps:
        what, whole = (gap.meter, gap.reason), gap
        if gap.start_ms == start_ms and what in before:
            whole = replace(whole, start_ms=before.pop(what).start_ms)
        if gap.end_ms == end_ms and what in after:
            whole = replace(whole, end_ms=after.pop(what).end_ms)
        result.append(whole)
    return [*result, *before.values(), *after.values()]
