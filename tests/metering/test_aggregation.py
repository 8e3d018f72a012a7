from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.aggregation import fold_interfaces, fold_lives
from metering.period import WINDOW_MS
from metering.readings import NEVER, Fold, Gap, new_interface_readings, new_life_reading
from metering.samples import INTERFACE_SAMPLE, SAMPLE, Event, Known, Records, State
from tests.metering.oracle import Oracle, Sample

# A window's edge, so that a test's milliseconds count from it.
EDGE_MS = 2_000_000 * WINDOW_MS
LIFE = 7


def packed(samples: Sequence[Sample]) -> tuple[Records, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    rows = np.zeros(len(samples), SAMPLE)
    for row, sample in zip(rows, samples, strict=True):
        known = Known(0)
        if sample.cpu_ns is not None:
            known |= Known.CPU
        if sample.memory_bytes is not None:
            known |= Known.MEMORY
        row["life"], row["read_ms"] = sample.life, sample.read_ms
        row["cpu_ns"], row["memory_bytes"] = sample.cpu_ns or 0, sample.memory_bytes or 0
        row["known"] = known
        row["state"] = State.STOPPED if sample.stopped else State.RUNNING
        row["event"] = Event.STOPPED if sample.stopped else Event.PERIODIC
    return rows, np.array([sample.hold_ms for sample in samples], np.int64)


def fold(samples: Sequence[Sample], reading: Records | None = None) -> Fold:
    rows, holds = packed(samples)
    if reading is None:
        reading = new_life_reading(LIFE, started_ms=EDGE_MS, counts_from_zero=True)
    return fold_lives(rows, holds, reading)


def windows(folds: Sequence[Fold]) -> dict[int, tuple[int, ...]]:
    """Sum usage over folds, by window: cpu, memory, running, measured, samples."""
    names = ("cpu_ns", "memory_byte_ms", "running_ms", "measured_ms", "sample_count")
    totals: dict[int, tuple[int, ...]] = {}
    for one in folds:
        for row in one.usage:
            before = totals.get(int(row["window_ms"]), (0,) * len(names))
            totals[int(row["window_ms"])] = tuple(
                b + int(row[name]) for b, name in zip(before, names, strict=True)
            )
    return totals


def oracle_windows(oracle: Oracle) -> dict[int, tuple[int, ...]]:
    return {
        window: (t.cpu_ns, t.memory_byte_ms, t.running_ms, t.measured_ms, t.samples)
        for window, t in oracle.windows.items()
    }


@st.composite
def lives(draw: st.DrawFn) -> list[Sample]:
    """Draw one life in order: cpu only grows, and any figure may be missing."""
    samples: list[Sample] = []
    at_ms, cpu_ns = EDGE_MS, 0
    for _ in range(draw(st.integers(1, 12))):
        at_ms += draw(
            st.one_of(
                st.integers(1, 15_000),
                st.sampled_from([WINDOW_MS, WINDOW_MS - 1, WINDOW_MS + 1, 5 * WINDOW_MS]),
            )
        )
        cpu_ns += draw(st.integers(0, 10**13))
        samples.append(
            Sample(
                LIFE,
                at_ms,
                cpu_ns=draw(st.one_of(st.just(cpu_ns), st.none())),
                memory_bytes=draw(st.one_of(st.integers(0, 2**40), st.none())),
                hold_ms=draw(st.sampled_from([10_000, 50_000])),
            )
        )
    if draw(st.booleans()):
        samples.append(Sample(LIFE, at_ms + draw(st.integers(1, 30_000)), stopped=True))
    return samples


@given(samples=lives())
def test_windows_equal_those_of_the_oracle(samples: list[Sample]) -> None:
    oracle = Oracle(EDGE_MS)
    oracle.take(samples)
    folded = fold(samples)
    assert windows([folded]) == oracle_windows(oracle)
    memory_gaps = [gap for gap in folded.gaps if gap.meter == "memory"]
    assert sum(gap.end_ms - gap.start_ms for gap in memory_gaps) == oracle.memory_gap_ms


@given(samples=lives(), data=st.data())
def test_any_split_into_batches_gives_the_same_windows(
    samples: list[Sample], data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(samples)))))
    reading = None
    folds = []
    for start, end in zip([0, *cuts], [*cuts, len(samples)], strict=True):
        if start == end:
            continue
        folds.append(fold(samples[start:end], reading))
        reading = folds[-1].readings
    assert windows(folds) == windows([fold(samples)])
    assert folds[-1].readings == fold(samples).readings


@given(samples=lives(), data=st.data())
def test_order_inside_a_batch_does_not_matter(samples: list[Sample], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(samples))
    assert windows([fold(shuffled)]) == windows([fold(samples)])


