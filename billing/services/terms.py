"""The terms that an account is on a plan at: the plan's own, or what was agreed with it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from billing.fees import MONTHS_OF_A_YEAR, Interval
from billing.models import Account, Plan, PriceBook, Subscription


class SubscriptionRefusedError(Exception):
    """The account cannot be on this plan like this; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class AgreedTerms:
    """What was agreed with one customer instead of the plan's own terms. None: the plan's.

    `fee` is for a period, or for a year of annual billing. A commitment has a minimum and a term.
    """

    fee: Decimal | None = None
    price_book: PriceBook | None = None
    monthly_credits: Decimal | None = None
    trial_days: int | None = None
    commitment_minimum: Decimal | None = None
    commitment_months: int | None = None


PLANS_OWN_TERMS = AgreedTerms()


def make_subscription(
    account: Account, plan: Plan, now: datetime, *, interval: Interval, agreed: AgreedTerms
) -> Subscription:
    """Return a subscription from `now` on at the plan's terms or the agreed ones, not saved.

    Raises SubscriptionRefusedError.
    """
    own_fee = plan.annual_fee if interval is Interval.ANNUAL else plan.monthly_fee
    fee = own_fee if agreed.fee is None else agreed.fee
    if plan.is_custom and (fee is None or agreed.price_book is None):
        raise SubscriptionRefusedError(
            f"{plan} has neither fee nor prices of its own: agree a fee, and give it a price "
            "book of the account."
        )
    if fee is None:
        raise SubscriptionRefusedError(f"{plan} has no {interval} fee. Choose the other billing.")
    book = agreed.price_book
    if book and book.account_id != account.pk:
        raise SubscriptionRefusedError(
            f"{book} is no price book of this account. Name one whose account it is."
        )
    if (agreed.commitment_minimum is None) != (agreed.commitment_months is None):
        raise SubscriptionRefusedError(
            "Give a commitment both a minimum and a term of months, or neither."
        )
    trial_days = plan.trial_days if agreed.trial_days is None else agreed.trial_days
    credits_ = agreed.monthly_credits
    # The provider knows the plan's own fee, by the month; whatever else was agreed we ask for.
    is_plans_own = interval is Interval.MONTHLY and agreed == PLANS_OWN_TERMS
    return Subscription(
        account=account,
        plan=plan,
        price_book=book,
        interval=interval,
        fee=fee,
        monthly_credits=plan.monthly_credits if credits_ is None else credits_,
        provider_price_id=plan.stripe_price_id if is_plans_own else "",
        credit_rollover_periods=plan.credit_rollover_periods,
        time_zone=account.time_zone,
        recorded_at=now,
        started_at=now.replace(microsecond=0),
        trial_ends_at=_trial_end(account, plan, now.replace(microsecond=0), trial_days),
        commitment_minimum=agreed.commitment_minimum,
        commitment_months=agreed.commitment_months,
    )


def terms_of(subscription: Subscription) -> tuple[object, ...]:
    """Return what makes a subscription another one."""
    return (
        subscription.plan_id,
        subscription.interval,
        subscription.fee,
        subscription.price_book_id,
        subscription.monthly_credits,
        subscription.provider_price_id,
        subscription.commitment_minimum,
        subscription.commitment_months,
    )


def fee_a_month(subscription: Subscription) -> Fraction:
    """Return the fee of a month, of annual billing a twelfth, in the account's currency."""
    months = MONTHS_OF_A_YEAR if subscription.interval == Interval.ANNUAL else 1
    return Fraction(subscription.fee) / months


def _trial_end(
    account: Account, plan: Plan, started_at: datetime, trial_days: int
) -> datetime | None:
    """Return the end of the trial, or None: a plan is tried once by an account."""
    has_tried = Subscription.objects.filter(
        account=account, plan=plan, trial_ends_at__isnull=False
    ).exists()
    return started_at + timedelta(days=trial_days) if trial_days and not has_tried else None
