"""Reads what a period's figures depend on out of the tables, for the pure core to state."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from django.db.models import Q, QuerySet, Sum

from billing.credits import Credit, CreditKind, prepaid_credit_for, usage_credit_for
from billing.discounts import DiscountRule, RuleKind
from billing.fees import Commitment, Interval, Subscribed, earned_credits
from billing.models import (
    Account,
    CreditGrant,
    Plan,
    Subscription,
)
from billing.models import DiscountRule as DiscountRuleRow
from billing.money import Money
from billing.periods import Schedule, cover, windows_from
from billing.price_books import priced_usage
from billing.statement import PeriodFacts
from metering.period import Period

DEFAULT_PLAN = "developer"
"""The plan whose prices hold for an account without a subscription."""


def period_facts(account: Account, period: Period) -> PeriodFacts:
    """Return what the figures of the account's `period` depend on, as known now."""
    schedule = schedule_of(account)
    rows = list(subscriptions_in(account.pk, period))
    subscriptions = tuple(subscribed(row, account.currency) for row in rows)
    return PeriodFacts(
        period=period,
        schedule=schedule,
        currency=account.currency,
        tax=account.tax,
        subscriptions=subscriptions,
        usage=priced_usage(account, _books_in(rows, period), period),
        rules=_rules_for(account, rows, period, schedule),
        credits_held=(
            *_granted_credits(account, period, subscriptions, schedule),
            *_credits_to_come(account, rows, period, schedule),
        ),
    )


def schedule_of(account: Account) -> Schedule:
    """Return how the account's time is cut into periods."""
    cuts = Subscription.objects.filter(
        account=account, ends_period=True, expires_at__gt=account.open_period_start
    ).values_list("expires_at", flat=True)
    return Schedule(
        cycle=account.cycle,
        next_cycle=account.next_cycle,
        changes_at=account.cycle_changes_at,
        cuts=tuple(cut for cut in cuts if cut),
    )


def period_containing(account: Account, moment: datetime) -> Period:
    """Return the account's billing period that `moment` falls into."""
    return schedule_of(account).following(account.open_period, moment)


def credits_held(account: Account, period: Period) -> list[Credit]:
    """Return the granted credits that may pay for `period`, in the order they are used."""
    schedule = schedule_of(account)
    subscriptions = [subscribed(r, account.currency) for r in subscriptions_in(account.pk, period)]
    held = _granted_credits(account, period, subscriptions, schedule)
    return [*usage_credit_for(held, period), *prepaid_credit_for(held, period)]


def subscriptions_in(account_id: UUID, period: Period) -> QuerySet[Subscription]:
    """Return the subscriptions that share time with `period`, in order."""
    return (
        Subscription.objects.filter(account_id=account_id, started_at__lt=period.end)
        .filter(Q(expires_at__isnull=True) | Q(expires_at__gt=period.start))
        .select_related("plan")
        .order_by("started_at")
    )


def subscribed(row: Subscription, currency: str) -> Subscribed:
    """Return a subscription's terms."""
    commitment = None
    if row.commitment_minimum is not None and row.commitment_months is not None:
        minimum = Money(row.commitment_minimum, currency)
        commitment = Commitment(minimum, row.commitment_months, row.started_at)
    return Subscribed(
        plan=row.plan.name,
        start=row.started_at,
        end=row.expires_at,
        fee=Money(row.fee, currency),
        monthly_credits=Money(row.monthly_credits, currency),
        interval=Interval(row.interval),
        trial_end=row.trial_ends_at,
        commitment=commitment,
        ends_period=row.ends_period,
        subscription_id=row.pk,
    )


def default_book() -> int:
    """Return the price book of accounts without a subscription."""
    return Plan.objects.get(code=DEFAULT_PLAN).price_book_id