@given(samples=lives(), data=st.data())
def test_dropping_any_samples_but_the_last_changes_no_counter_total(
    samples: list[Sample], data: st.DataObject
) -> None:
    last = Sample(LIFE, samples[-1].read_ms + 1, cpu_ns=10**15)
    kept = [sample for sample in samples if not sample.stopped and data.draw(st.booleans())]
    assert fold([*kept, last]).usage["cpu_ns"].sum() == 10**15


@given(samples=lives())
def test_windows_sum_to_the_last_reading_less_its_base_line(samples: list[Sample]) -> None:
    baseless = new_life_reading(LIFE, started_ms=EDGE_MS, counts_from_zero=False)
    for reading in (None, baseless):
        folded = fold(samples, reading)
        last = folded.readings[0]
        assert folded.usage["cpu_ns"].sum() == last["cpu_ns"] - last["base_cpu_ns"]
        assert (folded.usage["cpu_ns"] >= 0).all()


@given(samples=lives())
def test_a_window_opens_with_the_counter_the_one_before_closed_with(samples: list[Sample]) -> None:
    usage = fold(samples).usage
    assert (usage["closing_cpu_ns"] - usage["opening_cpu_ns"] == usage["cpu_ns"]).all()
    assert (usage["closing_cpu_ns"][:-1] == usage["opening_cpu_ns"][1:]).all()


@given(samples=lives())
def test_samples_seen_again_change_nothing_but_their_count(samples: list[Sample]) -> None:
    first = fold(samples)
    again = fold(samples, first.readings)
    assert len(again.usage) == 0
    assert again.gaps == []
    assert again.readings[0]["out_of_order_count"] == len(samples)
    changed = again.readings.copy()
    changed["out_of_order_count"] = first.readings["out_of_order_count"]
    assert changed == first.readings


def test_growth_over_an_edge_is_split_by_time_and_loses_no_remainder() -> None:
    folded = fold(
        [
            Sample(LIFE, EDGE_MS + WINDOW_MS - 1000, cpu_ns=0),
            Sample(LIFE, EDGE_MS + WINDOW_MS + 2000, cpu_ns=100),
        ]
    )
    assert folded.usage["cpu_ns"].tolist() == [33, 67]


def test_a_window_that_is_passed_over_has_no_first_and_no_last_sample() -> None:
    at_ms = EDGE_MS + 2 * WINDOW_MS + 5
    folded = fold([Sample(LIFE, at_ms, cpu_ns=3)])
    for name in ("first_sample_ms", "last_sample_ms"):
        assert folded.usage[name].tolist() == [NEVER, NEVER, at_ms]


def test_a_sample_on_the_edge_belongs_to_the_window_before() -> None:
    folded = fold([Sample(LIFE, EDGE_MS + WINDOW_MS, cpu_ns=5)])
    assert folded.usage["window_ms"].tolist() == [EDGE_MS]
    assert folded.usage["sample_count"].tolist() == [1]


def test_a_life_without_a_base_line_bills_nothing_for_what_was_before() -> None:
    reading = new_life_reading(LIFE, started_ms=EDGE_MS, counts_from_zero=False)
    folded = fold(
        [Sample(LIFE, EDGE_MS + 5000, cpu_ns=900), Sample(LIFE, EDGE_MS + 6000, cpu_ns=950)],
        reading,
    )
    assert folded.usage["cpu_ns"].tolist() == [50]
    assert folded.usage["running_ms"].tolist() == [1000]
    assert folded.readings[0]["base_cpu_ns"] == 900
    spans = [(gap.start_ms, gap.end_ms) for gap in folded.gaps]
    assert spans == [(EDGE_MS + 5000, EDGE_MS + 6000)]


def test_a_counter_that_falls_opens_a_segment_and_is_never_negative() -> None:
    folded = fold(
        [
            Sample(LIFE, EDGE_MS + 1000, cpu_ns=100),
            Sample(LIFE, EDGE_MS + 2000, cpu_ns=40),
            Sample(LIFE, EDGE_MS + 3000, cpu_ns=70),
        ]
    )
    assert folded.usage["cpu_ns"].tolist() == [130]
    (reset,) = folded.resets
    assert (reset.before, reset.after, reset.at_ms) == (100, 40, EDGE_MS + 2000)
    last = folded.readings[0]
    fallen = reset.before - reset.after
    assert folded.usage["cpu_ns"].sum() == last["cpu_ns"] - last["base_cpu_ns"] + fallen
    fell = [gap for gap in folded.gaps if gap.reason == "counter_fell"]
    assert fell == [Gap(LIFE, "cpu_ns", EDGE_MS + 1000, EDGE_MS + 2000, "counter_fell")]


