"""Samples out of hosts' streams again: whatever is folded already and still kept."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import numpy as np

from metering import stream
from metering.backfill.series import INTERFACES, LIVES, STORAGE, with_holds
from metering.believing import (
    LARGEST_CPU_LIMIT_MICRO,
    LARGEST_MEMORY_BYTES,
    LARGEST_STORAGE_BYTES,
)
from metering.models import Host
from metering.readings import HELD_INTERVALS
from metering.samples import EncodingError, Known, Missed, Records, State, unpack
from metering.steps import Bools

ENTRIES_PER_CHUNK = 500
LARGEST_COUNTER = 2**62


def read_stream(host: Host) -> Iterator[tuple[UUID, dict[str, Records]]]:
    """Yield the rows of a host's stream up to where it is folded, some batches at a time.

    What is behind the cursor is for the aggregator to fold. Samples that cannot be true were
    refused by it, and are left out. Raises StreamUnavailableError.
    """
    folded = stream.order(host.cursor.entry_id)
    waiting: dict[str, list[Records]] = {}
    sequence: int | None = None
    taken = 0
    for entry in stream.read_after(host.pk, "0-0", limit=2**62):
        if stream.order(entry.entry_id) > folded:
            break
        is_lost = sequence is not None and entry.sequence != sequence + 1
        sequence = entry.sequence
        try:
            batch = unpack(entry.packed)
        except EncodingError:
            continue
        missed = int(Missed.BATCH_LOST if is_lost else batch.missed)
        holds_ms = batch.interval_ms * HELD_INTERVALS
        storage_holds_ms = batch.storage_interval_ms * HELD_INTERVALS
        for kind, samples, hold_ms in (
            (LIVES, batch.samples, holds_ms),
            (INTERFACES, batch.interfaces, holds_ms),
            (STORAGE, batch.storage, storage_holds_ms),
        ):
            rows = with_holds(kind, samples, hold_ms=hold_ms, missed=missed)
            waiting.setdefault(kind.name, []).append(rows)
        taken += 1
        if taken % ENTRIES_PER_CHUNK == 0:
            yield host.pk, _joined(waiting)
            waiting = {}
    if waiting:
        yield host.pk, _joined(waiting)


def _joined(waiting: dict[str, list[Records]]) -> dict[str, Records]:
    rows = {name: np.concatenate(parts) for name, parts in waiting.items()}
    return {name: of_kind[_can_be_true(name, of_kind)] for name, of_kind in rows.items()}


def _can_be_true(kind: str, rows: Records) -> Bools:
    if kind == INTERFACES.name:
        return _within(rows, {"rx_bytes": LARGEST_COUNTER, "tx_bytes": LARGEST_COUNTER})
    if kind == STORAGE.name:
        most = LARGEST_STORAGE_BYTES // 2 + 1
        return _within(rows, {"layer_bytes": most, "volume_bytes": most})
    most = LARGEST_MEMORY_BYTES + 1
    good = _within(
        rows,
        {
            "cpu_ns": LARGEST_COUNTER,
            "disk_read_bytes": LARGEST_COUNTER,
            "disk_write_bytes": LARGEST_COUNTER,
            "memory_bytes": most,
            "memory_limit_bytes": most,
            "cpu_limit_micro": LARGEST_CPU_LIMIT_MICRO + 1,
            "known": int(~Known(0)) + 1,
        },
    )
    good &= (rows["state"] >= int(min(State))) & (rows["state"] <= int(max(State)))
    return good


def _within(rows: Records, below: dict[str, int]) -> Bools:
    """Return which rows have every figure from 0 to below its bound."""
    good = np.ones(len(rows), np.bool_)
    for name, bound in below.items():
        good &= (rows[name] >= 0) & (rows[name] < bound)
    return good
