"""Whole passes folded at once give what the fold for every case gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering import aggregation
from metering.aggregation import fold_interfaces, fold_lives
from metering.passes import find_passes
from metering.period import WINDOW_MS
from metering.readings import (
    ALL_COUNTERS,
    ALL_INTERFACE_COUNTERS,
    INTERFACE_READING,
    Fold,
    new_life_reading,
)
from metering.samples import INTERFACE_SAMPLE, SAMPLE, Event, Known, Missed, Records, State

EDGE_MS = 2_000_000 * WINDOW_MS
ALL = int(Known.CPU | Known.MEMORY | Known.DISK_READ | Known.DISK_WRITE | Known.ALLOCATION)
COUNTERS = ("cpu_ns", "disk_read_bytes", "disk_write_bytes")


@st.composite
def hosts(draw: st.DrawFn) -> tuple[Records, Records]:
    """Draw some passes over some lives, nearly all of them plain, and the readings before."""
    lives, passes = draw(st.integers(1, 5)), draw(st.integers(1, 8))
    numbers = draw(st.permutations(range(10, 10 + lives)))
    start_ms = EDGE_MS + draw(st.sampled_from([100_000, WINDOW_MS - 7000, WINDOW_MS - 2000, 0]))
    readings = np.concatenate(
        [new_life_reading(n, started_ms=start_ms, counts_from_zero=True) for n in sorted(numbers)]
    )
    readings["memory_held_until_ms"] = start_ms + draw(st.sampled_from([10_000, 1]))
    readings["memory_bytes"] = 17
    if draw(st.booleans()):
        one = draw(st.integers(0, lives - 1))
        readings["known"][one] = draw(st.integers(0, ALL_COUNTERS))
        readings["state"][one] = draw(st.sampled_from([State.RUNNING, State.PAUSED]))
    readings["cpu_limit_micro"] = draw(st.sampled_from([500_000, 1]))
    samples = np.zeros(lives * passes, SAMPLE)
    samples["life"] = np.tile(numbers, passes)
    jitter = np.array([draw(st.integers(0, 900)) for _ in range(lives * passes)])
    samples["read_ms"] = start_ms + 2000 * (1 + np.repeat(np.arange(passes), lives)) + jitter
    for counter in COUNTERS:
        steps = np.array([draw(st.integers(0, 10**10)) for _ in range(lives * passes)])
        samples[counter] = np.cumsum(steps.reshape(passes, lives), axis=0).ravel()
    samples["memory_bytes"] = [draw(st.integers(0, 2**40)) for _ in range(lives * passes)]
    samples["cpu_limit_micro"] = 500_000
    samples["known"], samples["state"], samples["event"] = ALL, State.RUNNING, Event.PERIODIC
    for _ in range(draw(st.integers(0, 3))):
        row = samples[draw(st.integers(0, len(samples) - 1))]
        field, value = draw(
            st.sampled_from(
                [
                    ("known", int(Known.CPU)),
                    ("known", ALL & ~int(Known.DISK_READ)),
                    ("known", ALL & ~int(Known.CPU)),
                    ("known", 0),
                    ("state", State.PAUSED),
                    ("state", State.STOPPED),
                    ("cpu_ns", 0),
                    ("cpu_limit_micro", 9),
                    ("read_ms", int(row["read_ms"]) + 60_000),
                    ("read_ms", start_ms - 1),
                    ("life", int(samples["life"][0])),
                ]
            )
        )
        row[field] = value
    return samples, readings


def rows_of(fold: Fold) -> tuple[list[tuple[int, ...]], list[object], list[object]]:
    return (
        sorted(fold.usage.tolist()),
        sorted(fold.gaps, key=repr),
        sorted(fold.resets, key=repr),
    )


@given(host=hosts())
def test_passes_give_what_the_fold_for_every_case_gives(host: tuple[Records, Records]) -> None:
    samples, readings = host
    holds = np.full(len(samples), 10_000)
    at_once = fold_lives(samples, holds, readings)
    every_case = aggregation._fold_any_lives(samples, holds, readings, None)
    assert rows_of(at_once) == rows_of(every_case)
    assert (at_once.readings == every_case.readings).all()


@given(host=hosts())
def test_passes_of_interfaces_do_too(host: tuple[Records, Records]) -> None:
    lives, life_readings = host
    samples = np.zeros(len(lives), INTERFACE_SAMPLE)
    samples["interface"] = samples["life"] = lives["life"]
    samples["read_ms"] = lives["read_ms"]
    samples["rx_bytes"], samples["tx_bytes"] = lives["cpu_ns"], lives["disk_read_bytes"]
    readings = np.zeros(len(life_readings), INTERFACE_READING)
    readings["interface"] = readings["life"] = life_readings["life"]
    readings["read_ms"] = life_readings["read_ms"]
    readings["known"] = life_readings["known"] & ALL_INTERFACE_COUNTERS
    at_once = fold_interfaces(samples, readings)
    every_case = aggregation._fold_any_interfaces(samples, readings)
    assert rows_of(at_once) == rows_of(every_case)
    assert (at_once.readings == every_case.readings).all()


@pytest.mark.parametrize(
    ("times", "runs"),
    [
        ([[1, 2], [3, 4]], [(0, 4, True)]),
        # The third pass begins a window; it may have steps that the edge cuts.
        ([[-9, -8], [-5, -4], [1, 2], [3, 4]], [(0, 4, True), (4, 6, False), (6, 8, True)]),
        # One life is read before the edge, and one after it.
        ([[-5, -4], [-1, 1], [3, 4]], [(0, 2, True), (2, 4, False), (4, 6, True)]),
        ([[3, 4], [1, 5]], [(0, 4, False)]),
    ],
)
def test_passes_are_found_between_the_edges_of_windows(
    times: list[list[int]], runs: list[tuple[int, int, bool]]
) -> None:
    read_ms = np.array(times).ravel() + EDGE_MS
    ids = np.tile([7, 5], len(times))
    assert list(find_passes(ids, read_ms)) == runs


def test_lives_that_are_not_the_same_in_each_pass_are_no_passes() -> None:
    read_ms = EDGE_MS + np.array([1, 2, 3])
    assert list(find_passes(np.array([7, 5, 7]), read_ms)) == [(0, 3, False)]
    assert list(find_passes(np.array([7, 5, 5]), read_ms)) == [(0, 3, False)]
    another = np.array([7, 5, 7, 3])
    assert list(find_passes(another, EDGE_MS + np.arange(1, 5))) == [(0, 4, False)]
    assert list(find_passes(np.array([], np.int64), np.array([], np.int64))) == [(0, 0, False)]


def test_plain_passes_are_folded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Fold:
        raise AssertionError("the fold for every case was asked")

    monkeypatch.setattr(aggregation, "_fold_any_lives", refuse)
    samples = np.zeros(4, SAMPLE)
    samples["life"], samples["read_ms"] = [7, 5, 7, 5], EDGE_MS + np.array([1, 2, 3, 4])
    samples["known"], samples["state"] = ALL, State.RUNNING
    readings = np.concatenate(
        [new_life_reading(n, started_ms=EDGE_MS, counts_from_zero=True) for n in (5, 7)]
    )
    readings["memory_held_until_ms"] = EDGE_MS + 10
    assert fold_lives(samples, np.full(4, 10), readings).usage["sample_count"].tolist() == [2, 2]


# Two passes inside a window, two over its edge and two inside the next: three runs.
OVER_AN_EDGE_MS = (1000, 2000, WINDOW_MS - 1000, WINDOW_MS + 1000, WINDOW_MS + 2000)


def passes_over_an_edge() -> Records:
    samples = np.zeros(2 * len(OVER_AN_EDGE_MS), SAMPLE)
    samples["life"] = np.tile([5, 7], len(OVER_AN_EDGE_MS))
    samples["read_ms"] = EDGE_MS + np.repeat(OVER_AN_EDGE_MS, 2)
    samples["known"], samples["state"] = ALL, State.RUNNING
    samples["cpu_ns"] = 10 * (1 + np.arange(len(samples)))
    return samples


def test_runs_after_one_that_was_folded_at_once_are_folded_too() -> None:
    readings = np.concatenate(
        [new_life_reading(n, started_ms=EDGE_MS, counts_from_zero=True) for n in (5, 7)]
    )
    readings["memory_held_until_ms"] = EDGE_MS + WINDOW_MS
    samples = passes_over_an_edge()
    folded = fold_lives(samples, np.full(len(samples), WINDOW_MS), readings)
    assert folded.readings["cpu_ns"].tolist() == [90, 100]
    assert folded.usage["cpu_ns"].sum() == 190
    assert folded.usage["sample_count"].tolist() == [3, 2, 3, 2]

    of_interfaces = np.zeros(len(samples), INTERFACE_SAMPLE)
    of_interfaces["interface"] = of_interfaces["life"] = samples["life"]
    of_interfaces["read_ms"], of_interfaces["rx_bytes"] = samples["read_ms"], samples["cpu_ns"]
    before = np.zeros(2, INTERFACE_READING)
    before["interface"] = before["life"] = (5, 7)
    before["read_ms"], before["known"] = EDGE_MS, ALL_INTERFACE_COUNTERS
    folded = fold_interfaces(of_interfaces, before)
    assert folded.readings["rx_bytes"].tolist() == [90, 100]
    assert folded.usage["rx_bytes"].sum() == 190


def test_why_nothing_was_held_is_told_of_what_passes_leave_and_of_what_are_none() -> None:
    readings = np.concatenate(
        [new_life_reading(n, started_ms=EDGE_MS, counts_from_zero=True) for n in (5, 7)]
    )
    readings["memory_held_until_ms"] = EDGE_MS + WINDOW_MS
    samples = passes_over_an_edge()
    # The newest pass of either window comes after a spell in which nobody read.
    missed = np.where(samples["read_ms"] % WINDOW_MS == 2000, Missed.COLLECTOR_DOWN, 0)
    for left_out in (0, 1):
        rows, why = samples[left_out:], missed[left_out:]
        folded = fold_lives(rows, np.full(len(rows), 100), readings, why)
        reasons = {gap.end_ms - EDGE_MS: gap.reason for gap in folded.gaps if gap.life == 7}
        assert reasons == {
            2000: "collector_down",
            WINDOW_MS - 1000: "held_too_long",
            WINDOW_MS + 1000: "held_too_long",
            WINDOW_MS + 2000: "collector_down",
        }
