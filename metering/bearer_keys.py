"""What all keys have in common that stand in an Authorization header: how they are made and known.

The tables that keep them differ; each has the columns `prefix`, `key_hash`, `last_used_at` and
`revoked_at`. A key works until `revoked_at`, which lies ahead while it is rotated.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from django.db.models import Model, Q, QuerySet
from rest_framework.authentication import get_authorization_header
from rest_framework.request import Request

SCHEME = "Bearer"
SECRET_BYTES = 32
SHOWN_OF_SECRET = 6
USE_RECORDED_EVERY = timedelta(minutes=1)
LONGEST_OVERLAP = timedelta(days=7)
"""A key that is rotated works for so long at most beside the new one."""

K = TypeVar("K", bound=Model)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A new key and what is kept of it. `key` exists nowhere else: show it now or never."""

    key: str
    prefix: str
    key_hash: str


def new_key(start: str) -> NewKey:
    """Return another key that begins with `start`: 256 random bits."""
    key = start + secrets.token_urlsafe(SECRET_BYTES)
    return NewKey(key, key[: len(start) + SHOWN_OF_SECRET], _hash(key))


def find_key(rows: QuerySet[K], key: str, *, now: datetime) -> K | None:
    """Return the row of a key that is known and not revoked, else None; note its use."""
    row = rows.filter(works_at(now), key_hash=_hash(key)).first()
    if row:
        used_at: datetime | None = vars(row)["last_used_at"]
        # Not yet, or not for a minute: a write at every request would cost more than it tells.
        if used_at is None or used_at <= now - USE_RECORDED_EVERY:
            rows.filter(pk=row.pk).update(last_used_at=now)
    return row


def revoke_keys(rows: QuerySet[K], *, now: datetime) -> int:
    """Refuse the keys from now on; return how many. Safe to repeat: the first time stays."""
    return rows.filter(works_at(now)).update(revoked_at=now)


def works_at(now: datetime) -> Q:
    """Return the condition that a key is not revoked by then."""
    return Q(revoked_at__isnull=True) | Q(revoked_at__gt=now)


def check_overlap(overlap: timedelta) -> None:
    """Raise ValueError unless a key that is rotated may work for so long beside the new one."""
    if not timedelta(0) <= overlap <= LONGEST_OVERLAP:
        raise ValueError(f"overlap: give 0 hours to {LONGEST_OVERLAP.days} days.")


def bearer_key(request: Request) -> str | None:
    """Return the key that a request shows, None when it shows none."""
    match get_authorization_header(request).decode("latin-1").split():
        case [scheme, key] if scheme.lower() == SCHEME.lower():
            return key
        case _:
            return None


def _hash(key: str) -> str:
    # A plain hash is enough: the key is 256 random bits, so there is nothing to guess faster.
    return hashlib.sha256(key.encode()).hexdigest()