def _books_in(rows: Sequence[Subscription], period: Period) -> list[tuple[Period, int]]:
    """Return the price book that holds in each part of `period`."""
    return cover(
        period,
        [
            (windows, row.price_book_id or row.plan.price_book_id)
            for row in rows
            if (windows := windows_from(row.started_at, row.expires_at or period.end))
        ],
        between=default_book(),
    )


def _rules_for(
    account: Account, rows: Sequence[Subscription], period: Period, schedule: Schedule
) -> tuple[DiscountRule, ...]:
    """Return the discount rules in force for the account on the day its period starts."""
    zone = schedule.cycle_at(period.start).zone
    day = period.start.astimezone(zone).date()
    plans = Q(plan__in={row.plan_id for row in rows}) if rows else Q(plan__code=DEFAULT_PLAN)
    found = (
        DiscountRuleRow.objects.filter(is_active=True, currency=account.currency)
        .filter(Q(scope="all") | Q(scope="account", account=account) | Q(scope="plan") & plans)
        .filter(Q(valid_from__isnull=True) | Q(valid_from__lte=day))
        .filter(Q(valid_to__isnull=True) | Q(valid_to__gt=day))
    )
    return tuple(rule_of(row) for row in found)


def rule_of(row: DiscountRuleRow) -> DiscountRule:
    """Return a discount rule as the core takes it. Raises ValueError when it is no good."""
    return DiscountRule(
        name=row.name,
        kind=RuleKind(row.kind),
        percent=row.percent,
        amount=row.amount,
        min_amount=row.min_amount,
        min_months=row.min_months,
        priority=row.priority,
        rule_id=row.pk,
    )


def _granted_credits(
    account: Account,
    period: Period,
    subscriptions: Sequence[Subscribed],
    schedule: Schedule,
) -> list[Credit]:
    """Return what is left of the grants that may pay for `period`."""
    by_id = {subscription.subscription_id: subscription for subscription in subscriptions}
    grants = (
        CreditGrant.objects.filter(account=account, effective_at__lt=period.end)
        .filter(Q(expires_at__isnull=True) | Q(expires_at__gt=period.start))
        .annotate(
            balance=Sum("entries__amount"),
            granted=Sum("entries__amount", filter=Q(entries__kind__in=["grant", "revoke"])),
        )
        .filter(balance__gt=0)
    )
    held = []
    for grant in grants:
        balance = Money(grant.balance, account.currency)
        subscription = by_id.get(grant.subscription_id)
        if subscription and grant.period_start == period.start:
            # Granted ahead for a whole period that the subscription turned out not to cover.
            earned = earned_credits(subscription, period=period, schedule=schedule)
            unearned = Money(grant.granted, account.currency) - earned
            balance -= min(balance, max(unearned, Money.zero(account.currency)))
        held.append(
            Credit(
                credit_id=grant.pk,
                kind=CreditKind(grant.kind),
                balance=balance,
                effective_at=grant.effective_at,
                expires_at=grant.expires_at,
                priority=grant.priority,
            )
        )
    return held


def _credits_to_come(
    account: Account, rows: Sequence[Subscription], period: Period, schedule: Schedule
) -> list[Credit]:
    """Return the monthly credits of `period` that are earned and not granted yet."""
    if period.start < account.open_period_start:
        return []
    granted = set(
        CreditGrant.objects.filter(
            account=account, subscription__in=rows, period_start=period.start
        ).values_list("subscription_id", flat=True)
    )
    held = []
    for row in rows:
        earned = earned_credits(subscribed(row, account.currency), period=period, schedule=schedule)
        if row.pk not in granted and earned:
            held.append(
                Credit(
                    credit_id=None,
                    kind=CreditKind.MONTHLY,
                    balance=earned,
                    effective_at=period.start,
                    expires_at=credit_expiry(row, period, schedule),
                )
            )
    return held


def credit_expiry(row: Subscription, period: Period, schedule: Schedule) -> datetime:
    """Return the end of the last period that a monthly credit of `period` may pay for."""
    last = period
    for _ in range(row.credit_rollover_periods):
        last = schedule.starting(last.end)
    return last.end
