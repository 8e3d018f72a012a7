"""What the clock does: find what is due and do it, each account in its own savepoint."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from functools import partial
from uuid import UUID

from celery.exceptions import SoftTimeLimitExceeded
from django.db import OperationalError, connection, transaction
from django.db.models import Exists, F, OuterRef, Q, Subquery, Sum, Value
from django.db.models.functions import Coalesce

from billing.credits import CreditKind
from billing.history import BILLING_A_PERIOD
from billing.models import Account, CreditEntry, CreditGrant, Invoice, Subscription, TopUp
from billing.services.accounts import park_account
from billing.services.credits import (
    accounts_with_lapsed_credit,
    expire_due_credits_of,
    grant_monthly_credits,
)
from billing.services.drafting import draft_open_periods
from billing.services.invoices import (
    InvoiceNotReadyError,
    PeriodNotOpenError,
    draft_invoice,
    finalise_invoice,
)
from billing.services.top_ups import request_due_top_up

ACCOUNTS_A_SWEEP = 500

logger = logging.getLogger(__name__)


def grant_due_credits(now: datetime) -> int:
    """Grant this month's credits where a subscription has not had them; return for how many.

    Safe to repeat.
    """
    granted = CreditGrant.objects.filter(subscription=OuterRef("pk"), period_end__gt=now)
    due = (
        Subscription.objects.filter(
            ~Exists(granted),
            Q(expires_at__isnull=True) | Q(expires_at__gt=now),
            account__parked_reason="",
            started_at__lte=now,
            monthly_credits__gt=0,
        )
        .order_by("started_at")
        .values_list("account_id", flat=True)[:ACCOUNTS_A_SWEEP]
    )
    return sum(
        _try_account(account_id, partial(grant_monthly_credits, account_id, now=now), now=now)
        for account_id in due
    )


def draft_due_invoices(now: datetime) -> int:
    """Draft the invoice of each account whose open period is over; return how many.

    Safe to repeat.
    """
    drafted = Invoice.objects.filter(
        account=OuterRef("pk"),
        kind__in=BILLING_A_PERIOD,
        period_start=OuterRef("open_period_start"),
    ).exclude(status=Invoice.Status.VOID)
    due = list(
        Account.objects.filter(
            ~Exists(drafted), parked_reason="", open_period_end__lte=now
        ).order_by("open_period_end")[:ACCOUNTS_A_SWEEP]
    )
    count = draft_open_periods([account.pk for account in due], now=now)
    if count is not None:
        return count
    return sum(
        _try_account(
            account.pk,
            partial(draft_invoice, account.pk, period=account.open_period, now=now),
            now=now,
        )
        for account in due
    )


def finalise_due_invoices(now: datetime) -> int:
    """Finalise each draft whose grace is over and whose usage is complete; return how many.

    A draft that must wait keeps in `waiting_for` what it waits for. Safe to repeat.
    """
    due = Invoice.objects.filter(
        account__parked_reason="", status=Invoice.Status.DRAFT, finalise_after__lte=now
    ).order_by(F("tried_at").asc(nulls_first=True), "finalise_after")
    finalised = 0
    for invoice in due[:ACCOUNTS_A_SWEEP]:
        try:
            finalised += _try_account(
                invoice.account_id, partial(finalise_invoice, invoice.pk, now=now), now=now
            )
        except InvoiceNotReadyError as reason:
            _note_waiting(invoice, str(reason), now=now)
    return finalised


def expire_due_credits(now: datetime) -> int:
    """Let credits lapse that no open period may use any more; return of how many accounts.

    Safe to repeat.
    """
    due = accounts_with_lapsed_credit(now).order_by("account_id").distinct()[:ACCOUNTS_A_SWEEP]
    return sum(
        _try_account(account_id, partial(expire_due_credits_of, account_id, now=now), now=now)
        for account_id in due
    )


def request_due_top_ups(now: datetime) -> int:
    """Ask for prepaid credit where an account holds less than its threshold; return of how many.

    Safe to repeat: an account has one automatic top-up waiting.
    """
    waiting = TopUp.objects.filter(
        account=OuterRef("pk"), is_automatic=True, grant__isnull=True, given_up_at__isnull=True
    )
    prepaid = (
        CreditEntry.objects.filter(grant__account=OuterRef("pk"), grant__kind=CreditKind.PREPAID)
        .values("grant__account")
        .annotate(balance=Sum("amount"))
        .values("balance")
    )
    due = Account.objects.filter(
        ~Exists(waiting),
        parked_reason="",
        # Looked at first, so that nothing is summed up for accounts that ask for none.
        top_up_threshold__isnull=False,
        top_up_threshold__gt=Coalesce(Subquery(prepaid), Value(Decimal(0))),
    ).order_by("pk")[:ACCOUNTS_A_SWEEP]
    return sum(
        _try_account(account.pk, partial(request_due_top_up, account.pk, now=now), now=now)
        for account in due
    )


def _note_waiting(invoice: Invoice, reason: str, *, now: datetime) -> None:
    if invoice.waiting_for != reason:
        logger.warning("invoice waits for %s", reason, extra={"invoice_id": invoice.pk})
    Invoice.objects.filter(pk=invoice.pk, status=Invoice.Status.DRAFT).update(
        tried_at=now, waiting_for=reason
    )


def _try_account(account_id: UUID, work: Callable[[], object], *, now: datetime) -> bool:
    """Return whether the work was done; an account that it fails for is parked and logged."""
    try:
        with transaction.atomic():
            work()
    except (InvoiceNotReadyError, SoftTimeLimitExceeded):
        # The one is for the caller; the other tells the task to end, and nothing of the account.
        raise
    except (Invoice.DoesNotExist, PeriodNotOpenError):
        # Another sweep was quicker: the draft was of nothing and is gone, its period closed.
        return False
    except OperationalError:
        # A lost connection or a held lock says nothing about the account; the next sweep retries.
        if not connection.is_usable():
            raise
        logger.warning("account is busy", exc_info=True, extra={"account_id": account_id})
        return False
    except Exception as error:
        logger.exception("account is parked", extra={"account_id": account_id})
        park_account(account_id, reason=f"{type(error).__name__}: {error}", now=now)
        return False
    return True
