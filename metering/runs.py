"""Batches of a stream, taken in runs of a size that is quick to fold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from metering import stream
from metering.lives import refuse
from metering.models import Host, Refusal
from metering.readings import HELD_INTERVALS
from metering.records import join
from metering.samples import (
    INTERFACE_SAMPLE,
    SAMPLE,
    STORAGE_SAMPLE,
    Batch,
    EncodingError,
    Missed,
    Records,
    unpack,
)
from metering.steps import Ints

# Memory stays bounded by the last of these.
SAMPLES_PER_FOLD = 200_000
PASSES_PER_FOLD = 10
SAMPLES_AT_MOST = 1_000_000


@dataclass(slots=True)
class Progress:
    """Where the batches taken so far leave the cursor."""

    entry_id: str
    sequence: int
    collected_ms: int
    lost: int = 0
    # Batches that were there and could not be folded.
    refused: int = 0
    samples: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """Batches taken from the stream in one go, joined. Holds and reasons are a sample each."""

    samples: Records
    holds_ms: Ints
    missed: Ints
    interfaces: Records
    storage: Records
    storage_holds_ms: Ints
    storage_missed: Ints


def take_runs(
    host: Host, progress: Progress, now: datetime, *, entries: int, samples: int
) -> Iterator[Run]:
    """Yield the next batches in runs, at most so many entries, and hardly more samples.

    Moves `progress` along. A batch that cannot be read is recorded as refused, and left out.
    """
    batches: list[tuple[Batch, Missed]] = []
    waiting = taken = 0
    for entry in stream.read_after(host.pk, progress.entry_id, limit=entries):
        lost = _missing_between(progress.sequence, entry.sequence)
        progress.lost += lost
        progress.entry_id, progress.sequence = entry.entry_id, entry.sequence
        try:
            batch = unpack(entry.packed)
        except EncodingError as error:
            subject = entry.entry_id
            progress.refused += 1
            refuse(host, Refusal.Reason.BATCH_UNREADABLE, subject, str(error), now=now)
            continue
        progress.collected_ms = max(progress.collected_ms, batch.collected_ms)
        batches.append((batch, Missed.BATCH_LOST if lost else batch.missed))
        waiting += len(batch.samples)
        # A fold costs something for each life too, so it takes several samples of each.
        enough = max(SAMPLES_PER_FOLD, min(PASSES_PER_FOLD * len(batch.samples), SAMPLES_AT_MOST))
        if waiting >= min(enough, samples - taken):
            taken += waiting
            yield _joined(batches)
            batches, waiting = [], 0
            if taken >= samples:
                return
    if batches:
        yield _joined(batches)


def _missing_between(before: int, number: int) -> int:
    """Return how many batches were numbered between two that follow each other in the stream.

    Numbers that begin again mean that Redis lost its data. How many batches went with it
    nobody knows; it counts as one, so that the loss is seen.
    """
    return number - before - 1 if number > before else number


def _joined(batches: list[tuple[Batch, Missed]]) -> Run:
    counts = [len(batch.samples) for batch, _ in batches]
    storage_counts = [len(batch.storage) for batch, _ in batches]
    holds_ms = [batch.interval_ms * HELD_INTERVALS for batch, _ in batches]
    storage_holds_ms = [batch.storage_interval_ms * HELD_INTERVALS for batch, _ in batches]
    missed = [int(why) for _, why in batches]
    return Run(
        samples=join([batch.samples for batch, _ in batches], SAMPLE),
        holds_ms=np.repeat(np.array(holds_ms, np.int64), counts),
        missed=np.repeat(np.array(missed, np.int64), counts),
        interfaces=join([batch.interfaces for batch, _ in batches], INTERFACE_SAMPLE),
        storage=join([batch.storage for batch, _ in batches], STORAGE_SAMPLE),
        storage_holds_ms=np.repeat(np.array(storage_holds_ms, np.int64), storage_counts),
        storage_missed=np.repeat(np.array(missed, np.int64), storage_counts),
    )
