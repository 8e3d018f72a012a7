"""Frozen windows: whatever comes for them, whoever carries it, their records keep every byte."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Event
from uuid import UUID

import pytest
from django.db import connections, transaction

from metering import aggregator, ledger
from metering.backfill import recorded
from metering.models import (
    LateUsage,
    LifeReading,
    NetworkUsageRecord,
    StorageUsageRecord,
    StreamCursor,
    UsageRecord,
)
from metering.period import to_ms
from metering.samples import Records
from metering.services import freeze_account
from metering.steps import Ints
from tests.metering.history import START, WINDOW_MS, History, Taken
from tests.metering.test_backfill import LASTING_MS, recompute, windows
from tests.races.workers import WORKERS, run_at_once

pytestmark = pytest.mark.django_db(transaction=True)

LIVES = 3
STEP_MS = 60_000
UNTIL = START + timedelta(milliseconds=2 * WINDOW_MS)
LATER = START + timedelta(days=1)

_CPU, _RX = 1_000_003, 7


def samples_until(end_ms: int) -> list[Taken]:
    """Samples of a life that uses everything at a constant rate, so that every sum is known."""
    return [
        Taken(
            at_ms,
            cpu_ns=at_ms * _CPU,
            memory_bytes=1000,
            interfaces={"eth0": (at_ms * _RX, 0)},
            storage_bytes=500,
            interval_s=60,
        )
        for at_ms in range(STEP_MS, end_ms + 1, STEP_MS)
    ]


SAMPLES = samples_until(LASTING_MS)


def used_by_now() -> Counter[str]:
    """What each life of SAMPLES used, the first step's gauges unknown."""
    held_ms = LASTING_MS - STEP_MS
    return Counter(
        cpu_ns=LASTING_MS * _CPU,
        rx_bytes=LASTING_MS * _RX,
        memory_byte_ms=held_ms * 1000,
        storage_byte_ms=held_ms * 500,
        running_ms=LASTING_MS,
        measured_ms=held_ms,
        existing_ms=LASTING_MS,
        storage_measured_ms=held_ms,
        # As History's containers are limited: two cpus, 10^9 bytes.
        cpu_allocated_ns=LASTING_MS * 2_000_000,
        memory_allocated_byte_ms=LASTING_MS * 10**9,
    )


def begun(samples: list[Taken]) -> tuple[History, list[int]]:
    """Lives whose samples are in the stream, a batch each."""
    history = History()
    lives = [history.begin(f"sbx-{number}") for number in range(LIVES)]
    for life in lives:
        history.send(life, samples)
    return history, lives


def fold_all(history: History) -> None:
    """Fold until nothing is left, or others hold the stream at this moment."""
    while history.fold():
        pass


def frozen_rows() -> str:
    """Every byte of the records before UNTIL, and what they have for late usage besides."""
    return repr(
        [
            sorted(map(repr, model.objects.filter(window_start__lt=UNTIL).values()))
            for model in (UsageRecord, NetworkUsageRecord, StorageUsageRecord)
        ]
    )


def assert_record_and_late_are_true(lives: list[int]) -> None:
    used = recorded.totals(lives, [0] * len(lives), to_ms(LATER))
    for life in lives:
        assert +Counter(used[life]) == used_by_now()
    assert not LateUsage.objects.filter(window_start__gte=UNTIL).exists()


@pytest.fixture(autouse=True)
def _many_small_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregator, "SAMPLES_PER_COMMIT", 20)
    monkeypatch.setattr(aggregator, "ENTRIES_PER_COMMIT", 20)


def freeze_and_note(account_id: UUID, note: Path) -> None:
    with transaction.atomic():
        freeze_account(account_id, until=UNTIL)
        note.write_text(frozen_rows())


def run_racing(others: Callable[[int], object], account_id: UUID, note: Path) -> None:
    """Freeze in one process while the others work."""

    def work(number: int) -> None:
        if number == 0:
            freeze_and_note(account_id, note)
        else:
            others(number)

    assert run_at_once(work, workers=WORKERS + 1) == [0] * (WORKERS + 1)