def test_a_gauge_is_held_for_its_hold_and_the_rest_is_a_gap() -> None:
    folded = fold(
        [
            Sample(LIFE, EDGE_MS + 1, memory_bytes=10, hold_ms=10_000),
            Sample(LIFE, EDGE_MS + 60_001, memory_bytes=10),
        ]
    )
    assert folded.usage["memory_byte_ms"].tolist() == [100_000]
    assert folded.usage["measured_ms"].tolist() == [10_000]
    assert folded.usage["running_ms"].tolist() == [60_001]
    assert folded.gaps == [
        Gap(LIFE, "memory", EDGE_MS, EDGE_MS + 1, "before_first_sample"),
        Gap(LIFE, "memory", EDGE_MS + 10_001, EDGE_MS + 60_001, "held_too_long"),
    ]


def test_a_gauge_ends_with_its_life() -> None:
    folded = fold(
        [
            Sample(LIFE, EDGE_MS + 1000, cpu_ns=0, memory_bytes=10),
            Sample(LIFE, EDGE_MS + 1500, stopped=True),
            Sample(LIFE, EDGE_MS + 9000, memory_bytes=0),
        ]
    )
    assert folded.usage["memory_byte_ms"].tolist() == [5000]
    assert folded.usage["running_ms"].tolist() == [1500]
    tail = [gap for gap in folded.gaps if gap.reason == "ended_between_readings"]
    stopped = ("counters", EDGE_MS + 1000, EDGE_MS + 1500, "ended_between_readings")
    assert tail == [Gap(LIFE, *stopped)]


def test_what_has_ended_holds_nothing_and_has_no_end_unread_before_its_first_sample() -> None:
    baseless = new_life_reading(LIFE, started_ms=EDGE_MS, counts_from_zero=False)
    baseless["memory_bytes"] = 10
    folded = fold([Sample(LIFE, EDGE_MS + 1000, stopped=True)], baseless)
    assert folded.readings["memory_bytes"].tolist() == [0]
    assert folded.gaps == []


def test_a_life_that_was_never_read_has_its_running_time_and_gaps_for_all_of_it() -> None:
    folded = fold([Sample(LIFE, EDGE_MS + 1000, stopped=True)])
    assert folded.usage["running_ms"].tolist() == [1000]
    assert folded.usage["measured_ms"].tolist() == [0]
    spans = {(gap.meter, gap.start_ms, gap.end_ms) for gap in folded.gaps}
    assert spans == {
        ("memory", EDGE_MS, EDGE_MS + 1000),
        ("counters", EDGE_MS, EDGE_MS + 1000),
    }


def test_lives_in_one_batch_do_not_touch_each_other() -> None:
    readings = np.concatenate(
        [new_life_reading(n, started_ms=EDGE_MS, counts_from_zero=True) for n in (1, 2, 3)]
    )
    rows, holds = packed(
        [
            Sample(3, EDGE_MS + 1000, cpu_ns=3),
            Sample(1, EDGE_MS + 1000, cpu_ns=100),
            Sample(3, EDGE_MS + 3000, cpu_ns=9),
        ]
    )
    folded = fold_lives(rows, holds, readings)
    assert dict(zip(folded.usage["life"], folded.usage["cpu_ns"], strict=True)) == {1: 100, 3: 9}
    assert folded.readings["read_ms"].tolist() == [EDGE_MS + 1000, EDGE_MS, EDGE_MS + 3000]
    # What comes too late is counted for its own life only.
    late, holds = packed([Sample(1, EDGE_MS + 500), Sample(2, EDGE_MS + 500)])
    again = fold_lives(late, holds, folded.readings)
    assert again.readings["out_of_order_count"].tolist() == [1, 0, 0]


