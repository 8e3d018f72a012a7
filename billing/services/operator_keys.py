from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import IntegrityError, transaction

from billing.models import OperatorKey
from metering.bearer_keys import check_overlap, find_key, new_key, revoke_keys
from metering.log_lines import log_committed

logger = logging.getLogger(__name__)

OPERATOR_KEY_START = "sbx_op_"
LONGEST_NAME = 100


class OperatorKeyRefusedError(ValueError):
    """The key cannot be issued or revoked like this; the message says the way out."""


@dataclass(frozen=True, slots=True)
class IssuedOperatorKey:
    """A new key and its row. `key` exists nowhere else: show it now or never."""

    row: OperatorKey
    key: str


def issue_operator_key(*, name: str, now: datetime) -> IssuedOperatorKey:
    """Make a key for the operator's routes. Raises OperatorKeyRefusedError.

    What is done with it is told by its name, so a name is in use once: calling again is refused.
    """
    name = name.strip()
    if not (name and name.isprintable() and len(name) <= LONGEST_NAME):
        raise OperatorKeyRefusedError(
            f"Give it a name of 1 to {LONGEST_NAME} printable characters."
        )
    made = new_key(OPERATOR_KEY_START)
    try:
        with transaction.atomic():
            row = OperatorKey.objects.create(
                name=name, prefix=made.prefix, key_hash=made.key_hash, created_at=now
            )
    except IntegrityError:
        raise OperatorKeyRefusedError(
            f"A key named {name} is in use. Revoke it first, or take another name."
        ) from None
    log_committed(logger, "operator key made", operator_key_id=row.pk, operator=name)
    return IssuedOperatorKey(row=row, key=made.key)


@transaction.atomic
def rotate_operator_key(name: str, *, overlap: timedelta, now: datetime) -> IssuedOperatorKey:
    """Make another key of that name, and refuse the one there is after `overlap`.

    Each call makes another. Raises OperatorKeyRefusedError.
    """
    try:
        check_overlap(overlap)
    except ValueError as error:
        raise OperatorKeyRefusedError(str(error)) from None
    old = OperatorKey.objects.select_for_update().filter(name=name, revoked_at__isnull=True).first()
    if old is None:
        raise OperatorKeyRefusedError(f"There is no operator key named {name} that works.")
    # First, since a name is in use once.
    OperatorKey.objects.filter(pk=old.pk).update(revoked_at=now + overlap)
    return issue_operator_key(name=name, now=now)


def authenticate_operator_key(key: str, *, now: datetime) -> OperatorKey | None:
    """Return the row of a key that is known and not revoked, else None; note its use."""
    return find_key(OperatorKey.objects.all(), key, now=now)


def revoke_operator_key(name: str, *, now: datetime) -> None:
    """Refuse the key of that name from now on. Safe to repeat: the first time stays.

    Raises OperatorKeyRefusedError when no key ever had the name.
    """
    keys = OperatorKey.objects.filter(name=name)
    if not keys.exists():
        raise OperatorKeyRefusedError(f"There is no operator key named {name}.")
    if revoke_keys(keys, now=now):
        log_committed(logger, "operator key revoked", operator=name)
