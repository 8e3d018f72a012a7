"""Subscriptions at the provider beside ours: made, moved and ended as our plans are.

What is wanted stands in billing, and a sweep brings the provider in step.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from celery.exceptions import SoftTimeLimitExceeded
from django.db import IntegrityError, transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet

from billing.models import Subscription
from metering.period import WINDOW
from payments.models import Difference, FeeSubscription, ProviderCall
from payments.provider import (
    BrokenError,
    NotFoundError,
    ProviderError,
    ProviderSubscription,
    RefusedError,
    SubscriptionOrder,
)
from payments.services.calling import Call, is_repeatable, last_call, make_call, note_done
from payments.services.customers import ensure_customer
from payments.services.differences import Found, note_difference
from payments.services.fee_differences import note_fee_differences
from payments.services.forgotten import find_forgotten_subscription
from payments.services.pausing import pause_after
from payments.services.provider_subscriptions import (
    ENDS,
    MOVE,
    asked_of,
    is_asking,
    take_over,
)
from payments.services.providing import is_set_up, provider

logger = logging.getLogger(__name__)

LEASE = timedelta(seconds=45)
SUBSCRIPTIONS_A_SWEEP = 200
CLOCKS_APART = timedelta(minutes=1)
"""The provider's clock may be behind ours by so much: no fee may begin there before the plan."""
LOOKED_AFTER = timedelta(hours=1)
"""A subscription is looked at so long after the last time, whether or not an event came."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What billing wants of the provider: the price now, and the one from the next period on.

    Empty: the provider collects no fee then.
    """

    price_now: str
    price_next: str
    tier: str


def bring_subscriptions_in_step(now: datetime) -> int:
    """Do at the provider what billing wants, for those whose turn it is; return how many.

    Safe to repeat.
    """
    if not is_set_up():
        return 0
    accounts = _accounts_to_look_at(now)
    for looked_at, account_id in enumerate(accounts, start=1):
        if not bring_in_step(account_id, now=now):
            return looked_at
    return len(accounts)


def bring_in_step(account_id: UUID, *, now: datetime) -> bool:
    """Do at the provider what billing wants for one account. Safe to repeat.

    What the provider refuses is listed as a difference; where it does not answer it is tried
    later. Returns whether the provider is worth another one: False when it is out of reach.
    """
    fees = _claim(account_id, now=now)
    if fees is None:
        return True
    try:
        _step(fees, wanted(account_id, fees, now=now), now=now)
        note_fee_differences(fees, now=now)
    except (RefusedError, NotFoundError) as error:
        _note_refusal(fees, error, now=now)
        _pause(fees, error, now=now)
    except ProviderError as error:
        _pause(fees, error, now=now)
        return isinstance(error, BrokenError)
    except SoftTimeLimitExceeded:
        raise
    except Exception as error:
        # Whatever it is, it is this account's alone.
        logger.exception("subscription failed", extra={"account_id": account_id})
        _pause(fees, error, now=now)
    else:
        FeeSubscription.objects.filter(pk=fees.pk).update(
            claimed_until=None, failures=0, waiting_for="", try_at=now + LOOKED_AFTER
        )
    return True


def wanted(account_id: UUID, fees: FeeSubscription, *, now: datetime) -> Wanted:
    """Return what billing wants of the provider for the account."""
    now_on = _plan_at(account_id, now)
    # The provider asks in advance: at the period's end it has to be known what comes.
    next_on = _plan_at(account_id, fees.period_end) if fees.period_end else now_on
    return Wanted(
        price_now=now_on.provider_price_id if now_on else "",
        price_next=next_on.provider_price_id if next_on else "",
        tier=now_on.plan.code if now_on else "",
    )


def _plan_at(account_id: UUID, moment: datetime) -> Subscription | None:
    return (
        Subscription.objects.filter(
            Q(expires_at__isnull=True) | Q(expires_at__gt=moment),
            account_id=account_id,
            started_at__lte=moment,
        )
        .select_related("plan")
        .first()
    )


def _accounts_to_look_at(now: datetime) -> list[UUID]:
    live = FeeSubscription.objects.filter(ended_at__isnull=True)
    lacking = (
        Subscription.objects.filter(
            # What was cancelled at once goes on to the end of its window: none is begun for that.
            Q(expires_at__isnull=True) | Q(expires_at__gt=now + WINDOW),
            started_at__lte=now - CLOCKS_APART,
            account__parked_reason="",
        )
        .exclude(provider_price_id="")
        .exclude(account__in=live.values("account_id"))
        .order_by("started_at")
        .values_list("account_id", flat=True)
    )
    turn = (
        _due(live, now)
        .order_by("try_at")
        .values_list("account_id", flat=True)[:SUBSCRIPTIONS_A_SWEEP]
    )
    return list(dict.fromkeys([*turn, *lacking[:SUBSCRIPTIONS_A_SWEEP]]))


