from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import F, Q

from billing.facts import period_containing, schedule_of, subscribed
from billing.fees import Interval, commitment_end, year_of
from billing.models import Account, Invoice, Plan, Subscription
from billing.periods import window_end
from billing.services.accounts import lock_account, refuse_closing
from billing.services.credits import grant_period_credits, revoke_unearned_credits
from billing.services.statements import discard_drafts
from billing.services.subscription_events import tells_changes
from billing.services.terms import (
    PLANS_OWN_TERMS,
    AgreedTerms,
    SubscriptionRefusedError,
    fee_a_month,
    make_subscription,
    terms_of,
)

_SECOND = timedelta(seconds=1)


@tells_changes
def subscribe(
    account_id: UUID,
    *,
    plan_code: str,
    now: datetime,
    interval: Interval = Interval.MONTHLY,
    agreed: AgreedTerms = PLANS_OWN_TERMS,
) -> Subscription:
    """Put the account on a plan from `now` on, in place of the plan it is on, if any.

    Fee and credits of the old plan end with this second, those of the new one begin. A change
    that was put off is dropped. Safe to repeat: an account that is on the plan at these terms
    stays as it is. Raises SubscriptionRefusedError, Plan.DoesNotExist.
    """
    plan = Plan.objects.select_related("price_book").get(code=plan_code)
    started_at = now.replace(microsecond=0)
    with transaction.atomic():
        account = lock_account(account_id)
        refuse_closing(account)
        _refuse_unless_fitting(account, plan, started_at)
        subscription = make_subscription(account, plan, now, interval=interval, agreed=agreed)
        active = _active(account, started_at)
        if active and active.ends_period and active.expires_at:
            # Cancelled at once: that period ends with its window, and this starts the next.
            return _follow(account, subscription, at=active.expires_at)
        if active and terms_of(active) == terms_of(subscription):
            _take_back_changes(account, active, started_at)
            return active
        if active:
            _refuse_less_at_the_provider(active, subscription)
        _drop_changes_to_come(account, started_at)
        if active:
            _end(account, active, at=started_at, now=now)
        subscription.save(force_insert=True)
        grant_period_credits(account, period_containing(account, started_at), now=now)
    return subscription


@tells_changes
def choose_plan(
    account_id: UUID, *, plan_code: str, now: datetime, interval: Interval = Interval.MONTHLY
) -> Subscription:
    """Put the account on an offered plan, as a customer does by itself.

    To a plan with a higher fee at once; to one with a lower fee from the next period on, or from
    the end of the year or the commitment that is paid for. Choosing the plan it is on takes a
    change or a cancellation back. Safe to repeat. Raises SubscriptionRefusedError,
    Plan.DoesNotExist.
    """
    plan = Plan.objects.get(code=plan_code)
    if plan.is_custom:
        raise SubscriptionRefusedError(
            f"{plan} has prices and a fee that are agreed with each customer. Contact sales."
        )
    if not plan.is_offered:
        raise SubscriptionRefusedError(f"{plan} is not offered any more. Choose another plan.")
    with transaction.atomic():
        account = lock_account(account_id)
        active = _active(account, now)
        wanted = make_subscription(account, plan, now, interval=interval, agreed=PLANS_OWN_TERMS)
        if active is None or active.ends_period:
            return subscribe(account_id, plan_code=plan_code, now=now, interval=interval)
        if (active.plan_id, active.interval) == (plan.pk, interval):
            return resume_subscription(account_id, now=now)
        if active.plan.is_custom:
            raise SubscriptionRefusedError(
                f"The account is on {active.plan} at agreed terms. Contact sales to change it."
            )
        if fee_a_month(wanted) > fee_a_month(active):
            committed_until = _committed_until(account, active)
            if committed_until and now < committed_until:
                # The new subscription has no minimum, and could be cancelled the next minute.
                raise SubscriptionRefusedError(
                    f"The account is committed until {committed_until}. Contact sales to change "
                    "its plan before."
                )
            return subscribe(account_id, plan_code=plan_code, now=now, interval=interval)
        return change_plan_at_end(account_id, plan_code=plan_code, now=now, interval=interval)


