"""Compares what periods cost so far with the budgets of their accounts, and tells what is reached.

It only tells. What stops sandboxes at a hard cap belongs beside it, on the same comparison.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db.models import F, Q

from billing.facts import AccountPeriod, facts_of, schedules_of
from billing.letters import Content, period_text
from billing.models import Account, Budget, MailMessage
from billing.money import Money
from billing.queries import one_snapshot
from billing.services.messages import Notice, write_messages
from billing.statement import state_period
from billing.totals import NegativeTotalError
from metering.period import Period

BUDGETS_AT_ONCE = 100
"""A few seconds' work."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Spent:
    period: Period
    total: Money


def tell_reached_budgets(now: datetime) -> bool:
    """Look at the active budgets that were looked at longest ago; tell of reached thresholds.

    Returns whether some are left that were not looked at since `now`. Of several thresholds that
    are newly reached only the highest is told of. Each is told of once in a period for an amount
    of the budget, even if the cost falls below it and reaches it again. Safe to repeat.
    """
    due = (
        Budget.objects.filter(Q(looked_at__isnull=True) | Q(looked_at__lt=now), is_active=True)
        .select_related("account")
        .order_by(F("looked_at").asc(nulls_first=True), "pk")
    )
    budgets = list(due[:BUDGETS_AT_ONCE])
    # First, so that an account that cannot be stated does not keep the others from their turn.
    Budget.objects.filter(pk__in=[budget.pk for budget in budgets]).update(looked_at=now)
    spent = _spent_by({budget.account_id: budget.account for budget in budgets}.values(), now=now)
    write_messages(_notices(budgets, spent), now=now)
    return len(budgets) == BUDGETS_AT_ONCE


def _spent_by(accounts: Iterable[Account], *, now: datetime) -> dict[UUID, _Spent]:
    """Return what each account's period around `now` comes to so far, as `usage/current` says."""
    spent: dict[UUID, _Spent] = {}
    with one_snapshot():
        every = list(accounts)
        schedules = schedules_of(every)
        wanted = [
            AccountPeriod(account, schedules[account.pk].following(account.open_period, now))
            for account in every
        ]
        for one, facts in zip(wanted, facts_of(wanted), strict=True):
            try:
                if isinstance(facts, ValueError):
                    raise facts
                total = state_period(facts).totals.total_amount
            except (ValueError, NegativeTotalError):
                logger.exception("budget is not compared", extra={"account_id": one.account.pk})
            else:
                spent[one.account.pk] = _Spent(one.period, total)
    return spent


def _notices(budgets: Iterable[Budget], spent: Mapping[UUID, _Spent]) -> list[Notice]:
    """Return what is reached and neither told of nor below what is told of."""
    reached = {
        budget: thresholds
        for budget in budgets
        if (so_far := spent.get(budget.account_id))
        and (thresholds := _reached(budget, so_far.total))
    }
    keys = [
        _key(budget, spent[budget.account_id].period, threshold)
        for budget in reached
        for threshold in budget.thresholds
    ]
    told = set(
        MailMessage.objects.filter(
            kind=MailMessage.Kind.BUDGET_REACHED, subject_key__in=keys
        ).values_list("subject_key", flat=True)
    )
    notices = []
    for budget, thresholds in reached.items():
        so_far = spent[budget.account_id]
        highest = max(thresholds)
        above = [threshold for threshold in budget.thresholds if threshold >= highest]
        if told.isdisjoint(_key(budget, so_far.period, threshold) for threshold in above):
            notices.append(_notice(budget, so_far, highest))
    return notices


def _reached(budget: Budget, total: Money) -> list[int]:
    return [each for each in budget.thresholds if total.amount * 100 >= budget.amount * each]


def _key(budget: Budget, period: Period, threshold: int) -> str:
    # The amount is in it, since another amount is another budget to reach.
    amount = Money(budget.amount, budget.account.currency).text
    return f"{budget.pk} {period.start:%Y-%m-%dT%H:%M} {amount} {threshold}%"


def _notice(budget: Budget, so_far: _Spent, threshold: int) -> Notice:
    account = budget.account
    amount = Money(budget.amount, account.currency)
    percent = f"{threshold} %"
    share = f"{so_far.total.amount * 100 / amount.amount:.1f}"
    return Notice(
        account=account,
        kind=MailMessage.Kind.BUDGET_REACHED,
        about=_key(budget, so_far.period, threshold),
        content=Content(
            template="budget_reached",
            # What is sure first: the name may be long.
            subject=f"{percent} of a budget reached: {budget.name}",
            account_name=account.name,
            facts=[
                ("Budget", budget.name),
                ("Amount", str(amount)),
                ("Cost so far", f"{so_far.total} ({share} %)"),
                ("Period", period_text(so_far.period, ZoneInfo(account.time_zone))),
            ],
            says={"threshold": percent, "budget": budget.name, "cost": str(so_far.total)},
        ),
    )
