"""From a host's stream to its usage records: one transaction for each run of batches."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

import numpy as np
from django.db import OperationalError, transaction

from metering import ledger, stream
from metering.aggregation import fold_interfaces, fold_lives, fold_storage
from metering.believing import (
    LARGEST_COUNTER,
    LARGEST_STORAGE_BYTES,
    TIME_COMPLAINT,
    believable,
    believed,
    implausible_time,
    only,
    outside,
)
from metering.ledger import Book
from metering.lives import refuse
from metering.lost_ends import AROUND_A_LOSS, send_again
from metering.models import Host, Refusal, StreamCursor
from metering.period import from_ms, to_ms
from metering.readings import (
    INTERFACE_COUNTERS,
    new_interface_readings,
    new_storage_readings,
)
from metering.runs import Progress, Run, take_runs
from metering.samples import Records
from metering.services import PUSHED, note_fold_problem
from metering.steps import Bools, Ints, period_of
from metering.tally import is_among
from metering.usage_counters import count_usage

logger = logging.getLogger(__name__)

# What a commit writes grows with lives, not with samples, so catching up takes many at once.
SAMPLES_PER_COMMIT = 4_000_000
ENTRIES_PER_COMMIT = 2_000
COMMITS_PER_RUN = 20


def aggregate_host(host_id: UUID, *, now: datetime) -> int:
    """Fold what a host's stream holds after its cursor; return the number of samples.

    Safe to repeat, to run anywhere at once and to be killed anywhere: the cursor and the sums
    it stands for commit together, and whoever finds the cursor locked leaves it alone. A batch
    that cannot be folded is set aside and recorded, so that those behind it are not held up.
    Raises StreamUnavailableError, with the reason left on the cursor, and whatever kept more
    than one batch from being folded.
    """
    total = 0
    for _ in range(COMMITS_PER_RUN):
        try:
            folded = _aggregate_once(host_id, now)
        except stream.StreamUnavailableError as error:
            note_fold_problem(host_id, str(error))
            raise
        except OperationalError:
            raise  # The database is not there, or busy: no batch is to blame.
        except Exception:  # noqa: BLE001 - whatever it is, one batch must not hold up the rest
            folded = _aggregate_apart(host_id, now)
        if folded is None:
            break
        total += folded
    return total


def _aggregate_apart(host_id: UUID, now: datetime) -> int:
    """Fold batches one by one up to one that cannot be, and set that one aside."""
    total = 0
    while True:
        try:
            folded = _aggregate_once(host_id, now, entries=1)
        except OperationalError:
            raise
        except Exception as error:
            # Only if the next one can be folded is it the batch, and not something of ours.
            reason = f"{type(error).__name__}: {error}"
            folded = _aggregate_once(host_id, now, entries=1, setting_aside=reason)
            if folded is None:
                raise
            logger.exception("batch set aside", extra={"host": host_id})
            return total + folded
        if folded is None:
            return total
        total += folded


def _aggregate_once(
    host_id: UUID, now: datetime, *, entries: int = ENTRIES_PER_COMMIT, setting_aside: str = ""
) -> int | None:
    """Fold one run of batches; None when there is none, or another worker has the cursor.

    With a reason in `setting_aside` the first batch is recorded as refused, and left out.
    """
    with transaction.atomic(durable=True):
        cursor = _lock_cursor(host_id)
        if cursor is None:
            return None
        if cursor.ends_untold_since:
            # Before all else, and in a transaction of its own: whoever is killed here, or after the
            # loss was recorded, is followed by another that tells them.
            send_again(host_id, since=cursor.ends_untold_since)
            StreamCursor.objects.filter(pk=cursor.pk).update(ends_untold_since=None)
            return 0
        earlier_ms = to_ms(cursor.collected_until) if cursor.collected_until else 0
        progress = Progress(cursor.entry_id, cursor.sequence, earlier_ms)
        if setting_aside:
            _set_aside_next(cursor.host, progress, setting_aside, now)
        begun_at = progress.entry_id
        book = Book(host_id)
        # Redis is read under the lock, so that two workers do not fold the same entries for
        # nothing; the call has a time limit, and the lock holds up this one host's folding only.
        for run in take_runs(
            cursor.host, progress, now, entries=entries, samples=SAMPLES_PER_COMMIT
        ):
            progress.samples += _fold(cursor.host, run, book, now)
        if progress.entry_id == begun_at:
            if setting_aside:
                transaction.set_rollback(True)
            else:
                _be_up_to_date_if_pushed(cursor, now)
            return None
        ledger.save(book, now=now)
        count_usage(book)
        _move(cursor, progress, now)
    if progress.lost:
        logger.error("batches lost from stream", extra={"host": host_id, "batches": progress.lost})
    stream.trim(host_id, folded=progress.entry_id, now=now)
    return progress.samples


def _set_aside_next(host: Host, progress: Progress, reason: str, now: datetime) -> None:
    for entry in stream.read_after(host.pk, progress.entry_id, limit=1):
        refuse(host, Refusal.Reason.BATCH_UNFOLDABLE, entry.entry_id, reason, now=now)
        progress.entry_id, progress.sequence = entry.entry_id, entry.sequence
        progress.refused += 1


def _move(cursor: StreamCursor, progress: Progress, now: datetime) -> None:
    if progress.lost or progress.refused:
        since = (cursor.collected_until or from_ms(0)) - AROUND_A_LOSS
        cursor.ends_untold_since = min(cursor.ends_untold_since or since, since)
    cursor.entry_id = progress.entry_id
    cursor.sequence = progress.sequence
    cursor.lost_batch_count += progress.lost
    collected_ms = progress.collected_ms
    if cursor.host.endpoint.startswith(PUSHED):
        collected_ms = max(collected_ms, _received_ms(progress, now))
    cursor.collected_until = from_ms(collected_ms) if collected_ms else None
    cursor.sample_count += progress.samples
    cursor.folded_at = now
    cursor.problem = ""
    cursor.save()


# No pass says when a host whose samples are sent has told everything, and invoices cannot wait
# for ever. So calls count as passes do: what came in before the cursor's time is folded. What is
# sent later still counts, in its window, or as late usage where that is frozen.


def _received_ms(progress: Progress, now: datetime) -> int:
    """Return when the last folded entry came in: Redis numbers it by that. Not after `now`."""
    return min(int(progress.entry_id.partition("-")[0]), to_ms(now))


def _be_up_to_date_if_pushed(cursor: StreamCursor, now: datetime) -> None:
    """Move a cursor whose stream is folded to its end to `now`, if no passes move it."""
    if cursor.host.endpoint.startswith(PUSHED):
        StreamCursor.objects.filter(pk=cursor.pk).update(
            collected_until=max(now, cursor.collected_until or now), folded_at=now
        )


def _lock_cursor(host_id: UUID) -> StreamCursor | None:
    """Return the cursor, locked to the end of the transaction; None when another worker has it."""
    return (
        StreamCursor.objects.select_for_update(skip_locked=True, of=("self",))
        .select_related("host")
        .filter(host_id=host_id)
        .first()
    )


def _fold(host: Host, run: Run, book: Book, now: datetime) -> int:
    """Fold a run's samples into the book; return how many of lives were believable."""
    samples, holds_ms, missed = only(
        believable(host, run.samples, now), run.samples, run.holds_ms, run.missed
    )
    lives = _distinct(samples["life"])
    book.meet_lives(np.union1d(lives, _distinct(run.storage["life"])))
    known = _known(host, lives, samples, book, now)
    samples, holds_ms, missed = only(known, samples, holds_ms, missed)
    # Before the lives: new interfaces go on from where these stood.
    _fold_interfaces(host, run.interfaces, samples, book, now)
    if len(samples):
        book.lives.add(fold_lives(samples, holds_ms, book.lives.readings, missed))
    if len(run.storage):
        _fold_storage(host, run, book, now)
    return len(samples)


