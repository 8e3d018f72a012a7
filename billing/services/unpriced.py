"""Keeps what has no price in open periods known, so that a monitor can tell before an invoice."""

from __future__ import annotations

import logging
from datetime import datetime
from uuid import UUID

from celery.exceptions import SoftTimeLimitExceeded
from django.db import OperationalError, connection, transaction

from billing.account_terms import period_containing
from billing.models import Account
from billing.own_facts import own_facts
from billing.rating import rate_usage
from billing.services.accounts import lock_account
from billing.services.statements import note_unpriced

ACCOUNTS_AT_ONCE = 100
"""A few seconds' work."""

logger = logging.getLogger(__name__)


def note_unpriced_usage(*, now: datetime, after: UUID | None = None) -> UUID | None:
    """Note which usage of open periods has no price, of the accounts that follow `after` by id.

    Returns where to go on, None when the last account was looked at. So the accounts take
    turns, and the one that was looked at longest ago comes next. Safe to repeat.
    """
    accounts = Account.objects.order_by("pk")
    if after is not None:
        accounts = accounts.filter(pk__gt=after)
    looked_at = list(accounts.values_list("pk", flat=True)[:ACCOUNTS_AT_ONCE])
    for account_id in looked_at:
        _try_account(account_id, now=now)
    return looked_at[-1] if len(looked_at) == ACCOUNTS_AT_ONCE else None


def _try_account(account_id: UUID, *, now: datetime) -> None:
    """Note one account's; where that fails it is logged, and stays for drafting to park."""
    try:
        with transaction.atomic():
            _note(account_id, now=now)
    except OperationalError:
        # A lost connection or a held lock says nothing about the account; its turn comes again.
        if not connection.is_usable():
            raise
        logger.warning("account is busy", exc_info=True, extra={"account_id": account_id})
    except SoftTimeLimitExceeded:
        # It tells the task to end, and says nothing about the account either.
        raise
    except Exception:
        logger.exception("unpriced usage is not noted", extra={"account_id": account_id})


def _note(account_id: UUID, *, now: datetime) -> None:
    # Finalising replaces the same rows, under the same lock.
    account = lock_account(account_id)
    # The period of now, and the one whose invoice is due next; they are mostly the same.
    for period in sorted({account.open_period, period_containing(account, now)}):
        usage = own_facts(account, period).usage
        rating = rate_usage(usage, currency=account.currency)
        note_unpriced(account, period, rating, now=now)
