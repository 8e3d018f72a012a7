"""Samples that were sent: which count, the lives they are of, and their way into the stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter, itemgetter
from uuid import UUID

from django.db import transaction

from metering import numbering
from metering.endings import reopen
from metering.lives import create_missing, have_sandboxes, refuse_all
from metering.models import (
    AccountRegistration,
    Host,
    Life,
    LifeReading,
    MeteringKey,
    Refusal,
    Sandbox,
)
from metering.period import from_ms, to_ms
from metering.samples import Event, life_id
from metering.sent import LIMITS, Fault, Limits, Rejection, SentSample, batches

_MS_NS = 10**6


@dataclass(frozen=True, slots=True)
class Intake:
    """What became of a call's samples."""

    accepted: int
    duplicates: int
    rejected: list[Rejection]


@dataclass(slots=True)
class _Call:
    """One call as it is judged, step by step."""

    key: MeteringKey
    now: datetime
    rejected: list[Rejection]
    duplicates: int = 0

    @property
    def host(self) -> Host:
        return self.key.host

    def reject(self, sample: SentSample, name: str, fault: Fault, detail: str) -> None:
        self.rejected.append(Rejection(sample.index, name, fault, detail, sample.subject))


def take_samples(
    key: MeteringKey,
    samples: Sequence[SentSample],
    *,
    rejected: Iterable[Rejection] = (),
    now: datetime,
) -> Intake:
    """Record the lives that samples are of, and append the samples to the stream of their host.

    `rejected` are those of the call that could not be read; they are counted with the others.
    Safe to repeat and to run twice at once: a life's key is its own on its host, and the fold
    drops what is not after the life's last reading. Raises StreamUnavailableError; then the
    call is to be repeated as a whole.
    """
    call = _Call(key, now, list(rejected))
    accounts = _open_accounts(call, samples)
    kept = [sample for sample in samples if sample.account_id in accounts]
    lives = _record_lives(call.host, kept, accounts, now)
    read_ms = dict(
        LifeReading.objects.filter(life__in=lives.values()).values_list("life_id", "read_ms")
    )
    kept = [sample for sample in kept if _is_of_its_life(call, sample, lives[sample.life])]
    kept = _without_repeats(call, kept)
    kept = _until_their_end(call, kept, lives, read_ms)
    # A stop that is folded already, and was repeated, still ends its life.
    stops = [sample for sample in kept if sample.event is Event.STOPPED]
    kept = _after_last_reading(call, kept, lives, read_ms)

    limits = _limits(kept, lives)
    numbers = {key: life.pk for key, life in lives.items()}
    for batch in batches(kept, numbers, limits):
        numbering.append(call.host, batch)
    # After the stream has them: a crash in between repeats the call, which changes nothing.
    _write_limits(kept, lives, limits)
    # The host is heard of first, so that nobody closes again what is reopened.
    if kept or call.duplicates:
        Host.objects.filter(pk=call.host.pk).update(
            last_seen_at=now, **numbering.appended(call.host)
        )
    sent = {lives[sample.life].pk for sample in kept}
    reopen(Life.objects.filter(pk__in=sent, ended_at__isnull=False, gone_at__isnull=True))
    for sample in stops:
        _end_life(lives[sample.life], from_ms(sample.read_ms))
    _count_refusals(call)
    return Intake(len(kept), call.duplicates, sorted(call.rejected, key=lambda bad: bad.index))


def _open_accounts(call: _Call, samples: Iterable[SentSample]) -> dict[UUID, AccountRegistration]:
    """Return the accounts whose samples the key may send; reject the samples of all others."""
    found = AccountRegistration.objects.in_bulk({sample.account_id for sample in samples})
    open_accounts = {}
    for sample in samples:
        account = found.get(sample.account_id)
        if call.key.account_id not in {None, sample.account_id}:
            detail = f"The key speaks of account {call.key.account_id} only."
            call.reject(sample, "account_id", Fault.ACCOUNT_NOT_OF_KEY, detail)
        elif account is None:
            detail = f"{sample.account_id} is no account here. Open it, or correct the id."
            call.reject(sample, "account_id", Fault.ACCOUNT_UNKNOWN, detail)
        elif not account.takes_life_of(sample.started_ms):
            detail = f"Account {sample.account_id} is not active. Make it active, or stop."
            call.reject(sample, "account_id", Fault.ACCOUNT_NOT_ACTIVE, detail)
        else:
            open_accounts[account.pk] = account
    return open_accounts


