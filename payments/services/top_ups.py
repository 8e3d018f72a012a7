"""Prepaid credit that was asked for, by a person or by itself: collected, or given up."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, Q

from billing.models import Account, TopUp
from billing.money import Money
from billing.services import give_up_top_up, lock_account
from billing.services.top_ups import prepaid_balance
from payments.models import LIVE_ATTEMPT, Collection, CollectionPart, PaymentAttempt
from payments.services.collections import Asked, collect_top_up, take_back
from payments.services.one_by_one import try_each
from payments.services.providing import is_set_up, provider

TOP_UPS_A_SWEEP = 500
DAY = timedelta(hours=24)
PAUSE = timedelta(hours=1)
"""After a card that failed, before an automatic top-up is tried again."""
PAGE_OPEN_FOR = timedelta(days=7)
"""So long a customer may pay a top-up of their own on the provider's page after the card failed."""
_FAILED = (PaymentAttempt.Status.FAILED, PaymentAttempt.Status.ACTION_REQUIRED)


def collect_due_top_ups(now: datetime) -> int:
    """Begin to collect the top-ups that wait, or give them up; return for how many it was looked.

    An automatic one is given up when its card fails or nobody wants it any more, and an account
    is charged for AUTOMATIC_TOP_UPS_A_DAY of them in 24 h at most, those that failed included.
    Safe to repeat. Without a provider nothing is done.
    """
    if not is_set_up():
        return 0
    live = CollectionPart.objects.filter(top_up=OuterRef("pk"), is_live=True)
    waiting = TopUp.objects.filter(
        ~Exists(live), grant__isnull=True, given_up_at__isnull=True, account__parked_reason=""
    ).order_by("pk")
    return try_each(
        list(waiting.values_list("pk", flat=True)[:TOP_UPS_A_SWEEP]), partial(_begin, now=now)
    )


def take_back_failed_top_ups(now: datetime) -> int:
    """Have collections of top-ups taken back whose card failed; return how many. Repeatable.

    Of one that the customer asked for only after some days: the provider's page is open to them.
    """
    tried = PaymentAttempt.objects.filter(LIVE_ATTEMPT, collection=OuterRef("pk"))
    over = Q(parts__top_up__is_automatic=True) | Q(opened_at__lte=now - PAGE_OPEN_FOR)
    resting = Collection.objects.filter(
        ~Exists(tried),
        over,
        status=Collection.Status.OPEN,
        void_reason="",
        parts__top_up__isnull=False,
    ).distinct()
    return try_each(list(resting[:TOP_UPS_A_SWEEP]), partial(_take_back, now=now))


def _take_back(collection: Collection, *, now: datetime) -> None:
    with transaction.atomic():
        lock_account(collection.account_id)
        take_back(collection, reason="The top-up was not paid", now=now)


def _begin(top_up_id: int, *, now: datetime) -> None:
    account_id = TopUp.objects.values_list("account_id", flat=True).get(pk=top_up_id)
    with transaction.atomic():
        account = lock_account(account_id)
        top_up = TopUp.objects.get(pk=top_up_id)
        if top_up.grant_id or top_up.given_up_at:
            return
        if _was_tried(top_up) or not _is_wanted(account, top_up):
            give_up_top_up(top_up_id, now=now)
        elif _is_turn(account, top_up, now=now):
            collect_top_up(top_up_id, Asked(PaymentAttempt.Trigger.TOP_UP), now=now)


def _was_tried(top_up: TopUp) -> bool:
    """Return whether its card failed, and what the provider asked for it was taken back."""
    return PaymentAttempt.objects.filter(
        collection__parts__top_up=top_up, status__in=_FAILED
    ).exists()


def _is_wanted(account: Account, top_up: TopUp) -> bool:
    """Return whether it can be charged for, and would be asked for again if it were not there."""
    if not top_up.is_automatic:
        return not _is_too_small(account, top_up)
    threshold: Decimal | None = account.top_up_threshold
    if threshold is None or account.top_up_amount != top_up.amount:
        return False
    return prepaid_balance(account) < threshold


def _is_too_small(account: Account, top_up: TopUp) -> bool:
    return Money(top_up.amount, account.currency) < provider().smallest_charge(account.currency)


def _is_turn(account: Account, top_up: TopUp, *, now: datetime) -> bool:
    """Return whether the account may be charged for it now."""
    if not top_up.is_automatic:
        return True
    if _is_too_small(account, top_up):
        # Given up, it would be asked for again at once; it waits for another amount instead.
        return False
    most: int = settings.AUTOMATIC_TOP_UPS_A_DAY
    begun = Collection.objects.filter(
        account=account, parts__top_up__is_automatic=True, started_at__gt=now - DAY
    ).distinct()
    failed = begun.filter(attempts__status__in=_FAILED, attempts__ended_at__gt=now - PAUSE)
    return begun.count() < most and not failed.exists()
