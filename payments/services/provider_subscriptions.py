"""How a subscription stands at the provider, taken over here: its period, its end, its price."""

from __future__ import annotations

import logging
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet

from billing.models import Subscription
from billing.services import (
    ProviderPeriodRefusedError,
    SubscriptionRefusedError,
    cancel_subscription,
    cancel_subscription_now,
    give_back_unused_fees,
    lock_account,
    resume_subscription,
    take_provider_period,
)
from payments.models import Difference, FeeSubscription, ProviderCall
from payments.provider import ProviderSubscription
from payments.services.differences import Found, note_difference
from payments.services.providing import provider

logger = logging.getLogger(__name__)

ENDED = frozenset({"canceled", "incomplete_expired"})
"""Stripe's words for a subscription that asks for nothing any more."""
MOVE, ENDS = "move", "ends"
"""What we ask of a subscription, in the names of the calls: another price; to end or go on."""


def take_subscription(subscription_id: str, *, now: datetime) -> bool:
    """Take over how a subscription stands at the provider; return whether it is one of ours.

    Forward only, and safe to repeat: what counts is how it stands there now. Raises ProviderError.
    """
    found = provider().subscription(subscription_id)
    fees = fee_subscription_of(found)
    if fees is None:
        return False
    take_over(fees, found, now=now)
    return True


def fee_subscription_of(found: ProviderSubscription) -> FeeSubscription | None:
    """Return which of ours a provider's subscription is; None: it is not ours."""
    if fees := FeeSubscription.objects.filter(provider_id=found.id).first():
        return fees
    try:
        named = UUID(found.metadata.get("fee_subscription_id", ""))
    except ValueError:
        return None
    return FeeSubscription.objects.filter(pk=named, provider_id__isnull=True).first()


def asked_of(fees: FeeSubscription, what: str) -> QuerySet[ProviderCall]:
    """Return the calls that asked it of the provider, the newest first."""
    return ProviderCall.objects.filter(key__startswith=f"{fees.pk}-{what}-").order_by("-pk")


def is_asking(fees: FeeSubscription, what: str) -> bool:
    """Return whether the last call that asked it was not answered with yes."""
    last = asked_of(fees, what).first()
    return last is not None and last.outcome != ProviderCall.Outcome.DONE


def take_over(fees: FeeSubscription, found: ProviderSubscription, *, now: datetime) -> None:
    """Take over how `found`, the account's subscription at the provider, stands. Repeatable."""
    has_ended = found.status in ENDED
    with transaction.atomic():
        lock_account(fees.account_id)
        fees.refresh_from_db()
        if fees.ended_at or (fees.period_start and found.period.start < fees.period_start):
            return
        renewed = fees.period_start != found.period.start
        ends_there = found.cancels_at_period_end and not has_ended
        # While we ask, how it stands there is not what somebody wants: it is what was before.
        ends_wanted = fees.asked_to_end if is_asking(fees, ENDS) else ends_there
        was_asked = fees.asked_to_end
        FeeSubscription.objects.filter(pk=fees.pk).update(
            provider_id=found.id,
            status=found.status,
            period_start=found.period.start,
            period_end=found.period.end,
            paid_price_id=found.price_id if renewed else fees.paid_price_id,
            asked_to_end=has_ended or ends_wanted,
            ended_at=(found.ended_at or now) if has_ended else None,
            looked_at=now,
        )
        _follow(fees.account_id, found, now=now)
        if has_ended:
            _end_ours(fees, now=now)
        elif ends_wanted != was_asked:
            _end_or_resume_ours(fees, ends=ends_wanted, now=now)
    if has_ended:
        give_back_unused_fees(fees.account_id, now=now)
    is_other = found.price_id != fees.asked_price_id and not is_asking(fees, MOVE)
    if is_other and not has_ended:
        _note_price(fees, found, now=now)


def _follow(account_id: UUID, found: ProviderSubscription, *, now: datetime) -> None:
    try:
        with transaction.atomic():
            take_provider_period(account_id, found.period, now=now)
    except ProviderPeriodRefusedError as error:
        if found.status not in ENDED:
            logger.warning("provider's period: %s", error, extra={"account_id": account_id})


def _end_ours(fees: FeeSubscription, *, now: datetime) -> None:
    """Cancel our plan if it goes on, though the provider collects its fee no more.

    It was ended there, by staff or because it gave the fee up.
    """
    goes_on = (
        Subscription.objects.filter(
            Q(expires_at__isnull=True) | Q(expires_at__gt=now),
            account_id=fees.account_id,
            started_at__lte=now,
        )
        .exclude(provider_price_id="")
        .exists()
    )
    if not goes_on:
        return
    try:
        with transaction.atomic():
            cancel_subscription_now(fees.account_id, now=now)
    except SubscriptionRefusedError as error:
        _note_refusal(fees, error, theirs="It has ended", now=now)


def _end_or_resume_ours(fees: FeeSubscription, *, ends: bool, now: datetime) -> None:
    change = cancel_subscription if ends else resume_subscription
    try:
        with transaction.atomic():
            change(fees.account_id, now=now)
    except SubscriptionRefusedError as error:
        theirs = "It ends with its period" if ends else "It goes on"
        _note_refusal(fees, error, theirs=theirs, now=now)


def _note_refusal(
    fees: FeeSubscription, error: SubscriptionRefusedError, *, theirs: str, now: datetime
) -> None:
    note_difference(
        Found(
            kind=Difference.Kind.SUBSCRIPTION_DIFFERS,
            subject=str(fees.provider_id),
            account_id=fees.account_id,
            ours=f"The plan cannot follow: {error}",
            theirs=theirs,
            proposed_action="Change the plan here, or the subscription at the provider.",
        ),
        now=now,
    )


def _note_price(fees: FeeSubscription, found: ProviderSubscription, *, now: datetime) -> None:
    note_difference(
        Found(
            kind=Difference.Kind.SUBSCRIPTION_DIFFERS,
            subject=found.id,
            account_id=fees.account_id,
            ours=f"Price {fees.asked_price_id} was asked for",
            theirs=f"It is on price {found.price_id}",
            proposed_action="Change the plan here, or take the price back at the provider.",
        ),
        now=now,
    )