def _record_lives(
    host: Host,
    samples: Sequence[SentSample],
    accounts: Mapping[UUID, AccountRegistration],
    now: datetime,
) -> dict[str, Life]:
    """Return the life of each key that the samples name, those not met before recorded."""
    numbers = {sample.life: life_id(str(host.pk), sample.life) for sample in samples}
    lives = _load_lives(numbers.values())
    new: dict[int, SentSample] = {}
    for sample in samples:
        if numbers[sample.life] not in lives:
            new.setdefault(numbers[sample.life], sample)
    if new:
        with transaction.atomic():
            names = {(sample.account_id, sample.sandbox_id) for sample in new.values()}
            sandboxes = have_sandboxes(names, now)
            create_missing(
                [
                    _life(
                        number,
                        sample,
                        sandbox=sandboxes[sample.account_id, sample.sandbox_id],
                        host=host,
                        known_since=max(
                            accounts[sample.account_id].registered_at, host.registered_at
                        ),
                        now=now,
                    )
                    # In one order, so that two calls at once do not wait for each other.
                    for number, sample in sorted(new.items(), key=itemgetter(0))
                ]
            )
        # Another call may have been quicker, with another sandbox: what is recorded counts.
        lives |= _load_lives(new)
    return {key: lives[number] for key, number in numbers.items()}


def _load_lives(numbers: Iterable[int]) -> dict[int, Life]:
    return Life.objects.select_related("sandbox").in_bulk(list(numbers))


def _life(
    number: int,
    sample: SentSample,
    *,
    sandbox: Sandbox,
    host: Host,
    known_since: datetime,
    now: datetime,
) -> Life:
    return Life(
        id=number,
        sandbox=sandbox,
        host=host,
        key=sample.life,
        container_id=sample.life,
        started_ns=sample.started_ms * _MS_NS,
        started_at=from_ms(sample.started_ms),
        counts_from_zero=sample.started_ms >= to_ms(known_since),
        cpu_limit_micro=sample.cpu_limit_micro,
        memory_limit_bytes=sample.memory_limit_bytes,
        gpu_count=sample.gpu_count or 0,
        labels=dict(sample.labels),
        recorded_at=now,
    )


def _is_of_its_life(call: _Call, sample: SentSample, life: Life) -> bool:
    """Return whether a sample's life is its own; reject it if another sandbox has the key."""
    sandbox = life.sandbox
    if (life.key, sandbox.account_id, sandbox.sandbox_id) != (
        sample.life,
        sample.account_id,
        sample.sandbox_id,
    ):
        detail = "Another sandbox has a life of this key. Give each start a key of its own."
        call.reject(sample, "life", Fault.LIFE_TAKEN, detail)
        return False
    if life.started_ns != sample.started_ms * _MS_NS:
        call.reject(
            sample,
            "started_at",
            Fault.LIFE_STARTED_OTHERWISE,
            f"The life started at {_text(life.started_at)}. Give each start a life of its own, "
            "and send its one started_at with every sample.",
        )
        return False
    return True


def _without_repeats(call: _Call, samples: Iterable[SentSample]) -> list[SentSample]:
    """Return the first sample of each life and time; what says otherwise later is rejected."""
    first: dict[tuple[str, int], SentSample] = {}
    for sample in samples:
        other = first.setdefault((sample.life, sample.read_ms), sample)
        if other is sample:
            continue
        if other == sample:
            call.duplicates += 1
            continue
        detail = (
            f"Sample {other.index} of the call says otherwise of the life at this time. Send one "
            "sample for each life and time."
        )
        call.reject(sample, "read_at", Fault.CONFLICTING, detail)
    return list(first.values())


