"""What is allocated, held and stored, by state and over time; and samples that come too late."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from metering.aggregation import fold_lives, fold_storage
from metering.period import WINDOW_MS
from metering.readings import (
    COUNTING,
    NEVER,
    Allocation,
    Fold,
    new_life_reading,
    new_storage_readings,
)
from metering.samples import SAMPLE, STORAGE_SAMPLE, Event, Known, Missed, Records, State
from tests.metering.oracle import Sample
from tests.metering.test_aggregation import EDGE_MS, LIFE, fold, lives


@st.composite
def changing_lives(draw: st.DrawFn) -> list[tuple[int, State, int | None]]:
    """Draw moments of a life in any order: when, its state from then on, its limit if told."""
    moments = draw(
        st.lists(
            st.tuples(
                st.integers(1, 3 * WINDOW_MS),
                st.sampled_from([State.RUNNING, State.PAUSED]),
                st.none() | st.integers(0, 10**6),
            ),
            min_size=1,
            max_size=8,
            unique_by=lambda moment: moment[0],
        )
    )
    if draw(st.booleans()):
        at_ms = max(moment[0] for moment in moments) + draw(st.integers(1, 3 * WINDOW_MS))
        moments.append((at_ms, State.STOPPED, None))
    return moments


def fold_moments(moments: Sequence[tuple[int, State, int | None]], reading: Records) -> Fold:
    rows = np.zeros(len(moments), SAMPLE)
    for row, (at_ms, state, limit) in zip(rows, moments, strict=True):
        row["life"], row["read_ms"], row["state"] = LIFE, EDGE_MS + at_ms, state
        row["event"] = Event.STOPPED if state is State.STOPPED else Event.CHANGED
        if limit is not None:
            row["known"] = Known.ALLOCATION
            row["cpu_limit_micro"], row["memory_limit_bytes"] = limit, 3 * limit
            row["gpu_count"] = limit % 9
    return fold_lives(rows, np.full(len(rows), 10_000, np.int64), reading)


@given(moments=changing_lives(), data=st.data())
def test_what_is_allocated_counts_by_state_and_by_the_limits_last_told(
    moments: list[tuple[int, State, int | None]], data: st.DataObject
) -> None:
    limit, state, at_ms = 7, State.RUNNING, 0
    expected: Counter[str] = Counter()
    for after_ms, next_state, told in sorted(moments, key=lambda moment: moment[0]):
        for quantity, amount in (
            ("cpu_allocated_ns", limit),
            ("memory_allocated_byte_ms", 3 * limit),
            ("gpu_ms", limit % 9),
            ("running_ms", 1),
        ):
            if state in COUNTING.get(quantity, (State.RUNNING, State.PAUSED)):
                expected[quantity] += amount * (after_ms - at_ms)
        limit, state, at_ms = limit if told is None else told, next_state, after_ms
    allocation = Allocation(7, 21, 7)
    reading = new_life_reading(
        LIFE, started_ms=EDGE_MS, counts_from_zero=True, allocation=allocation
    )
    whole = fold_moments(data.draw(st.permutations(moments)), reading)
    ordered = sorted(moments, key=lambda moment: moment[0])
    cut_at = data.draw(st.integers(0, len(ordered)))
    first = fold_moments(ordered[:cut_at], reading)
    parts = [first, fold_moments(ordered[cut_at:], first.readings)]
    for folds in ([whole], parts):
        for quantity, value in expected.items():
            assert sum(int(one.usage[quantity].sum()) for one in folds) == value


def test_memory_is_allocated_without_a_limit_of_cpu() -> None:
    reading = new_life_reading(
        LIFE,
        started_ms=EDGE_MS,
        counts_from_zero=True,
        allocation=Allocation(memory_limit_bytes=21),
    )
    folded = fold([Sample(LIFE, EDGE_MS + 1000, cpu_ns=1)], reading)
    assert folded.usage["cpu_allocated_ns"].tolist() == [0]
    assert folded.usage["memory_allocated_byte_ms"].tolist() == [21_000]


@given(samples=lives(), data=st.data())
def test_samples_behind_the_last_reading_change_nothing_but_their_count(
    samples: list[Sample], data: st.DataObject
) -> None:
    folded = fold(samples)
    last_ms = int(folded.readings["read_ms"][0])
    # Sent twice, out of order, or from a clock that stepped back.
    back_ms = st.one_of(st.just(0), st.integers(0, 60_000), st.just(3_600_000))
    late = [
        Sample(LIFE, last_ms - data.draw(back_ms), cpu_ns=data.draw(st.integers(0, 10**15)))
        for _ in range(data.draw(st.integers(1, 5)))
    ]
    again = fold(late, folded.readings)
    assert (len(again.usage), again.gaps, again.resets) == (0, [], [])
    assert again.readings[0]["out_of_order_count"] == len(late)
    ahead = [*late, Sample(LIFE, last_ms + 1, cpu_ns=10**15)]
    assert fold(ahead, folded.readings).usage["cpu_ns"].sum() == 10**15 - int(
        folded.readings["cpu_ns"][0]
    )


@st.composite
def takers(draw: st.DrawFn) -> list[tuple[int, int, bool]]:
    """Draw readings of storage: when, how much, and whether the container was gone by then."""
    at_ms = draw(st.lists(st.integers(1, 9 * WINDOW_MS), min_size=1, max_size=8, unique=True))
    readings = [(at, draw(st.integers(0, 2**40)), False) for at in sorted(at_ms)]
    if draw(st.booleans()):
        readings.append((readings[-1][0] + draw(st.integers(1, 3 * WINDOW_MS)), 0, True))
    return readings


@given(taken=takers(), began=st.booleans(), data=st.data())
def test_storage_is_held_from_reading_to_reading_until_the_container_is_gone(
    taken: list[tuple[int, int, bool]], *, began: bool, data: st.DataObject
) -> None:
    hold_ms = 1_500_000
    rows = np.array(
        [(LIFE, EDGE_MS + at_ms, held, 0, gone) for at_ms, held, gone in taken], STORAGE_SAMPLE
    )
    reading = new_storage_readings(
        np.array([LIFE]), from_ms=np.array([EDGE_MS if began else NEVER])
    )
    begin_ms = 0 if began else taken[0][0]
    spans = [(held, before, after) for (before, held, _), (after, _, _) in pairwise(taken)]
    shuffled = data.draw(st.permutations(range(len(rows))))
    folded = fold_storage(rows[shuffled], np.full(len(rows), hold_ms, np.int64), reading)
    assert folded.usage["existing_ms"].sum() == taken[-1][0] - begin_ms
    assert folded.usage["measured_ms"].sum() == sum(min(b - a, hold_ms) for _, a, b in spans)
    assert folded.usage["storage_byte_ms"].sum() == sum(
        held * min(b - a, hold_ms) for held, a, b in spans
    )
    gaps_ms = sum(gap.end_ms - gap.start_ms for gap in folded.gaps)
    usage = folded.usage
    assert gaps_ms == usage["existing_ms"].sum() - usage["measured_ms"].sum()
    # Once gone, it takes up nothing more.
    if taken[-1][2]:
        later = np.array([(LIFE, EDGE_MS + taken[-1][0] + 5, 0, 0, 1)], STORAGE_SAMPLE)
        after = fold_storage(later, np.array([hold_ms]), folded.readings)
        assert after.usage["existing_ms"].sum() == 0


def test_at_one_time_the_end_of_storage_wins_and_takes_up_nothing() -> None:
    reading = new_storage_readings(np.array([LIFE]), from_ms=np.array([EDGE_MS]))
    reading["out_of_order_count"] = 3
    rows = np.array(
        [
            (LIFE, EDGE_MS + 1000, 50, 0, 0),
            (LIFE, EDGE_MS + 2000, 70, 5, 0),
            (LIFE, EDGE_MS + 2000, 60, 0, 1),
        ],
        STORAGE_SAMPLE,
    )
    for order in ([0, 1, 2], [2, 1, 0]):
        folded = fold_storage(rows[order], np.full(3, 10_000), reading)
        last = folded.readings[0]
        assert (last["is_gone"], last["storage_bytes"]) == (1, 0)
        assert last["storage_held_until_ms"] == EDGE_MS + 2000
        assert last["out_of_order_count"] == 3 + 1
        assert folded.resets == []
        assert folded.usage["storage_byte_ms"].tolist() == [50_000]
        assert folded.usage["sample_count"].tolist() == [2]


def test_storage_counts_what_the_layer_and_the_volumes_hold() -> None:
    reading = new_storage_readings(np.array([1, LIFE]), from_ms=np.array([EDGE_MS, EDGE_MS]))
    rows = np.array(
        [(LIFE, EDGE_MS + 1000, 50, 7, 0), (LIFE, EDGE_MS + 3000, 1, 1, 0)], STORAGE_SAMPLE
    )
    folded = fold_storage(rows, np.full(2, 10_000), reading)
    assert folded.usage[["life", "storage_byte_ms"]].tolist() == [(LIFE, 57 * 2000)]
    # The other life stands where it did.
    assert folded.readings["storage_bytes"].tolist() == [0, 2]
    assert folded.readings["read_ms"].tolist() == [EDGE_MS, EDGE_MS + 3000]
    assert folded.readings["storage_held_until_ms"].tolist() == [NEVER, EDGE_MS + 13_000]


def test_a_gap_in_storage_has_the_reason_that_its_batch_gives() -> None:
    reading = new_storage_readings(np.array([LIFE]), from_ms=np.array([EDGE_MS]))
    rows = np.array(
        [(LIFE, EDGE_MS + 1000, 50, 0, 0), (LIFE, EDGE_MS + 5000, 50, 0, 0)], STORAGE_SAMPLE
    )
    missed = np.array([Missed.UNEXPLAINED, Missed.COLLECTOR_DOWN], np.int64)
    folded = fold_storage(rows, np.full(2, 1000), reading, missed)
    assert [(gap.meter, gap.start_ms, gap.end_ms, gap.reason) for gap in folded.gaps] == [
        ("storage", EDGE_MS, EDGE_MS + 1000, "before_first_sample"),
        ("storage", EDGE_MS + 2000, EDGE_MS + 5000, "collector_down"),
    ]