def _known(host: Host, lives: Ints, samples: Records, book: Book, now: datetime) -> Bools | None:
    """Return which samples are of recorded lives, None when all; the others are counted."""
    if book.lives.has(lives).all():
        return None
    known = book.lives.has(samples["life"])
    _refuse_unknown(host, samples["life"][~known], now)
    return known


def _fold_interfaces(
    host: Host, interfaces: Records, samples: Records, book: Book, now: datetime
) -> None:
    complaints = {TIME_COMPLAINT: implausible_time(interfaces, now)}
    for field in INTERFACE_COUNTERS:
        complaints[f"{field} is negative or over 2^62"] = outside(
            interfaces, field, 0, LARGEST_COUNTER
        )
    (interfaces,) = only(believed(host, interfaces, now, complaints), interfaces)
    # Of lives that are not recorded their own samples tell.
    if not book.lives.has(_distinct(interfaces["life"])).all():
        interfaces = interfaces[book.lives.has(interfaces["life"])]
    if len(interfaces):
        _meet_interfaces(interfaces, samples, book)
        book.interfaces.add(fold_interfaces(interfaces, book.interfaces.readings))


def _meet_interfaces(interfaces: Records, samples: Records, book: Book) -> None:
    """Load the interfaces that were not met before, and begin those that are not recorded."""
    ids = _distinct(interfaces["interface"])
    unmet = ids[~book.interfaces.has(ids)]
    if not len(unmet):
        return
    book.interfaces.learn(ledger.load_interfaces(unmet))
    rows = interfaces[is_among(interfaces["interface"], unmet[~book.interfaces.has(unmet)])]
    if not len(rows):
        return
    rows = rows[np.lexsort((rows["read_ms"], rows["interface"]))]
    _, first = np.unique(rows["interface"], return_index=True)
    new = rows[first]
    book.interfaces.learn(
        new_interface_readings(
            new,
            life_readings=book.lives.readings,
            life_samples=samples[is_among(samples["life"], np.unique(new["life"]))],
        )
    )
    names = [name.decode() for name in new["name"].tolist()]
    book.new_interfaces += list(zip(new["interface"].tolist(), names, strict=True))