@tells_changes
def change_plan_at_end(
    account_id: UUID,
    *,
    plan_code: str,
    now: datetime,
    interval: Interval = Interval.MONTHLY,
    agreed: AgreedTerms = PLANS_OWN_TERMS,
) -> Subscription:
    """Put the account on another plan when what it is on ends: its period, year or commitment.

    It replaces a change that was put off before. Safe to repeat. Raises
    SubscriptionRefusedError, Plan.DoesNotExist.
    """
    plan = Plan.objects.get(code=plan_code)
    with transaction.atomic():
        account = lock_account(account_id)
        active = _need_active(account, now)
        refuse_closing(account)
        _refuse_unless_fitting(account, plan, now)
        _take_back_changes(account, active, now)
        ends_at = _end_of(account, active, now)
        _end(account, active, at=ends_at, now=now)
        following = make_subscription(account, plan, now, interval=interval, agreed=agreed)
        following.trial_ends_at = None
        return _follow(account, following, at=ends_at)


@tells_changes
def cancel_subscription(account_id: UUID, *, now: datetime) -> Subscription:
    """Let the account's subscription end with its period, year or commitment.

    Until then it can be resumed. In a trial it ends with the trial. Safe to repeat. Raises
    SubscriptionRefusedError.
    """
    with transaction.atomic():
        account = lock_account(account_id)
        active = _need_active(account, now)
        if active.ends_period:
            return active
        _take_back_changes(account, active, now)
        _end(account, active, at=_end_of(account, active, now), now=now)
    return active


@tells_changes
def cancel_subscription_now(account_id: UUID, *, now: datetime) -> Subscription:
    """End the account's subscription with this window, and its billing period with it.

    The final invoice is due as soon as the grace for late readings is over. Safe to repeat.
    Raises SubscriptionRefusedError, also inside a commitment.
    """
    with transaction.atomic():
        account = lock_account(account_id)
        active = _need_active(account, now)
        if active.ends_period:
            return active
        _refuse_committed(account, active, now)
        _take_back_changes(account, active, now)
        ends_at = window_end(now)
        active.ends_period = True
        _end(account, active, at=ends_at, now=now)
        _cut_period(account, ends_at)
    return active


def refuse_committed(account: Account, now: datetime) -> None:
    """Raise SubscriptionRefusedError while the account is committed to what it is on."""
    if active := _active(account, now):
        _refuse_committed(account, active, now)


def end_for_good(account: Account, *, now: datetime) -> datetime:
    """End what the account is on, and what is to follow it, with this window; return its end.

    The billing period ends there too, also of an account on no plan. The caller has locked the
    account. Raises SubscriptionRefusedError.
    """
    active = _active(account, now)
    if active is None or active.ends_period:
        _drop_changes_to_come(account, now)
    else:
        active = cancel_subscription_now(account.pk, now=now)
    ends_at = active.expires_at if active and active.expires_at else window_end(now)
    account.refresh_from_db(fields=["open_period_end"])
    _cut_period(account, ends_at)
    return ends_at


@tells_changes
def resume_subscription(account_id: UUID, *, now: datetime) -> Subscription:
    """Take back a cancellation or a change that has not taken effect. Safe to repeat.

    Raises SubscriptionRefusedError when the subscription is over: choose a plan then.
    """
    with transaction.atomic():
        account = lock_account(account_id)
        active = _need_active(account, now)
        if active.ends_period:
            raise SubscriptionRefusedError(
                f"The subscription was cancelled at once and ends at {active.expires_at}. "
                "Choose a plan instead."
            )
        _take_back_changes(account, active, now)
    return active


def _follow(account: Account, subscription: Subscription, *, at: datetime) -> Subscription:
    """Start a subscription where another ends; return the one that is waiting if it is alike."""
    waiting = Subscription.objects.filter(account=account, started_at=at).first()
    if waiting and terms_of(waiting) == terms_of(subscription):
        return waiting
    _drop_changes_to_come(account, at - _SECOND)
    subscription.started_at = at
    subscription.save(force_insert=True)
    return subscription


def _active(account: Account, moment: datetime) -> Subscription | None:
    """Return what the account is on at `moment`."""
    return (
        Subscription.objects.filter(account=account, started_at__lte=moment)
        .filter(Q(expires_at__isnull=True) | Q(expires_at__gt=moment))
        .select_related("plan")
        .first()
    )


def _need_active(account: Account, now: datetime) -> Subscription:
    active = _active(account, now)
    if active is None:
        raise SubscriptionRefusedError("The account has no active subscription. Choose a plan.")
    return active