def test_ten_aggregators_racing_with_a_freeze_leave_every_byte_of_it(tmp_path: Path) -> None:
    history, lives = begun(SAMPLES)
    note = tmp_path / "frozen"
    run_racing(lambda _: fold_all(history), history.account_id, note)
    fold_all(history)
    assert frozen_rows() == note.read_text()
    assert_record_and_late_are_true(lives)


def test_a_replay_of_the_whole_stream_changes_neither_records_nor_late_usage(
    tmp_path: Path,
) -> None:
    history, lives = begun(SAMPLES)
    run_racing(lambda _: fold_all(history), history.account_id, tmp_path / "frozen")
    fold_all(history)
    frozen, late = frozen_rows(), sorted(map(repr, LateUsage.objects.values()))
    StreamCursor.objects.update(entry_id="0-0", sequence=0)
    run_at_once(lambda _: fold_all(history))
    fold_all(history)
    assert frozen_rows() == frozen
    assert sorted(map(repr, LateUsage.objects.values())) == late
    assert_record_and_late_are_true(lives)


def test_growth_and_backfills_into_frozen_windows_at_once_are_late_and_true(
    tmp_path: Path,
) -> None:
    some = [taken for taken in SAMPLES if taken.at_ms % (4 * STEP_MS) == 0]
    third = [taken for taken in some if taken.at_ms <= LASTING_MS // 3]
    history, lives = begun(third)
    fold_all(history)
    for life in lives:
        history.send(life, [taken for taken in some if taken not in third])
    note = tmp_path / "frozen"

    def grow_or_backfill(number: int) -> None:
        if number > WORKERS - 2:
            folder = tmp_path / str(number)
            folder.mkdir()
            recompute(folder, history, dict.fromkeys(lives, SAMPLES), windows(0, 12))
        else:
            fold_all(history)

    run_racing(grow_or_backfill, history.account_id, note)
    fold_all(history)
    recompute_once_more = tmp_path / "again"
    recompute_once_more.mkdir()
    recompute(recompute_once_more, history, dict.fromkeys(lives, SAMPLES), windows(0, 12))
    assert frozen_rows() == note.read_text()
    assert_record_and_late_are_true(lives)
    readings = LifeReading.objects.filter(pk__in=lives)
    assert {reading.cpu_ns for reading in readings} == {LASTING_MS * _CPU}


def _aggregate_while_it_freezes(history: History, monkeypatch: pytest.MonkeyPatch) -> str:
    """Fold once, the account read over a connection whose lock is gone; return what was frozen.

    The freeze commits between that reading and the fold's own commit.
    """
    has_read, has_frozen = Event(), Event()
    load = ledger._load_lives
    monkeypatch.setattr(aggregator, "COMMITS_PER_RUN", 1)

    def load_elsewhere(host_id: UUID, ids: Ints) -> tuple[Records, Records]:
        with ThreadPoolExecutor(1, initializer=connections.close_all) as other:
            try:
                loaded = other.submit(load, host_id, ids).result()
            finally:
                other.submit(connections.close_all).result()
        has_read.set()
        assert has_frozen.wait(10)
        return loaded

    monkeypatch.setattr(ledger, "_load_lives", load_elsewhere)

    def freeze() -> str:
        try:
            assert has_read.wait(10)
            with transaction.atomic():
                freeze_account(history.account_id, until=UNTIL)
                return frozen_rows()
        finally:
            connections.close_all()
            has_frozen.set()

    with ThreadPoolExecutor(1) as pool:
        frozen = pool.submit(freeze)
        history.fold()
        return frozen.result()


def test_control_without_the_accounts_lock_a_fold_changes_what_was_frozen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    history, _ = begun(SAMPLES)
    at_freeze = _aggregate_while_it_freezes(history, monkeypatch)
    assert frozen_rows() != at_freeze
    assert not LateUsage.objects.exists()
