"""From a host's stream to its usage records: one transaction for each run of batches."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import numpy as np
from django.db import transaction

from metering import ledger, stream
from metering.aggregation import fold_interfaces, fold_lives
from metering.lives import refuse
from metering.models import Host, Refusal, StreamCursor
from metering.period import from_ms, to_ms
from metering.readings import HELD_INTERVALS, new_interface_readings
from metering.samples import (
    INTERFACE_SAMPLE,
    SAMPLE,
    Batch,
    EncodingError,
    Known,
    Records,
    unpack,
)
from metering.services import note_fold_problem
from metering.steps import Ints

logger = logging.getLogger(__name__)

# Folding is fastest in runs of 20,000 to 100,000 samples; memory stays bounded by it.
SAMPLES_PER_COMMIT = 100_000
ENTRIES_PER_COMMIT = 2_000
COMMITS_PER_RUN = 50

ACCEPTED_AHEAD = timedelta(minutes=5)
ACCEPTED_BEHIND = timedelta(days=35)
# Held for a window, more memory than this would pass 64 bits; no host has so much.
LARGEST_MEMORY_BYTES = 8 * 2**40


@dataclass(frozen=True, slots=True)
class _Run:
    """Batches taken from the stream in one go, joined, and where they leave the cursor."""

    entry_id: str
    sequence: int
    lost: int
    collected_ms: int
    samples: Records
    holds_ms: Ints
    interfaces: Records


def aggregate_host(host_id: UUID, *, now: datetime) -> int:
    """Fold what a host's stream holds after its cursor; return the number of samples.

    Safe to repeat, to run anywhere at once and to be killed anywhere: the cursor and the sums
    it stands for commit together, and whoever finds the cursor locked leaves it alone.
    Raises StreamUnavailableError, with the reason left on the cursor.
    """
    total = 0
    for _ in range(COMMITS_PER_RUN):
        try:
            folded = _aggregate_once(host_id, now)
        except stream.StreamUnavailableError as error:
            note_fold_problem(host_id, str(error))
            raise
        if folded is None:
            break
        total += folded
    return total


def _aggregate_once(host_id: UUID, now: datetime) -> int | None:
    """Fold one run of batches; None when there is none, or another worker has the cursor."""
    with transaction.atomic(durable=True):
        cursor = _lock_cursor(host_id)
        if cursor is None:
            return None
        # Redis is read under the lock, so that two workers do not fold the same entries for
        # nothing; the call has a time limit, and the lock holds up this one host's folding only.
        run = _take(cursor, now)
        if run is None:
            return None
        samples = _fold(cursor.host, run, now)
        cursor.entry_id = run.entry_id
        cursor.sequence = run.sequence
        cursor.lost_batch_count += run.lost
        cursor.collected_until = from_ms(run.collected_ms)
        cursor.sample_count += samples
        cursor.folded_at = now
        cursor.problem = ""
        cursor.save()
    if run.lost:
        logger.error("batches lost from stream", extra={"host": host_id, "batches": run.lost})
    stream.trim(host_id, folded=run.entry_id, now=now)
    return samples


def _lock_cursor(host_id: UUID) -> StreamCursor | None:
    """Return the cursor, locked to the end of the transaction; None when another worker has it."""
    return (
        StreamCursor.objects.select_for_update(skip_locked=True, of=("self",))
        .select_related("host")
        .filter(host_id=host_id)
        .first()
    )


def _take(cursor: StreamCursor, now: datetime) -> _Run | None:
    """Return the next batches, at most as many as one commit carries."""
    batches: list[Batch] = []
    entry_id, sequence, lost = cursor.entry_id, cursor.sequence, 0
    samples = 0
    for entry in stream.read_after(cursor.host_id, entry_id, limit=ENTRIES_PER_COMMIT):
        lost += _missing_between(sequence, entry.sequence)
        entry_id, sequence = entry.entry_id, entry.sequence
        try:
            batch = unpack(entry.packed)
        except EncodingError as error:
            refuse(cursor.host, Refusal.Reason.BATCH_UNREADABLE, entry_id, str(error), now=now)
            continue
        batches.append(batch)
        samples += len(batch.samples)
        if samples >= SAMPLES_PER_COMMIT:
            break
    if entry_id == cursor.entry_id:
        return None
    collected_ms = max((batch.collected_ms for batch in batches), default=0)
    earlier_ms = to_ms(cursor.collected_until) if cursor.collected_until else 0
    return _Run(
        entry_id=entry_id,
        sequence=sequence,
        lost=lost,
        collected_ms=max(collected_ms, earlier_ms),
        samples=_joined([batch.samples for batch in batches], SAMPLE),
        holds_ms=np.repeat(
            np.array([batch.interval_ms * HELD_INTERVALS for batch in batches], np.int64),
            [len(batch.samples) for batch in batches],
        ),
        interfaces=_joined([batch.interfaces for batch in batches], INTERFACE_SAMPLE),
    )


def _missing_between(before: int, number: int) -> int:
    """Return how many batches were numbered between two that follow each other in the stream.

    Numbers that begin again mean that Redis lost its data. How many batches went with it
    nobody knows; it counts as one, so that the loss is seen.
    """
    return number - before - 1 if number > before else number


def _joined(parts: list[Records], dtype: np.dtype[np.void]) -> Records:
    return np.concatenate(parts) if parts else np.empty(0, dtype)


def _fold(host: Host, run: _Run, now: datetime) -> int:
    """Fold the run's samples into the tables; return how many were believable."""
    believable = _believable(host, run.samples, now)
    samples, holds_ms = run.samples[believable], run.holds_ms[believable]
    lives = ledger.load_lives(np.unique(samples["life"]))
    known = np.isin(samples["life"], lives.readings["life"])
    _refuse_unknown(host, samples["life"][~known], now)
    samples, holds_ms = samples[known], holds_ms[known]
    fold = fold_lives(samples, holds_ms, lives.readings)

    interfaces = run.interfaces[np.isin(run.interfaces["life"], lives.readings["life"])]
    interfaces = interfaces[_plausible_time(interfaces["read_ms"], now)]
    interfaces = interfaces[(interfaces["rx_bytes"] >= 0) & (interfaces["tx_bytes"] >= 0)]
    readings = _interface_readings(interfaces, samples, lives.readings)
    network = fold_interfaces(interfaces, readings)
    ledger.save(lives, fold, network, now=now)
    return len(samples)


