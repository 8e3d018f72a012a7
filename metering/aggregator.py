"""From a host's stream to its usage records: one transaction for each run of batches."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import numpy as np
from django.db import OperationalError, transaction

from metering import ledger, stream
from metering.aggregation import fold_interfaces, fold_lives, fold_storage
from metering.ledger import Book
from metering.lives import refuse
from metering.models import Host, Refusal, StreamCursor
from metering.period import from_ms, to_ms
from metering.readings import HELD_INTERVALS, new_interface_readings, new_storage_readings
from metering.samples import (
    INTERFACE_SAMPLE,
    SAMPLE,
    STORAGE_SAMPLE,
    Batch,
    EncodingError,
    Known,
    Missed,
    Records,
    State,
    unpack,
)
from metering.services import PUSHED, note_fold_problem
from metering.steps import Bools, Ints, period_of
from metering.tally import is_among

logger = logging.getLogger(__name__)

# Folding is fastest in runs of 20,000 to 100,000 samples; memory stays bounded by it.
SAMPLES_PER_FOLD = 100_000
# What a commit writes grows with lives, not with samples, so catching up takes many at once.
SAMPLES_PER_COMMIT = 2_000_000
ENTRIES_PER_COMMIT = 2_000
COMMITS_PER_RUN = 20

ACCEPTED_AHEAD = timedelta(minutes=5)
ACCEPTED_BEHIND = timedelta(days=35)
# Held for a window, more memory than this would pass 64 bits; no host has so much.
LARGEST_MEMORY_BYTES = 8 * 2**40
LARGEST_STORAGE_BYTES = 8 * 2**40
LARGEST_CPU_LIMIT_MICRO = 100_000 * 10**6


@dataclass(slots=True)
class _Progress:
    """Where the batches taken so far leave the cursor."""

    entry_id: str
    sequence: int
    collected_ms: int
    lost: int = 0
    samples: int = 0


@dataclass(frozen=True, slots=True)
class _Run:
    """Batches taken from the stream in one go, joined. Holds and reasons are a sample each."""

    samples: Records
    holds_ms: Ints
    missed: Ints
    interfaces: Records
    storage: Records
    storage_holds_ms: Ints
    storage_missed: Ints


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
        earlier_ms = to_ms(cursor.collected_until) if cursor.collected_until else 0
        progress = _Progress(cursor.entry_id, cursor.sequence, earlier_ms)
        if setting_aside:
            _set_aside_next(cursor.host, progress, setting_aside, now)
        begun_at = progress.entry_id
        book = Book(host_id)
        # Redis is read under the lock, so that two workers do not fold the same entries for
        # nothing; the call has a time limit, and the lock holds up this one host's folding only.
        for run in _take(cursor.host, progress, now, entries=entries):
            progress.samples += _fold(cursor.host, run, book, now)
        if progress.entry_id == begun_at:
            if setting_aside:
                transaction.set_rollback(True)
            else:
                _be_up_to_date_if_pushed(cursor, now)
            return None
        ledger.save(book, now=now)
        _move(cursor, progress, now)
    if progress.lost:
        logger.error("batches lost from stream", extra={"host": host_id, "batches": progress.lost})
    stream.trim(host_id, folded=progress.entry_id, now=now)
    return progress.samples


def _set_aside_next(host: Host, progress: _Progress, reason: str, now: datetime) -> None:
    for entry in stream.read_after(host.pk, progress.entry_id, limit=1):
        refuse(host, Refusal.Reason.BATCH_UNFOLDABLE, entry.entry_id, reason, now=now)
        progress.entry_id, progress.sequence = entry.entry_id, entry.sequence


def _move(cursor: StreamCursor, progress: _Progress, now: datetime) -> None:
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


def _received_ms(progress: _Progress, now: datetime) -> int:
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


def _take(host: Host, progress: _Progress, now: datetime, *, entries: int) -> Iterator[_Run]:
    """Yield the next batches in runs, at most as many as one commit carries."""
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
            refuse(host, Refusal.Reason.BATCH_UNREADABLE, subject, str(error), now=now)
            continue
        progress.collected_ms = max(progress.collected_ms, batch.collected_ms)
        batches.append((batch, Missed.BATCH_LOST if lost else batch.missed))
        waiting += len(batch.samples)
        if waiting >= min(SAMPLES_PER_FOLD, SAMPLES_PER_COMMIT - taken):
            taken += waiting
            yield _joined(batches)
            batches, waiting = [], 0
            if taken >= SAMPLES_PER_COMMIT:
                return
    if batches:
        yield _joined(batches)


def _missing_between(before: int, number: int) -> int:
    """Return how many batches were numbered between two that follow each other in the stream.

    Numbers that begin again mean that Redis lost its data. How many batches went with it
    nobody knows; it counts as one, so that the loss is seen.
    """
    return number - before - 1 if number > before else number


def _joined(batches: list[tuple[Batch, Missed]]) -> _Run:
    counts = [len(batch.samples) for batch, _ in batches]
    storage_counts = [len(batch.storage) for batch, _ in batches]
    holds_ms = [batch.interval_ms * HELD_INTERVALS for batch, _ in batches]
    storage_holds_ms = [batch.storage_interval_ms * HELD_INTERVALS for batch, _ in batches]
    missed = [int(why) for _, why in batches]
    return _Run(
        samples=_concatenated([batch.samples for batch, _ in batches], SAMPLE),
        holds_ms=np.repeat(np.array(holds_ms, np.int64), counts),
        missed=np.repeat(np.array(missed, np.int64), counts),
        interfaces=_concatenated([batch.interfaces for batch, _ in batches], INTERFACE_SAMPLE),
        storage=_concatenated([batch.storage for batch, _ in batches], STORAGE_SAMPLE),
        storage_holds_ms=np.repeat(np.array(storage_holds_ms, np.int64), storage_counts),
        storage_missed=np.repeat(np.array(missed, np.int64), storage_counts),
    )


def _concatenated(parts: list[Records], dtype: np.dtype[np.void]) -> Records:
    return np.concatenate(parts) if parts else np.empty(0, dtype)


def _fold(host: Host, run: _Run, book: Book, now: datetime) -> int:
    """Fold a run's samples into the book; return how many of lives were believable."""
    kept = _believable(host, run.samples, now)
    lives = _distinct(run.samples["life"])
    book.meet_lives(np.union1d(lives, _distinct(run.storage["life"])))
    if not book.lives.has(lives).all():
        known = book.lives.has(run.samples["life"])
        _refuse_unknown(host, run.samples["life"][kept & ~known], now)
        kept &= known
    samples, holds_ms, missed = run.samples, run.holds_ms, run.missed
    if not kept.all():
        samples, holds_ms, missed = samples[kept], holds_ms[kept], missed[kept]
    # Before the lives: new interfaces go on from where these stood.
    _fold_interfaces(host, run, samples, book, now)
    if len(samples):
        book.lives.add(fold_lives(samples, holds_ms, book.lives.readings, missed))
    if len(run.storage):
        _fold_storage(host, run, book, now)
    return len(samples)


