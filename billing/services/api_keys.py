from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from billing.models import ApiKey
from metering.bearer_keys import find_key, new_key, revoke_keys

KEY_START = "sbx_live_"


@dataclass(frozen=True, slots=True)
class IssuedApiKey:
    """A new key and its row. `key` exists nowhere else: show it now or never."""

    row: ApiKey
    key: str


def issue_api_key(account_id: UUID, *, name: str, now: datetime) -> IssuedApiKey:
    """Make a key for the account's API. Each call makes another."""
    made = new_key(KEY_START)
    row = ApiKey.objects.create(
        account_id=account_id,
        name=name,
        prefix=made.prefix,
        key_hash=made.key_hash,
        created_at=now,
    )
    return IssuedApiKey(row=row, key=made.key)


def authenticate_api_key(key: str, *, now: datetime) -> ApiKey | None:
    """Return the row of a key that is known and not revoked, else None; note its use."""
    return find_key(ApiKey.objects.select_related("account"), key, now=now)


def revoke_api_key(api_key_id: int, *, now: datetime) -> None:
    """Refuse the key from now on. Safe to repeat: the first time stays."""
    revoke_keys(ApiKey.objects.filter(pk=api_key_id), now=now)