def _interface_readings(interfaces: Records, samples: Records, lives: Records) -> Records:
    """Return the readings of the interfaces, those not met before recorded as new."""
    in_order = interfaces[np.lexsort((interfaces["read_ms"], interfaces["interface"]))]
    ids, first_index = np.unique(in_order["interface"], return_index=True)
    readings = ledger.load_interfaces(ids)
    new = in_order[first_index[~np.isin(ids, readings["interface"])]]
    fresh = new_interface_readings(new, life_readings=lives, life_samples=samples)
    ledger.record_interfaces(fresh, [name.decode() for name in new["name"].tolist()])
    joined = np.concatenate([readings, fresh])
    return joined[np.argsort(joined["interface"])]


def _plausible_time(read_ms: Ints, now: datetime) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    earliest, latest = to_ms(now - ACCEPTED_BEHIND), to_ms(now + ACCEPTED_AHEAD)
    plausible: np.ndarray[tuple[int], np.dtype[np.bool_]] = (read_ms >= earliest) & (
        read_ms <= latest
    )
    return plausible


def _believable(
    host: Host, samples: Records, now: datetime
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return which samples can be true; the others are counted, with what is wrong, and left."""
    figures = ("cpu_ns", "memory_bytes", "disk_read_bytes", "disk_write_bytes")
    complaints = {
        "read_ms is over 35 days old or over 5 minutes ahead": ~_plausible_time(
            samples["read_ms"], now
        ),
        "a figure is negative": np.any([samples[name] < 0 for name in figures], axis=0),
        "memory_bytes is over 8 TiB": samples["memory_bytes"] > LARGEST_MEMORY_BYTES,
        "a figure without a name is marked": samples["known"] > int(~Known(0)),
    }
    good = np.ones(len(samples), np.bool_)
    for complaint, bad in complaints.items():
        for life in np.unique(samples["life"][bad & good]):
            count = int(np.count_nonzero(bad & good & (samples["life"] == life)))
            reason = Refusal.Reason.SAMPLE_UNBELIEVABLE
            refuse(host, reason, str(life), complaint, now=now, count=count)
        good &= ~bad
    return good


def _refuse_unknown(host: Host, lives: Iterable[int], now: datetime) -> None:
    for life, count in zip(*np.unique(np.asarray(lives), return_counts=True), strict=True):
        refuse(
            host,
            Refusal.Reason.LIFE_UNKNOWN,
            str(life),
            "The life is not recorded. It is recorded again when its container is next inspected.",
            now=now,
            count=int(count),
        )