def _end_of(account: Account, active: Subscription, now: datetime) -> datetime:
    """Return when what is paid for or committed to ends."""
    if active.ends_period and active.expires_at:
        return active.expires_at
    terms, schedule = subscribed(active, account.currency), schedule_of(account)
    if active.provider_collects and (theirs := schedule.exact(now)):
        # To the second: what the provider collected for goes on past the edge of our period.
        return theirs.end
    if active.trial_ends_at and now < active.trial_ends_at:
        return active.trial_ends_at
    year = year_of(terms, now, schedule) if terms.interval is Interval.ANNUAL else None
    ends_at = year.end if year else period_containing(account, now).end
    return max(ends_at, _committed_until(account, active) or ends_at)


def _committed_until(account: Account, active: Subscription) -> datetime | None:
    terms = subscribed(active, account.currency)
    if terms.commitment is None:
        return None
    return commitment_end(terms.commitment, schedule_of(account), zone=terms.zone)


def _end(account: Account, subscription: Subscription, *, at: datetime, now: datetime) -> None:
    if at <= subscription.started_at:
        raise SubscriptionRefusedError(
            f"The account is on {subscription.plan} from {subscription.started_at} on, "
            f"which is not before {at}."
        )
    if subscription.interval == Interval.ANNUAL and at <= account.open_period_start:
        # What is unused of the year is given back in the period that it ends in.
        raise SubscriptionRefusedError(
            f"The year on {subscription.plan} cannot end at {at}: that period is closed. "
            f"Let it end after {account.open_period_start}."
        )
    subscription.expires_at = at
    subscription.save(update_fields=["expires_at", "ends_period"])
    # A later end may be taken back yet; finalising revokes what it leaves unearned.
    if at <= now or subscription.ends_period:
        revoke_unearned_credits(account, period_containing(account, at - _SECOND), now=now)


def _take_back_changes(account: Account, active: Subscription, now: datetime) -> None:
    """Let the active subscription go on: no end, and nothing that takes over from it."""
    _drop_changes_to_come(account, now)
    if active.expires_at and not active.ends_period:
        active.expires_at = None
        active.save(update_fields=["expires_at"])


def _drop_changes_to_come(account: Account, now: datetime) -> None:
    # A change that was put off is an intention, no fact: nothing rests on its row yet.
    put_off = Subscription.objects.filter(account=account, started_at__gt=now)
    put_off.filter(started_at__gt=F("recorded_at"), credit_grants__isnull=True).delete()
    # Another worker whose clock is ahead of ours was quicker: it began one, or brought its credit.
    if first := put_off.select_related("plan").order_by("started_at").first():
        raise SubscriptionRefusedError(
            f"The account is on {first.plan} from {first.started_at} on, which is not before {now}."
        )


def _refuse_committed(account: Account, active: Subscription, now: datetime) -> None:
    committed_until = _committed_until(account, active)
    if committed_until and now < committed_until:
        raise SubscriptionRefusedError(
            f"The account is committed until {committed_until}. Cancel to the end instead."
        )


def _cut_period(account: Account, ends_at: datetime) -> None:
    if account.open_period_start < ends_at < account.open_period_end:
        account.open_period_end = ends_at
        account.save(update_fields=["open_period_end"])
    _discard_drafts_past(account, ends_at)


def _discard_drafts_past(account: Account, ends_at: datetime) -> None:
    """Drop drafts of a period that was cut: the sweep drafts the shorter one when it is over."""
    drafts = Invoice.objects.filter(
        account=account,
        status=Invoice.Status.DRAFT,
        period_start__lt=ends_at,
        period_end__gt=ends_at,
    )
    for draft in drafts:
        discard_drafts([draft])


def _refuse_less_at_the_provider(active: Subscription, wanted: Subscription) -> None:
    """Refuse a lower fee at once where the provider has collected the higher one in advance."""
    if active.provider_collects and wanted.provider_collects and wanted.fee < active.fee:
        raise SubscriptionRefusedError(
            f"The provider has collected the fee of {active.plan} in advance. Change to "
            f"{wanted.plan} at the end, or cancel at once first."
        )


def _refuse_unless_fitting(account: Account, plan: Plan, started_at: datetime) -> None:
    if plan.currency != account.currency:
        raise SubscriptionRefusedError(
            f"{plan} is priced in {plan.currency}, the account pays in {account.currency}."
        )
    if started_at < account.open_period_start:
        raise SubscriptionRefusedError(
            f"{started_at} lies before {account.open_period_start}; those periods are closed."
        )