def _due(live: QuerySet[FeeSubscription], now: datetime) -> QuerySet[FeeSubscription]:
    """Return those whose turn it is, and at once those that are not as billing wants them."""
    plans = Subscription.objects.filter(account=OuterRef("account")).exclude(provider_price_id="")

    def holds_at(moment: Any) -> Exists:
        return Exists(
            plans.filter(
                Q(expires_at__isnull=True) | Q(expires_at__gt=moment), started_at__lte=moment
            )
        )

    def is_price_at(moment: Any) -> Exists:
        return Exists(
            plans.filter(
                Q(expires_at__isnull=True) | Q(expires_at__gt=moment),
                started_at__lte=moment,
                provider_price_id=OuterRef("asked_price_id"),
            )
        )

    next_on = OuterRef("period_end")
    is_out_of_step = (
        ~Q(holds_at(now))
        | (Q(asked_to_end=False) & ~Q(is_price_at(next_on)))
        | (Q(asked_to_end=True) & Q(holds_at(next_on)))
    )
    return live.filter(
        Q(try_at__lte=now) | (Q(failures=0, provider_id__isnull=False) & is_out_of_step)
    )


def _claim(account_id: UUID, *, now: datetime) -> FeeSubscription | None:
    """Return the account's live row, made if it wants one, nobody else's for the lease."""
    fees = FeeSubscription.objects.filter(account_id=account_id, ended_at__isnull=True).first()
    if fees is None:
        plan = _plan_at(account_id, now)
        if plan is None or not plan.provider_price_id or plan != _plan_at(account_id, now + WINDOW):
            return None
        try:
            with transaction.atomic():
                fees = FeeSubscription.objects.create(
                    account_id=account_id,
                    asked_price_id=plan.provider_price_id,
                    started_at=now,
                    try_at=now,
                )
        except IntegrityError:
            # Another worker was quicker.
            return None
    free = Q(claimed_until__isnull=True) | Q(claimed_until__lte=now)
    claimed = FeeSubscription.objects.filter(free, pk=fees.pk).update(claimed_until=now + LEASE)
    return FeeSubscription.objects.get(pk=fees.pk) if claimed else None


def _step(fees: FeeSubscription, want: Wanted, *, now: datetime) -> None:
    if fees.provider_id is None:
        if not want.price_now:
            _forget(fees, now=now)
            return
        take_over(fees, _make(fees, want, now=now), now=now)
        return
    found = provider().subscription(fees.provider_id)
    take_over(fees, found, now=now)
    fees.refresh_from_db()
    if fees.ended_at:
        return
    want = wanted(fees.account_id, fees, now=now)
    if not want.price_now:
        _end(fees, now=now)
        return
    found = _bring_price_in_step(fees, found, want, now=now)
    ends = not want.price_next
    if found.cancels_at_period_end != ends or is_asking(fees, ENDS):
        _let_end(fees, ends=ends, now=now)


def _bring_price_in_step(
    fees: FeeSubscription, found: ProviderSubscription, want: Wanted, *, now: datetime
) -> ProviderSubscription:
    moving = asked_of(fees, MOVE).first() if is_asking(fees, MOVE) else None
    if moving and found.price_id == fees.asked_price_id:
        note_done(moving)
        moving = None
    _note_paid(fees)
    is_at_once = want.price_now not in {fees.paid_price_id, ""}
    if is_at_once and (moving or fees.asked_price_id != want.price_now):
        # At once: the rest of the period is charged, less what was paid for it.
        found = _move(fees, found, want.price_now, want.tier, at_once=True, now=now)
        moving = None
    if want.price_next and (moving or fees.asked_price_id != want.price_next):
        found = _move(fees, found, want.price_next, want.tier, at_once=False, now=now)
    return found


def _make(fees: FeeSubscription, want: Wanted, *, now: datetime) -> ProviderSubscription:
    stripe = provider()
    customer_id = ensure_customer(fees.account_id, now=now)
    key = f"{fees.pk}-create"
    named = {"fee_subscription_id": str(fees.pk)}
    was_asked = last_call(key) and not is_repeatable(key, now=now)
    if was_asked and (found := stripe.find_subscriptions(customer_id, named)):
        return found[0]
    if forgotten := find_forgotten_subscription(fees, customer_id):
        return forgotten
    order = SubscriptionOrder(
        customer_id,
        fees.asked_price_id,
        {**named, "account_id": str(fees.account_id), "tier": want.tier},
    )
    return make_call(
        _call(fees, key, "subscriptions.create", {"order": order}),
        lambda once: stripe.create_subscription(order, key=once),
        now=now,
    )


