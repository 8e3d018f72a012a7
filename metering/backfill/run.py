"""Recomputes windows of usage from samples that came to light, by replacement.

Samples are read once, from a file or the hosts' streams, and put on disk apart by host and
lives. Then some lives at a time are recomputed in a transaction of their own, which holds the
host's cursor: an aggregator passes the host by meanwhile, and both see each other's work whole.

A series is recomputed in the stretches that its samples cover (see stretches.py); what lies
after its last reading was never folded, and is folded onto it as the aggregator does: growth
since that reading may reach back into windows before the range. Nothing else outside changes.

Safe to repeat: the same samples give the same records, so a second run changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from uuid import UUID

import numpy as np
from django.db import transaction

from metering.backfill.batch import Batch
from metering.backfill.request import Report, Request
from metering.backfill.spool import Spool
from metering.period import WINDOW, Period, window_start
from metering.samples import Records
from metering.tally import is_among

# Samples before the range tell what was held at its start.
CONTEXT = timedelta(hours=6)
# Records of a batch of lives in memory at once, if each has one in every window.
RECORDS_PER_BATCH = 200_000
LIVES_PER_BATCH = 1_000


class PeriodRefusedError(ValueError):
    """A period that cannot be recomputed; the message names the date it may begin with."""


def aligned(start: datetime, end: datetime, *, now: datetime, retention: timedelta) -> Period:
    """Return the whole windows that share time with `[start, end)`. Raises PeriodRefusedError.

    What retention has dropped, or may at any time, is not recomputed: the rest of a life's
    history would be missing beside it.
    """
    if end <= start:
        raise PeriodRefusedError(f"--to {end} is not after --from {start}.")
    period = Period(window_start(start), window_start(end - timedelta(milliseconds=1)) + WINDOW)
    if period.start < (oldest := oldest_kept(now=now, retention=retention)):
        raise PeriodRefusedError(
            f"--from {start:%Y-%m-%dT%H:%MZ}: usage is kept from {oldest:%Y-%m-%dT%H:%MZ} on "
            f"(METERING_USAGE_RETENTION, {retention.days} days, whole months). Begin there."
        )
    return period


def oldest_kept(*, now: datetime, retention: timedelta) -> datetime:
    """Return the start of the oldest month that retention keeps."""
    return (now - retention).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def fill(
    spool: Spool, chunks: Iterator[tuple[UUID, dict[str, Records]]], request: Request
) -> Iterator[int]:
    """Put the samples of the range, and those just before it, on disk; yield how many so far."""
    low = request.start_ms - CONTEXT // timedelta(milliseconds=1)
    for host_id, rows in chunks:
        kept = {}
        for name, of_kind in rows.items():
            times = of_kind["read_ms"]
            kept[name] = of_kind[(times >= low) & (times <= request.end_ms)]
            spool.outside += int(((times < request.start_ms) | (times > request.end_ms)).sum())
        spool.put(host_id, kept)
        yield spool.read


def backfill(spool: Spool, request: Request, *, now: datetime) -> Iterator[Report]:
    """Recompute every life that the spool has samples of; yield the report after each batch.

    Raises what PostgreSQL raises; batches before are kept, and a second run finds them done.
    """
    report = Report()
    at_once = max(1, min(LIVES_PER_BATCH, RECORDS_PER_BATCH // request.windows()))
    for host_id, rows in spool.parts():
        lives = np.unique(np.concatenate([of_kind["life"] for of_kind in rows.values()]))
        for first in range(0, len(lives), at_once):
            batch = lives[first : first + at_once]
            of_batch = {
                name: of_kind[is_among(of_kind["life"], batch)] for name, of_kind in rows.items()
            }
            unrecorded = spool.unrecorded.get(host_id, {})
            containers = [
                container
                for life in batch.tolist()
                if (container := unrecorded.get(life)) and request.includes(container)
            ]
            with transaction.atomic(durable=True):
                Batch(host_id, of_batch, request, report, now).run(batch, containers)
                transaction.set_rollback(request.is_dry)
            yield report