def _fold_interfaces(host: Host, run: _Run, samples: Records, book: Book, now: datetime) -> None:
    interfaces = run.interfaces
    kept = _plausible_time(interfaces["read_ms"], now)
    if not book.lives.has(_distinct(interfaces["life"])).all():
        kept &= book.lives.has(interfaces["life"])
    kept &= _believed(
        host,
        interfaces,
        kept,
        now,
        {
            "a counter is negative": _negative(interfaces, _NETWORK),
            "a counter is over 2^62": _huge(interfaces, _NETWORK),
        },
    )
    if not kept.all():
        interfaces = interfaces[kept]
    if not len(interfaces):
        return
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


def _fold_storage(host: Host, run: _Run, book: Book, now: datetime) -> None:
    storage = run.storage
    known = book.lives.has(storage["life"])
    _refuse_unknown(host, storage["life"][~known], now)
    amounts = ("layer_bytes", "volume_bytes")
    kept = known & _believed(
        host,
        storage,
        known,
        now,
        {
            _TIME_COMPLAINT: ~_plausible_time(storage["read_ms"], now),
            "a figure is negative": _negative(storage, amounts),
            "storage is over 8 TiB": np.any(
                [storage[name] > LARGEST_STORAGE_BYTES // 2 for name in amounts], axis=0
            ),
        },
    )
    lives = _distinct(storage["life"][kept])
    unmet = lives[~book.storage.has(lives)]
    book.storage.learn(ledger.load_storage(unmet))
    new = unmet[~book.storage.has(unmet)]
    book.storage.learn(new_storage_readings(new, from_ms=book.owner_of(new)["from_ms"]))
    book.new_storage += new.tolist()
    if len(lives):
        book.storage.add(
            fold_storage(
                storage[kept],
                run.storage_holds_ms[kept],
                book.storage.readings,
                run.storage_missed[kept],
            )
        )


def _distinct(ids: Ints) -> Ints:
    """Return these numbers once each, sorted. Passes mostly give the same ones again."""
    return np.unique(ids[: period_of(ids)])


_TIME_COMPLAINT = "read_ms is over 35 days old or over 5 minutes ahead"
_FIGURES = (
    "cpu_ns",
    "memory_bytes",
    "disk_read_bytes",
    "disk_write_bytes",
    "cpu_limit_micro",
    "memory_limit_bytes",
)
_NETWORK = ("rx_bytes", "tx_bytes")
_COUNTERS = ("cpu_ns", "disk_read_bytes", "disk_write_bytes")
_STATES = (int(min(State)), int(max(State)))


def _plausible_time(read_ms: Ints, now: datetime) -> Bools:
    earliest, latest = to_ms(now - ACCEPTED_BEHIND), to_ms(now + ACCEPTED_AHEAD)
    plausible: Bools = (read_ms >= earliest) & (read_ms <= latest)
    return plausible


def _negative(samples: Records, fields: tuple[str, ...]) -> Bools:
    # A negative number has its highest bit set, and then so has the union of all.
    union: Bools = np.bitwise_or.reduce([samples[name] for name in fields]) < 0
    return union


def _huge(samples: Records, fields: tuple[str, ...]) -> Bools:
    # Positive ones whose second highest bit is set.
    union: Bools = np.bitwise_or.reduce([samples[name] for name in fields]) >= 2**62
    return union


def _believable(host: Host, samples: Records, now: datetime) -> Bools:
    """Return which samples can be true; the others are counted, with what is wrong, and left."""
    return _believed(
        host,
        samples,
        np.ones(len(samples), np.bool_),
        now,
        {
            _TIME_COMPLAINT: ~_plausible_time(samples["read_ms"], now),
            "a figure is negative": _negative(samples, _FIGURES),
            "a counter is over 2^62": _huge(samples, _COUNTERS),
            "memory_bytes is over 8 TiB": samples["memory_bytes"] > LARGEST_MEMORY_BYTES,
            "memory_limit_bytes is over 8 TiB": (
                samples["memory_limit_bytes"] > LARGEST_MEMORY_BYTES
            ),
            "cpu_limit_micro is over 100,000 cpus": (
                samples["cpu_limit_micro"] > LARGEST_CPU_LIMIT_MICRO
            ),
            "a figure without a name is marked": samples["known"] > int(~Known(0)),
            "the state has no name": (
                (samples["state"] < _STATES[0]) | (samples["state"] > _STATES[1])
            ),
        },
    )


def _believed(
    host: Host, samples: Records, judged: Bools, now: datetime, complaints: dict[str, Bools]
) -> Bools:
    """Return which of the judged samples nothing is wrong with; the others are counted."""
    good = judged.copy()
    for complaint, bad in complaints.items():
        if not bad.any():
            continue
        bad_here = bad & good
        reason = Refusal.Reason.SAMPLE_UNBELIEVABLE
        for life, count in zip(
            *np.unique(samples["life"][bad_here], return_counts=True), strict=True
        ):
            refuse(host, reason, str(life), complaint, now=now, count=int(count))
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