def _move(
    fees: FeeSubscription,
    found: ProviderSubscription,
    price_id: str,
    tier: str,
    *,
    at_once: bool,
    now: datetime,
) -> ProviderSubscription:
    when = "now" if at_once else "next"
    key = _key(fees, MOVE, f"{tier}-{price_id}-{when}-{fees.period_start:%Y%m%d}")

    def change(once: str) -> ProviderSubscription:
        # Before it is asked, so that the event about it is known for ours; after the call was
        # written down, so that whoever follows knows that it may not have been asked.
        _ask(fees, asked_price_id=price_id)
        return provider().change_subscription(
            found, price_id=price_id, metadata={"tier": tier}, at_once=at_once, key=once
        )

    asked = {"price": price_id, "at_once": at_once}
    moved = make_call(_call(fees, key, "subscriptions.update", asked), change, now=now)
    _note_paid(fees)
    return moved


def _note_paid(fees: FeeSubscription) -> None:
    """Write down what the period is paid at, when it was changed at once."""
    last = asked_of(fees, MOVE).first()
    if last is None or last.outcome != ProviderCall.Outcome.DONE:
        return
    if f"-{fees.asked_price_id}-now-{fees.period_start:%Y%m%d}" in last.key:
        FeeSubscription.objects.filter(pk=fees.pk).update(paid_price_id=fees.asked_price_id)
        fees.paid_price_id = fees.asked_price_id


def _let_end(fees: FeeSubscription, *, ends: bool, now: datetime) -> None:
    subscription_id = str(fees.provider_id)

    def change(once: str) -> ProviderSubscription:
        _ask(fees, asked_to_end=ends)
        return provider().cancel_subscription(subscription_id, at_period_end=ends, key=once)

    call = _call(
        fees, _key(fees, ENDS, str(ends)), "subscriptions.update", {"cancel_at_period_end": ends}
    )
    make_call(call, change, now=now)


def _key(fees: FeeSubscription, what: str, how: str) -> str:
    """Return the name of a call: the last one's while that has no answer, else a new one.

    The same is asked for many times in a period, whenever the customer changes their mind.
    """
    asked = asked_of(fees, what)
    last = asked.first()
    if last and last.outcome in {ProviderCall.Outcome.OPEN, ProviderCall.Outcome.BROKEN}:
        # Without the number of its generation.
        name = last.key.partition(".")[0]
        if name.endswith(f"-{how}"):
            return name
    return f"{fees.pk}-{what}-{asked.count() + 1}-{how}"


def _end(fees: FeeSubscription, *, now: datetime) -> None:
    subscription_id = str(fees.provider_id)
    _ask(fees, asked_to_end=True)
    ended = make_call(
        _call(fees, f"{fees.pk}-end", "subscriptions.cancel", {"subscription": subscription_id}),
        lambda once: provider().end_subscription(subscription_id, key=once),
        now=now,
    )
    take_over(fees, ended, now=now)


def _forget(fees: FeeSubscription, *, now: datetime) -> None:
    """End what is not wanted any more before it was made, as far as we know."""
    if last_call(f"{fees.pk}-create"):
        customer_id = ensure_customer(fees.account_id, now=now)
        found = provider().find_subscriptions(customer_id, {"fee_subscription_id": str(fees.pk)})
        if found:
            take_over(fees, found[0], now=now)
            _end(FeeSubscription.objects.get(pk=fees.pk), now=now)
            return
    FeeSubscription.objects.filter(pk=fees.pk).update(ended_at=now, claimed_until=None)


def _note_refusal(fees: FeeSubscription, error: ProviderError, *, now: datetime) -> None:
    note_difference(
        Found(
            kind=Difference.Kind.SUBSCRIPTION_DIFFERS,
            subject=fees.provider_id or str(fees.pk),
            account_id=fees.account_id,
            ours=f"Price {fees.asked_price_id} is wanted",
            theirs=f"The provider refuses: {error}",
            proposed_action="Put right what the provider names; it is tried again by itself.",
        ),
        now=now,
    )


def _ask(fees: FeeSubscription, **asked: str | bool) -> None:
    FeeSubscription.objects.filter(pk=fees.pk).update(**asked)
    for name, value in asked.items():
        setattr(fees, name, value)


def _call(fees: FeeSubscription, key: str, operation: str, asked: dict[str, object]) -> Call:
    return Call(key, operation, fees.account_id, asked)


def _pause(fees: FeeSubscription, error: Exception, *, now: datetime) -> None:
    logger.warning("subscription waits: %s", error, extra={"account_id": fees.account_id})
    FeeSubscription.objects.filter(pk=fees.pk).update(
        failures=F("failures") + 1,
        try_at=now + pause_after(fees.failures),
        waiting_for=str(error),
        claimed_until=None,
    )
