"""The everyday case: passes every two seconds, folded every few, in real time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import numpy as np

from bench.aggregating import tables, ways
from bench.aggregating.fleet import INTERVAL_MS, Fleet, Readings
from bench.aggregating.processes import Cost, Servers, Worker, cost_of
from metering import stream
from metering.aggregator import aggregate_host

HEAD_START_S = 1.0


@dataclass(frozen=True, slots=True)
class Steady:
    """What `seconds` of steady work cost, and how old a batch was when it was committed."""

    sandboxes: int
    every_s: float
    batches: int
    cost: Cost
    lag_p50_s: float
    lag_p99_s: float
    longest_fold_s: float


def measure_steady(fleet: Fleet, servers: Servers, *, every_s: float, rounds: int) -> Steady:
    """Append from one process and fold in another, for so many rounds."""
    readings = Readings(fleet, start=datetime.now(UTC))
    with Worker() as producer, Worker() as folder:
        stream.append(fleet.host_id, readings.next_batch())
        folder.call(ways.fold, fleet.host_id)
        tables.settle()
        begin_s = time.time() + HEAD_START_S
        passes = int(every_s * rounds * 1000) // INTERVAL_MS
        producer.start(append_batches, fleet.host_id, readings, begin_s=begin_s, passes=passes)
        folder.start(
            fold_every, fleet.host_id, servers, begin_s=begin_s, every_s=every_s, rounds=rounds
        )
        appended: list[str] = producer.result()
        cost, folds = folder.result()
    lags_s = [
        committed_s - int(entry_id.partition("-")[0]) / 1000
        for entry_id in appended
        for committed_s in [_first_commit(entry_id, folds)]
        if committed_s is not None
    ]
    return Steady(
        sandboxes=len(fleet.lives),
        every_s=every_s,
        batches=len(lags_s),
        cost=cost,
        lag_p50_s=float(np.percentile(lags_s, 50)),
        lag_p99_s=float(np.percentile(lags_s, 99)),
        longest_fold_s=max(fold.committed_s - fold.began_s for fold in folds),
    )


@dataclass(frozen=True, slots=True)
class Fold:
    """One round: when it began and had committed, and the entry the cursor then stood at."""

    began_s: float
    committed_s: float
    entry_id: str


def append_batches(host_id: UUID, readings: Readings, *, begin_s: float, passes: int) -> list[str]:
    """Append a batch each interval; return their entries. Redis' clock is in their names."""
    readings.go_on_at(datetime.fromtimestamp(begin_s, UTC))
    entries = []
    for _ in range(passes):
        batch = readings.next_batch()
        _sleep_until(batch.collected_ms / 1000)
        entries.append(stream.append(host_id, batch).entry_id)
    return entries


def fold_every(
    host_id: UUID, servers: Servers, *, begin_s: float, every_s: float, rounds: int
) -> tuple[Cost, list[Fold]]:
    """Fold what has come in, once a round, on absolute deadlines."""
    ways.connect()
    _sleep_until(begin_s)
    folds = []

    def work() -> int:
        samples = 0
        for number in range(rounds):
            _sleep_until(begin_s + (number + 1) * every_s)
            began_s = time.time()
            samples += aggregate_host(host_id, now=datetime.now(UTC))
            folds.append(Fold(began_s, time.time(), ways.cursor_of(host_id)))
        return samples

    return cost_of(work, servers), folds


def _sleep_until(moment_s: float) -> None:
    time.sleep(max(0.0, moment_s - time.time()))


def _first_commit(entry_id: str, folds: list[Fold]) -> float | None:
    """Return when the entry was committed; None when it came after the last fold."""
    return next(
        (fold.committed_s for fold in folds if _order(entry_id) <= _order(fold.entry_id)), None
    )


def _order(entry_id: str) -> tuple[int, int]:
    ms, _, number = entry_id.partition("-")
    return int(ms), int(number)
