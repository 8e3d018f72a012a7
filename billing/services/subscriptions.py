from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.db import transaction

from billing.models import Account, Plan, Subscription
from billing.periods import month_containing
from billing.services.accounts import lock_account
from billing.services.credits import grant_period_credits, revoke_unused_part


class SubscriptionRefusedError(Exception):
    """The account cannot be on this plan from this moment; the message says why."""


def subscribe(
    account_id: UUID, *, plan_code: str, now: datetime, monthly_fee: Decimal | None = None
) -> Subscription:
    """Put the account on a plan from `now` on, in place of the plan it is on, if any.

    Fee and credits of the old plan end with this second, those of the new one begin. A plan
    without a fee of its own needs the agreed `monthly_fee`. Safe to repeat: an account that is
    on the plan for this fee stays as it is. Raises SubscriptionRefusedError, Plan.DoesNotExist.
    """
    plan = Plan.objects.get(code=plan_code)
    fee = plan.monthly_fee if monthly_fee is None else monthly_fee
    if fee is None:
        raise SubscriptionRefusedError(f"{plan} has no fee of its own: agree one.")
    started_at = now.replace(microsecond=0)
    with transaction.atomic():
        account = lock_account(account_id)
        _refuse_unless_fitting(account, plan, started_at)
        active = Subscription.objects.filter(account=account, ended_at__isnull=True).first()
        if active and (active.plan_id, active.monthly_fee) == (plan.pk, fee):
            return active
        if active:
            _end_subscription(account, active, ended_at=started_at, now=now)
        subscription = Subscription.objects.create(
            account=account,
            plan=plan,
            monthly_fee=fee,
            monthly_credits=plan.monthly_credits,
            started_at=started_at,
        )
        grant_period_credits(account, month_containing(started_at, account.zone), now=now)
    return subscription


def _refuse_unless_fitting(account: Account, plan: Plan, started_at: datetime) -> None:
    if plan.currency != account.currency:
        raise SubscriptionRefusedError(
            f"{plan} is priced in {plan.currency}, the account pays in {account.currency}."
        )
    if started_at < account.open_period_start:
        raise SubscriptionRefusedError(
            f"{started_at} lies before {account.open_period_start}; those periods are closed."
        )


def _end_subscription(
    account: Account, subscription: Subscription, *, ended_at: datetime, now: datetime
) -> None:
    if ended_at <= subscription.started_at:
        raise SubscriptionRefusedError(
            f"The account is on {subscription.plan} from {subscription.started_at} on, "
            f"which is not before {ended_at}."
        )
    subscription.ended_at = ended_at
    subscription.save(update_fields=["ended_at"])
    revoke_unused_part(account, subscription, now=now)
