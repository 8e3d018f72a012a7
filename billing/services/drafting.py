"""Drafts the invoices of many accounts at once; each account fails for itself alone."""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from celery.exceptions import SoftTimeLimitExceeded
from django.db import DatabaseError, OperationalError, connection, transaction

from billing.facts import AccountPeriod, facts_of
from billing.history import BILLING_A_PERIOD
from billing.models import Account, Invoice
from billing.services.accounts import park_account
from billing.services.statements import new_draft, note_unpriced_of, write_new_statements
from billing.statement import Statement, state_period

logger = logging.getLogger(__name__)


def draft_open_periods(account_ids: Collection[UUID], *, now: datetime) -> int | None:
    """Draft the open period of each account that is over and has no draft; return how many.

    In one transaction, with a fixed number of queries. Accounts that another worker holds are
    left to it. An account that cannot be stated is parked with the reason, and the others go
    on. None: the database refused what some account came to, and nothing was written; draft them
    one by one. Safe to repeat.
    """
    parked: list[tuple[UUID, Exception]] = []
    try:
        with transaction.atomic():
            accounts = _claim(account_ids, now)
            drafts = _state(accounts, parked, now=now)
            write_new_statements([(i, s) for _, i, s in drafts], now=now)
            note_unpriced_of([(a, i.period, s.rating) for a, i, s in drafts], now=now)
    except OperationalError:
        # A lost connection or a lock held too long says nothing about the accounts.
        if not connection.is_usable():
            raise
        logger.warning("accounts are busy", exc_info=True)
        return 0
    except DatabaseError:
        logger.warning("a batch of drafts is drafted one by one", exc_info=True)
        return None
    for account_id, error in parked:
        logger.error("account is parked", exc_info=error, extra={"account_id": account_id})
        park_account(account_id, reason=f"{type(error).__name__}: {error}", now=now)
    return len(drafts)


def _claim(account_ids: Collection[UUID], now: datetime) -> list[Account]:
    """Lock the accounts that nobody holds, and return those that are still to be drafted."""
    accounts = list(
        Account.objects.select_for_update(skip_locked=True)
        .filter(pk__in=account_ids, parked_reason="", open_period_end__lte=now)
        .order_by("pk")
    )
    # Looked at under the locks: another worker may have been quicker.
    drafted = set(
        Invoice.objects.filter(account__in=accounts, kind__in=BILLING_A_PERIOD)
        .exclude(status=Invoice.Status.VOID)
        .values_list("account_id", "period_start")
    )
    return [a for a in accounts if (a.pk, a.open_period_start) not in drafted]


def _state(
    accounts: list[Account], parked: list[tuple[UUID, Exception]], *, now: datetime
) -> list[tuple[Account, Invoice, Statement]]:
    """Return each account's draft and what it says; add those that cannot be stated to `parked`."""
    drafts = []
    found = facts_of([AccountPeriod(account, account.open_period) for account in accounts])
    for account, facts in zip(accounts, found, strict=True):
        if isinstance(facts, Exception):
            parked.append((account.pk, facts))
            continue
        try:
            statement = state_period(facts)
        except SoftTimeLimitExceeded:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this account's alone
            parked.append((account.pk, error))
        else:
            draft = new_draft(account, facts.period, facts.schedule, now=now)
            drafts.append((account, draft, statement))
    return drafts
