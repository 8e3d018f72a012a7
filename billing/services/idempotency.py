"""Answers a call that is sent again from what it was answered, instead of doing it again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import QuerySet

from billing.models import IdempotentCall

KEPT = timedelta(days=1)
CLAIMED = timedelta(seconds=60)
"""Whoever began a call and has not answered in this time has died; longer than any answer takes."""
REMOVED_AT_ONCE = 5000


class KeyReusedError(Exception):
    """The key was sent before with another call."""


class InProgressError(Exception):
    """A call with the key is being answered."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call was answered. `data` is its JSON, as Python has it."""

    status: int
    data: Any


def begin_call(account_id: UUID, key: str, fingerprint: str, *, now: datetime) -> Answer | None:
    """Claim the key for a call to be done now; return the answer if it was done before.

    A second call at the same time waits here where the first is in a transaction that also holds
    its claim. Raises KeyReusedError, InProgressError.
    """
    try:
        with transaction.atomic():
            IdempotentCall.objects.create(
                account_id=account_id, key=key, **_claim(fingerprint, now)
            )
    except IntegrityError:
        return _known_call(account_id, key, fingerprint, now=now)
    return None


def keep_answer(account_id: UUID, key: str, answer: Answer) -> None:
    """Keep what the claimed call was answered."""
    IdempotentCall.objects.filter(account=account_id, key=key).update(
        status=answer.status, answer=json.dumps(answer.data), claimed_until=None
    )


def drop_call(account_id: UUID, key: str) -> None:
    """Forget a claimed call that was refused, so that it may be sent again, mended."""
    IdempotentCall.objects.filter(account=account_id, key=key, status__isnull=True).delete()


def forget_old_calls(now: datetime) -> bool:
    """Remove calls that are too old to be answered again; return whether more are left."""
    old = IdempotentCall.objects.filter(created_at__lte=now - KEPT)
    chosen = list(old.values_list("pk", flat=True)[:REMOVED_AT_ONCE])
    IdempotentCall.objects.filter(pk__in=chosen).delete()
    return len(chosen) == REMOVED_AT_ONCE


def _known_call(account_id: UUID, key: str, fingerprint: str, *, now: datetime) -> Answer | None:
    calls = IdempotentCall.objects.filter(account=account_id, key=key)
    call = calls.first()
    if call is None:
        # It was refused, or removed, a moment ago.
        raise InProgressError
    if call.created_at <= now - KEPT:
        # As good as removed, which a sweep has not come to yet.
        again = calls.filter(created_at=call.created_at)
        _take_over(again, fingerprint, now=now)
        return None
    if call.fingerprint != fingerprint:
        raise KeyReusedError
    if call.status is not None:
        return Answer(call.status, json.loads(call.answer))
    # Whoever had it may have died on the way.
    left = calls.filter(
        status__isnull=True, claimed_until=call.claimed_until, claimed_until__lte=now
    )
    _take_over(left, fingerprint, now=now)
    return None


def _claim(fingerprint: str, now: datetime) -> dict[str, Any]:
    return {
        "fingerprint": fingerprint,
        "created_at": now,
        "claimed_until": now + CLAIMED,
        "status": None,
        "answer": "",
    }


def _take_over(calls: QuerySet[IdempotentCall], fingerprint: str, *, now: datetime) -> None:
    """Claim the call as it was found. Raises InProgressError when somebody else was faster."""
    if not calls.update(**_claim(fingerprint, now)):
        raise InProgressError
