"""What the clock does: find what is due and do it, each account in its own savepoint."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from functools import partial

from django.db.models import Exists, OuterRef, Q, Subquery, Sum, Value
from django.db.models.functions import Coalesce

from billing.credits import CreditKind
from billing.models import Account, CreditEntry, CreditGrant, Subscription, TopUp
from billing.services.credits import (
    accounts_with_lapsed_credit,
    expire_due_credits_of,
    grant_monthly_credits,
)
from billing.services.top_ups import request_due_top_up
from billing.services.trying import try_account

ACCOUNTS_A_SWEEP = 500


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
        try_account(account_id, partial(grant_monthly_credits, account_id, now=now), now=now)
        for account_id in due
    )


def expire_due_credits(now: datetime) -> int:
    """Let credits lapse that no open period may use any more; return of how many accounts.

    Safe to repeat.
    """
    due = accounts_with_lapsed_credit(now).order_by("account_id").distinct()[:ACCOUNTS_A_SWEEP]
    return sum(
        try_account(account_id, partial(expire_due_credits_of, account_id, now=now), now=now)
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
        try_account(account.pk, partial(request_due_top_up, account.pk, now=now), now=now)
        for account in due
    )
