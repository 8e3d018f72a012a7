"""What a change of plan would cost: the change is made, stated, and taken back.

So the preview is what happens: the same service and the same arithmetic say it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from django.db import transaction

from billing.facts import period_containing, period_facts, schedule_of
from billing.fees import FeeLine, Interval, earned_credits
from billing.forecast import forecast_usage
from billing.models import Account, Plan, Subscription
from billing.money import Money
from billing.services.accounts import lock_account
from billing.services.subscriptions import choose_plan
from billing.statement import PeriodFacts, Statement, state_period
from metering.period import Period


@dataclass(frozen=True, slots=True)
class ProrationLine:
    """By how much a change moves what is asked for a plan in the running period.

    Below zero: of a fee that is not used to its end. `kind` is that of the invoice's line, or
    `fee_discount`.
    """

    kind: str
    plan: str
    period: Period
    amount: Money


@dataclass(frozen=True, slots=True)
class Expected:
    """What the running period comes to, before and after tax, with usage as known now."""

    subscription_fee: Money
    total_amount: Money
    amount_due: Money
    # What subscriptions bring for the period, used or not.
    monthly_credits: Money
    # If usage goes on at its own rate so far.
    forecast_total: Money
    forecast_due: Money


@dataclass(frozen=True, slots=True)
class PlanChange:
    """What choosing a plan does: when, and what it moves. `lines` sum to the fees' difference."""

    plan: Plan
    interval: Interval
    effective_at: datetime
    is_now: bool
    # The payment provider asks for the plan's fee, in advance: then it is in none of the figures.
    provider_collects: bool
    period: Period
    lines: tuple[ProrationLine, ...]
    before: Expected
    after: Expected
    next_period: Period
    # Of the first whole period on the plan's terms.
    next_fee: Money
    next_monthly_credits: Money

    @property
    def difference(self) -> Money:
        """By how much the running period's subscription fee changes."""
        return self.after.subscription_fee - self.before.subscription_fee


class _TakenBackError(Exception):
    """Ends the transaction in which a change was tried."""


def preview_plan_change(
    account_id: UUID, *, plan_code: str, now: datetime, interval: Interval = Interval.MONTHLY
) -> PlanChange:
    """Return what `choose_plan` would do, and change nothing.

    Raises as it does: SubscriptionRefusedError, Plan.DoesNotExist.
    """
    found: list[PlanChange] = []
    try:
        with transaction.atomic():
            found.append(_try(account_id, plan_code=plan_code, now=now, interval=interval))
            raise _TakenBackError  # noqa: TRY301 - what takes the change back
    except _TakenBackError:
        [change] = found
        return change


def _try(account_id: UUID, *, plan_code: str, now: datetime, interval: Interval) -> PlanChange:
    account = lock_account(account_id)
    period = period_containing(account, now)
    before = _stated(account, period)
    chosen = choose_plan(account_id, plan_code=plan_code, now=now, interval=interval)
    account.refresh_from_db()
    after = _stated(account, period)
    ahead = _ahead(account, chosen, period)
    return PlanChange(
        plan=chosen.plan,
        interval=Interval(chosen.interval),
        effective_at=max(chosen.started_at, now.replace(microsecond=0)),
        is_now=chosen.started_at <= now,
        provider_collects=chosen.provider_collects,
        period=period,
        lines=tuple(_proration(before, after)),
        before=_expected(before, account, now),
        after=_expected(after, account, now),
        next_period=ahead.facts.period,
        next_fee=ahead.totals.subscription_fee,
        next_monthly_credits=_credits(ahead.facts),
    )


def _stated(account: Account, period: Period) -> Statement:
    return state_period(period_facts(account, period))


def _expected(statement: Statement, account: Account, now: datetime) -> Expected:
    facts, totals = statement.facts, statement.totals
    usage = forecast_usage(facts.usage, now=now, since=account.opened_at)
    ahead = state_period(replace(facts, usage=usage)).totals
    return Expected(
        subscription_fee=totals.subscription_fee,
        total_amount=totals.total_amount,
        amount_due=totals.amount_due,
        monthly_credits=_credits(facts),
        forecast_total=ahead.total_amount,
        forecast_due=ahead.amount_due,
    )


def _credits(facts: PeriodFacts) -> Money:
    return Money.total(
        (
            earned_credits(subscription, period=facts.period, schedule=facts.schedule)
            for subscription in facts.subscriptions
        ),
        facts.currency,
    )


def _proration(before: Statement, after: Statement) -> list[ProrationLine]:
    """Return what differs between the fees of two statements of a period, line by line."""
    olds, news = _by_key(before), _by_key(after)
    lines = []
    for key in [*olds, *(key for key in news if key not in olds)]:
        old, new = olds.get(key), news.get(key)
        line = new or old
        if line is None:
            continue
        zero = Money.zero(before.facts.currency)
        amount = (new.amount if new else zero) - (old.amount if old else zero)
        if amount:
            lines.append(ProrationLine(line.kind.value, line.plan, _moved(old, new, line), amount))
    discounted = _discounted(before) - _discounted(after)
    if discounted:
        period = after.facts.period
        lines.append(ProrationLine("fee_discount", "", period, discounted))
    return lines


def _by_key(statement: Statement) -> dict[tuple[object, ...], FeeLine]:
    return {(line.kind, line.subscription_id, line.plan): line for line in statement.fees}


def _moved(old: FeeLine | None, new: FeeLine | None, line: FeeLine) -> Period:
    """Return the time that is asked for by one of the lines only, else the line's own."""
    if old and new and new.period.end < old.period.end:
        return Period(new.period.end, old.period.end)
    if old and new and old.period.end < new.period.end:
        return Period(old.period.end, new.period.end)
    return line.period


def _discounted(statement: Statement) -> Money:
    return Money.total(
        (discount.amount for discount in statement.fee_discounts), statement.facts.currency
    )


def _ahead(account: Account, chosen: Subscription, period: Period) -> Statement:
    """Return what the first whole period on the plan costs and brings, usage aside."""
    schedule = schedule_of(account)
    following = schedule.starting(period.end)
    while following.start < chosen.started_at:
        following = schedule.starting(following.end)
    return state_period(replace(period_facts(account, following), usage=()))
