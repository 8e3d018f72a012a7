from __future__ import annotations

import numpy as np
import pytest

from metering.readings import LIFE_READING, NEVER, USAGE, Fold, Gap, Reset
from metering.samples import Records
from metering.tally import Tally, combine, is_among


def readings(*lives: int) -> Records:
    rows = np.zeros(len(lives), LIFE_READING)
    rows["life"], rows["cpu_ns"] = lives, [10 * life for life in lives]
    return rows


@pytest.mark.parametrize(
    ("ids", "known", "found"),
    [
        ([], [], []),
        ([3, 5], [], [False, False]),
        ([], [4], []),
        # Below all, between, above all, and each that is known.
        ([1, 2, 3, 4, 5, 9, 10], [2, 4, 9], [False, True, False, True, False, True, False]),
        ([9, 2, 9], [2, 9], [True, True, True]),
    ],
)
def test_ids_are_found_among_those_that_are_known(
    ids: list[int], known: list[int], found: list[bool]
) -> None:
    are_known = is_among(np.array(ids, np.int64), np.array(known, np.int64))
    assert are_known.dtype == np.bool_
    assert are_known.tolist() == found


def test_a_series_is_known_once_it_was_learned_and_they_are_in_order() -> None:
    tally = Tally("life", readings(5))
    tally.learn(readings(9, 2))
    assert tally.readings["life"].tolist() == [2, 5, 9]
    assert tally.readings["cpu_ns"].tolist() == [20, 50, 90]
    assert tally.readings.dtype == LIFE_READING
    assert tally.has(np.array([2, 3, 5, 9])).tolist() == [True, False, True, True]
    tally.learn(readings())
    assert tally.readings["life"].tolist() == [2, 5, 9]


def test_gaps_and_resets_of_every_fold_are_kept() -> None:
    tally = Tally("life", readings(5))
    gaps = [Gap(5, "memory", at, at + 1, "collector_down") for at in (1, 2)]
    resets = [Reset(5, 5, "cpu_ns", at, at + 1, 9, 1) for at in (1, 2)]
    for gap, reset in zip(gaps, resets, strict=True):
        tally.add(Fold(usage(), readings(5), [gap], [reset]))
    assert (tally.gaps, tally.resets) == (gaps, resets)


def usage(*rows: tuple[int, int, int, int, int]) -> Records:
    """Rows of life, window, cpu (its counter closes at 10 times as much), first and last sample."""
    made = np.zeros(len(rows), USAGE)
    for row, (life, window_ms, cpu_ns, first_ms, last_ms) in zip(made, rows, strict=True):
        row["life"], row["window_ms"], row["cpu_ns"] = life, window_ms, cpu_ns
        row["opening_cpu_ns"], row["closing_cpu_ns"] = 9 * cpu_ns, 10 * cpu_ns
        row["sample_count"], row["measured_ms"] = 1, 3 * cpu_ns
        row["first_sample_ms"], row["last_sample_ms"] = first_ms, last_ms
    return made


def test_folds_of_one_window_are_one_row_and_others_stay() -> None:
    # A life's window in three folds, its next one in one, and another life's in the same window.
    one = usage((1, 900, 5, NEVER, 0), (2, 900, 1, 901, 909))
    two = usage((1, 900, 7, 950, 960))
    three = usage((1, 900, 2, 970, 980), (1, 1800, 4, NEVER, 0))
    whole = combine([one, two, three], key="life")
    assert whole.dtype == USAGE
    names = [
        "life",
        "window_ms",
        "cpu_ns",
        "opening_cpu_ns",
        "closing_cpu_ns",
        "sample_count",
        "measured_ms",
        "first_sample_ms",
        "last_sample_ms",
    ]
    assert [tuple(int(row[name]) for name in names) for row in whole] == [
        # Opened by the first, closed by the last, with the first and last sample of any of them.
        (1, 900, 14, 45, 20, 3, 42, 950, 980),
        (1, 1800, 4, 36, 40, 1, 12, NEVER, 0),
        (2, 900, 1, 9, 10, 1, 3, 901, 909),
    ]


def test_folds_of_different_windows_are_put_in_order() -> None:
    later, earlier = usage((1, 1800, 4, 1801, 1802)), usage((1, 900, 5, 901, 902))
    assert combine([later, earlier], key="life")["window_ms"].tolist() == [900, 1800]
    assert combine([later], key="life") is later
