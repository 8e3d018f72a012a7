from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from billing.models import ApiKey

KEY_START = "sbx_live_"
SECRET_BYTES = 32
PREFIX_LENGTH = len(KEY_START) + 6
USE_RECORDED_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class IssuedApiKey:
    """A new key and its row. `key` exists nowhere else: show it now or never."""

    row: ApiKey
    key: str


def issue_api_key(account_id: UUID, *, name: str, now: datetime) -> IssuedApiKey:
    """Make a key for the account's API. Each call makes another."""
    key = KEY_START + secrets.token_urlsafe(SECRET_BYTES)
    row = ApiKey.objects.create(
        account_id=account_id,
        name=name,
        prefix=key[:PREFIX_LENGTH],
        key_hash=_hash(key),
        created_at=now,
    )
    return IssuedApiKey(row=row, key=key)


def authenticate_api_key(key: str, *, now: datetime) -> ApiKey | None:
    """Return the row of a key that is known and not revoked, else None; note its use."""
    row = (
        ApiKey.objects.select_related("account")
        .filter(key_hash=_hash(key), revoked_at__isnull=True)
        .first()
    )
    if row and (row.last_used_at is None or row.last_used_at + USE_RECORDED_EVERY <= now):
        ApiKey.objects.filter(pk=row.pk).update(last_used_at=now)
    return row


def revoke_api_key(api_key_id: int, *, now: datetime) -> None:
    """Refuse the key from now on. Safe to repeat: the first time stays."""
    ApiKey.objects.filter(pk=api_key_id, revoked_at__isnull=True).update(revoked_at=now)


def _hash(key: str) -> str:
    # A plain hash is enough: the key is 256 random bits, so there is nothing to guess faster.
    return hashlib.sha256(key.encode()).hexdigest()