def _fold_storage(host: Host, run: Run, book: Book, now: datetime) -> None:
    complaints = {TIME_COMPLAINT: implausible_time(run.storage, now)}
    for field in ("layer_bytes", "volume_bytes"):
        # Both together must not pass the limit either.
        complaints[f"{field} is negative or over 4 TiB"] = outside(
            run.storage, field, 0, LARGEST_STORAGE_BYTES // 2
        )
    storage, holds_ms, missed = only(
        believed(host, run.storage, now, complaints),
        run.storage,
        run.storage_holds_ms,
        run.storage_missed,
    )
    known = _known(host, _distinct(storage["life"]), storage, book, now)
    storage, holds_ms, missed = only(known, storage, holds_ms, missed)
    if len(storage):
        _meet_storage(_distinct(storage["life"]), book)
        book.storage.add(fold_storage(storage, holds_ms, book.storage.readings, missed))


def _meet_storage(lives: Ints, book: Book) -> None:
    """Load the storage of lives that was not met before, and begin what is not recorded."""
    unmet = lives[~book.storage.has(lives)]
    book.storage.learn(ledger.load_storage(unmet))
    new = unmet[~book.storage.has(unmet)]
    book.storage.learn(new_storage_readings(new, from_ms=book.owner_of(new)["from_ms"]))
    book.new_storage += new.tolist()


def _distinct(ids: Ints) -> Ints:
    """Return these numbers once each, sorted. Passes mostly give the same ones again."""
    return np.unique(ids[: period_of(ids)])


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
