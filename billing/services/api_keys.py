from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction

from billing.models import ApiKey
from billing.models.accounts import default_scopes
from billing.services.accounts import lock_account, refuse_closing
from metering.bearer_keys import find_key, new_key, revoke_keys
from metering.log_lines import log_committed

logger = logging.getLogger(__name__)

LIVE_START = "sbx_live_"
TEST_START = "sbx_test_"
"""What keys begin with where Stripe's key is a test key: no real money is moved there."""
MOST_KEYS = 50
"""An account has so many at most that are not revoked."""
LONGEST_OVERLAP = timedelta(days=7)
"""A key that was rotated works for so long at most beside the new one."""


@dataclass(frozen=True, slots=True)
class IssuedApiKey:
    """A new key and its row. `key` exists nowhere else: show it now or never."""

    row: ApiKey
    key: str


class ApiKeyRefusedError(Exception):
    """A key cannot be made or changed so. `field` names what is wrong, the text the way out."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class NoSuchApiKeyError(Exception):
    """The account has no such key that is not revoked."""


class KeyExpiredError(Exception):
    """The key is known, and its time is over."""


class TestKeyError(Exception):
    """A key for trying things out was shown where money is real."""


@transaction.atomic
def issue_api_key(
    account_id: UUID,
    *,
    name: str,
    now: datetime,
    scopes: Iterable[str] = (),
    expires_at: datetime | None = None,
) -> IssuedApiKey:
    """Make a key for the account's API, with the scopes read and write unless others are named.

    Each call makes another. Raises ApiKeyRefusedError, AccountClosingError.
    """
    # Locked, so that two at once do not make one too many, or one as the account is closed.
    refuse_closing(lock_account(account_id))
    wanted = set(scopes) or set(default_scopes())
    if unknown := wanted - set(ApiKey.Scope.values):
        raise ApiKeyRefusedError(
            "scopes", f"{', '.join(sorted(unknown))}: use {', '.join(ApiKey.Scope.values)}."
        )
    if expires_at is not None and expires_at <= now:
        raise ApiKeyRefusedError("expires_at", "It is over already. Give a time to come.")
    working = ApiKey.objects.filter(account=account_id, revoked_at__isnull=True)
    if working.exclude(expires_at__lte=now).count() >= MOST_KEYS:
        raise ApiKeyRefusedError(
            "name", f"The account has {MOST_KEYS} keys, the most there may be. Revoke one first."
        )
    made = new_key(TEST_START if settings.STRIPE_IS_TEST else LIVE_START)
    row = ApiKey.objects.create(
        account_id=account_id,
        name=name,
        scopes=[scope for scope in ApiKey.Scope.values if scope in wanted],
        prefix=made.prefix,
        key_hash=made.key_hash,
        created_at=now,
        expires_at=expires_at,
    )
    log_committed(logger, "API key made", api_key_id=row.pk, account_id=account_id)
    return IssuedApiKey(row=row, key=made.key)


@transaction.atomic
def rotate_api_key(
    account_id: UUID, api_key_id: int, *, overlap: timedelta, now: datetime
) -> IssuedApiKey:
    """Make a key that may do the same, and let the old one expire after `overlap`.

    Raises NoSuchApiKeyError, ApiKeyRefusedError.
    """
    if not timedelta(0) <= overlap <= LONGEST_OVERLAP:
        raise ApiKeyRefusedError("overlap", f"Use 0 to {LONGEST_OVERLAP.days} days.")
    lock_account(account_id)
    old = (
        ApiKey.objects.select_for_update()
        .filter(pk=api_key_id, account=account_id, revoked_at__isnull=True)
        .exclude(expires_at__lte=now)
        .first()
    )
    if old is None:
        raise NoSuchApiKeyError
    issued = issue_api_key(
        account_id, name=old.name, scopes=old.scopes, expires_at=old.expires_at, now=now
    )
    if overlap:
        ends_at = now + overlap
        old.expires_at = min(old.expires_at or ends_at, ends_at)
        old.save(update_fields=["expires_at"])
    else:
        revoke_api_key(old.pk, now=now)
    return issued


def authenticate_api_key(key: str, *, now: datetime) -> ApiKey | None:
    """Return the row of a key that is known and not revoked, else None; note its use.

    Raises KeyExpiredError, and TestKeyError for a key for trying where money is real.
    """
    row = find_key(ApiKey.objects.select_related("account"), key, now=now)
    if row is None:
        return None
    if row.expires_at is not None and row.expires_at <= now:
        raise KeyExpiredError
    if row.prefix.startswith(TEST_START) and not settings.STRIPE_IS_TEST:
        raise TestKeyError
    return row


def revoke_api_key(api_key_id: int, *, now: datetime) -> None:
    """Refuse the key from now on. Safe to repeat: the first time stays."""
    if revoke_keys(ApiKey.objects.filter(pk=api_key_id), now=now):
        log_committed(logger, "API key revoked", api_key_id=api_key_id)