@pytest.mark.parametrize("days", [35, 36, 400])
def test_growth_over_many_days_is_split_exactly(days: int) -> None:
    days_ms = days * 24 * 3_600_000
    growth = 2**62
    folded = fold([Sample(LIFE, EDGE_MS + days_ms - 1, cpu_ns=growth)])
    expected = [
        growth * min((n + 1) * WINDOW_MS, days_ms - 1) // (days_ms - 1)
        - growth * n * WINDOW_MS // (days_ms - 1)
        for n in range(days_ms // WINDOW_MS)
    ]
    assert folded.usage["cpu_ns"].tolist() == expected
    assert sum(expected) == growth


def test_passes_in_which_one_life_comes_out_of_order_are_put_in_order() -> None:
    readings = np.concatenate(
        [new_life_reading(n, started_ms=EDGE_MS, counts_from_zero=True) for n in (1, 2)]
    )
    rows, holds = packed(
        [
            Sample(1, EDGE_MS + 1000, cpu_ns=10),
            Sample(2, EDGE_MS + 2000, cpu_ns=200),
            Sample(1, EDGE_MS + 3000, cpu_ns=30),
            Sample(2, EDGE_MS + 1500, cpu_ns=100),
        ]
    )
    folded = fold_lives(rows, holds, readings)
    assert folded.usage["cpu_ns"].tolist() == [30, 200]
    assert folded.readings["read_ms"].tolist() == [EDGE_MS + 3000, EDGE_MS + 2000]
    assert folded.resets == []


def test_a_last_reading_at_the_moment_of_the_end_counts() -> None:
    end = Sample(LIFE, EDGE_MS + 1000, stopped=True)
    reading = Sample(LIFE, EDGE_MS + 1000, cpu_ns=9, memory_bytes=1)
    for samples in ([end, reading], [reading, end]):
        folded = fold(samples)
        assert folded.usage["cpu_ns"].tolist() == [9]
        assert folded.usage["running_ms"].tolist() == [1000]


def test_no_samples_give_no_usage() -> None:
    folded = fold([])
    assert (len(folded.usage), folded.gaps, folded.resets) == (0, [], [])


def interface_samples(*rows: tuple[int, int, int]) -> Records:
    return np.array([(11, LIFE, ms, rx, tx, b"eth0") for ms, rx, tx in rows], INTERFACE_SAMPLE)


@pytest.mark.parametrize(
    ("earlier", "expected_from"),
    [([], EDGE_MS), ([EDGE_MS + 1000], EDGE_MS + 1000), ([EDGE_MS + 9000], EDGE_MS)],
)
def test_an_interface_counts_from_its_lifes_reading_before_it(
    earlier: list[int], expected_from: int
) -> None:
    life = new_life_reading(LIFE, started_ms=EDGE_MS, counts_from_zero=True)
    rows, _ = packed([Sample(LIFE, ms) for ms in earlier])
    seen = interface_samples((EDGE_MS + 5000, 40, 7))
    reading = new_interface_readings(seen, life_readings=life, life_samples=rows)
    assert reading["read_ms"][0] == expected_from
    folded = fold_interfaces(seen, reading)
    assert folded.usage["rx_bytes"].tolist() == [40]
    assert folded.usage["tx_bytes"].tolist() == [7]


def test_an_interface_counts_from_no_sample_of_another_life() -> None:
    lives = np.concatenate(
        [new_life_reading(n, started_ms=EDGE_MS, counts_from_zero=True) for n in (1, 2)]
    )
    # The last of all samples is of the life before it in the readings.
    rows, _ = packed([Sample(1, EDGE_MS + 1000), Sample(1, EDGE_MS + 1010)])
    seen = np.array([(20, 2, EDGE_MS + 1005, 0, 0, b"eth0")], INTERFACE_SAMPLE)
    readings = new_interface_readings(seen, life_readings=lives, life_samples=rows)
    assert readings["read_ms"].tolist() == [EDGE_MS]


def test_an_interface_of_a_life_without_base_line_has_none_either() -> None:
    life = new_life_reading(LIFE, started_ms=EDGE_MS, counts_from_zero=False)
    assert life["read_ms"][0] == NEVER
    seen = interface_samples((EDGE_MS, 40, 7), (EDGE_MS + 2000, 41, 9))
    reading = new_interface_readings(seen[:1], life_readings=life, life_samples=packed([])[0])
    folded = fold_interfaces(seen, reading)
    assert folded.usage["rx_bytes"].tolist() == [1]
    assert folded.usage["tx_bytes"].tolist() == [2]


def test_an_interface_that_came_back_with_lower_counters_starts_a_segment() -> None:
    life = new_life_reading(LIFE, started_ms=EDGE_MS, counts_from_zero=True)
    seen = interface_samples((EDGE_MS + 1, 40, 7), (EDGE_MS + 2, 5, 8), (EDGE_MS + 3, 6, 9))
    reading = new_interface_readings(seen[:1], life_readings=life, life_samples=packed([])[0])
    folded = fold_interfaces(seen, reading)
    assert folded.usage["rx_bytes"].tolist() == [41]
    assert folded.usage["tx_bytes"].tolist() == [9]
    (reset,) = folded.resets
    assert (reset.counter, reset.series, reset.life) == ("rx_bytes", 11, LIFE)


def test_interfaces_of_many_lives_count_from_their_own_lifes_reading() -> None:
    lives = np.concatenate(
        [new_life_reading(n, started_ms=EDGE_MS + n, counts_from_zero=True) for n in (1, 2, 3)]
    )
    rows, _ = packed([Sample(3, EDGE_MS + 500), Sample(1, EDGE_MS + 700), Sample(3, EDGE_MS + 900)])
    seen = np.array(
        [(n * 10, n, EDGE_MS + 800, 0, 0, b"eth0") for n in (3, 1, 2)], INTERFACE_SAMPLE
    )
    readings = new_interface_readings(seen, life_readings=lives, life_samples=rows)
    assert readings["interface"].tolist() == [30, 10, 20]
    assert readings["read_ms"].tolist() == [EDGE_MS + 500, EDGE_MS + 700, EDGE_MS + 2]
