"""Reads discount rules out of the table: which hold for an account's period."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import date
from uuid import UUID

from django.db.models import Q, QuerySet

from billing.discounts import DiscountRule, RuleKind
from billing.models import Account
from billing.models import DiscountRule as DiscountRuleRow
from billing.periods import Schedule
from metering.period import Period


def rules_for(
    account: Account, plans: Collection[int], period: Period, schedule: Schedule
) -> tuple[DiscountRule, ...]:
    """Return the discount rules in force for an account that is on these plans in `period`."""
    rows = active_rules([account.pk])
    return holding_rules(rows, account, plans, first_day(period, schedule))


def active_rules(accounts: Collection[UUID]) -> QuerySet[DiscountRuleRow]:
    """Return the active rules that may be for one of the accounts."""
    return DiscountRuleRow.objects.filter(is_active=True).filter(
        Q(account__isnull=True) | Q(account__in=accounts)
    )


def holding_rules(
    rows: Iterable[DiscountRuleRow], account: Account, plans: Collection[int], day: date
) -> tuple[DiscountRule, ...]:
    """Return the rules that hold for the account's period that starts on a local `day`."""
    return tuple(
        rule_of(row)
        for row in rows
        if row.currency == account.currency
        and (row.scope != row.Scope.ACCOUNT or row.account_id == account.pk)
        and (row.scope != row.Scope.PLAN or row.plan_id in plans)
        and (row.valid_from is None or row.valid_from <= day)
        and (row.valid_to is None or row.valid_to > day)
    )


def first_day(period: Period, schedule: Schedule) -> date:
    """Return the local day on which the period starts: rules hold by that."""
    return period.start.astimezone(schedule.cycle_at(period.start).zone).date()


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
        plan_id=row.plan_id,
    )