def _until_their_end(
    call: _Call,
    samples: Iterable[SentSample],
    lives: Mapping[str, Life],
    read_ms: Mapping[int, int],
) -> list[SentSample]:
    """Return the samples up to the ends of their lives; reject those after them.

    A life ends once. A stop before what is folded of its life is rejected as well.
    """
    # Lives of a host that was silent are closed, and not gone: they go on when it is back.
    ends_ms = {key: to_ms(life.gone_at) for key, life in lives.items() if life.gone_at}
    kept = []
    for sample in sorted(samples, key=lambda sample: sample.read_ms):
        life, is_stop = lives[sample.life], sample.event is Event.STOPPED
        end_ms = ends_ms.get(sample.life)
        if end_ms is None and is_stop and sample.read_ms < read_ms[life.pk]:
            detail = (
                f"The life was read until {_text(from_ms(read_ms[life.pk]))}. Send its stop with "
                "a read_at that is not before that."
            )
            call.reject(sample, "read_at", Fault.READ_LATER, detail)
            continue
        if end_ms is not None and (
            sample.read_ms > end_ms or (is_stop and sample.read_ms != end_ms)
        ):
            detail = f"The life ended at {_text(from_ms(end_ms))}. A new start is a new life."
            call.reject(sample, "read_at", Fault.LIFE_ENDED, detail)
            continue
        if is_stop:
            ends_ms[sample.life] = sample.read_ms
        kept.append(sample)
    return kept


def _after_last_reading(
    call: _Call,
    samples: Sequence[SentSample],
    lives: Mapping[str, Life],
    read_ms: Mapping[int, int],
) -> list[SentSample]:
    """Return the samples that the fold will count; the others are known already, or too late."""
    kept = [sample for sample in samples if sample.read_ms > read_ms[lives[sample.life].pk]]
    call.duplicates += len(samples) - len(kept)
    return kept


def _limits(samples: Iterable[SentSample], lives: Mapping[str, Life]) -> dict[int, Limits]:
    """Return, by index, the limits that hold from each sample on that says any.

    `samples` are in the order of their times. A limit that a sample leaves out stays as it was.
    """
    newest: dict[str, Limits] = {}
    found = {}
    for sample in samples:
        said = {name: limit for name in LIMITS if (limit := getattr(sample, name)) is not None}
        if said:
            life = lives[sample.life]
            before = newest.get(sample.life) or {name: getattr(life, name) for name in LIMITS}
            found[sample.index] = newest[sample.life] = before | said
    return found


def _write_limits(
    samples: Iterable[SentSample], lives: Mapping[str, Life], limits: Mapping[int, Limits]
) -> None:
    """Leave on each life the newest limits that were sent, where they differ."""
    newest = {sample.life: limits[sample.index] for sample in samples if sample.index in limits}
    changed = []
    for key, said in newest.items():
        life = lives[key]
        if said != {name: getattr(life, name) for name in LIMITS}:
            for name, limit in said.items():
                setattr(life, name, limit)
            changed.append(life)
    # In one order, so that two calls at once do not wait for each other.
    Life.objects.bulk_update(sorted(changed, key=attrgetter("pk")), LIMITS)


def _end_life(life: Life, ended_at: datetime) -> None:
    Life.objects.filter(pk=life.pk, gone_at__isnull=True).update(
        ended_at=ended_at, gone_at=ended_at
    )


_REASONS = {
    ("account_id", Fault.MISSING): Refusal.Reason.ACCOUNT_MISSING,
    ("account_id", Fault.MALFORMED): Refusal.Reason.ACCOUNT_MALFORMED,
    ("account_id", Fault.ACCOUNT_UNKNOWN): Refusal.Reason.ACCOUNT_UNKNOWN,
    ("account_id", Fault.ACCOUNT_NOT_ACTIVE): Refusal.Reason.ACCOUNT_UNKNOWN,
    ("account_id", Fault.ACCOUNT_NOT_OF_KEY): Refusal.Reason.ACCOUNT_UNKNOWN,
    ("sandbox_id", Fault.MISSING): Refusal.Reason.SANDBOX_MALFORMED,
    ("sandbox_id", Fault.MALFORMED): Refusal.Reason.SANDBOX_MALFORMED,
}


def _count_refusals(call: _Call) -> None:
    """Count each rejected sample where staff look for what is not metered."""
    counts: Counter[tuple[Refusal.Reason, str]] = Counter()
    details = {}
    for bad in call.rejected:
        reason = _REASONS.get((bad.field, bad.fault), Refusal.Reason.SAMPLE_UNBELIEVABLE)
        counts[reason, bad.subject] += 1
        details[reason, bad.subject] = f"{bad.field}: {bad.detail}"
    refused = {key: (details[key], count) for key, count in counts.items()}
    refuse_all(call.host, refused, now=call.now)


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
