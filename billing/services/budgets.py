"""Looks at what periods cost so far beside the budgets of their accounts, and acts on it.

Thresholds that are reached are told of, and hard caps cap. All budgets are looked at in turn; those
that cap are looked at every few seconds besides, as soon as something new was measured.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q

import metering.queries
from billing.facts import AccountPeriod, facts_of, schedules_of
from billing.models import Account, Budget, BudgetState, CreditEntry
from billing.money import MOST_DECIMALS
from billing.queries import one_snapshot
from billing.services.budget_thresholds import Spent, tell_thresholds
from billing.services.caps import OPEN, enforce_caps, is_reached, looked_at_since
from billing.statement import state_period
from billing.totals import NegativeTotalError

BUDGETS_AT_ONCE = 100
"""A few seconds' work."""
RATE_SPAN: Final = timedelta(minutes=5)
"""How fast a cost grows is counted over spans of at least this."""
SHORTEST_RATE_SPAN: Final = timedelta(minutes=1)
CAPS_A_SWEEP: Final = 5000
"""Budgets whose newest reading is looked up in one sweep."""

logger = logging.getLogger(__name__)


def tell_reached_budgets(now: datetime) -> bool:
    """Look at the active budgets that were looked at longest ago; tell of reached thresholds.

    Returns whether some are left that were not looked at since `now`. Of several thresholds that
    are newly reached only the highest is told of. Each is told of once in a period for an amount
    of the budget, even if the cost falls below it and reaches it again. Safe to repeat.
    """
    due = (
        Budget.objects.filter(Q(looked_at__isnull=True) | Q(looked_at__lt=now), is_active=True)
        .select_related("account", "state")
        .order_by(F("looked_at").asc(nulls_first=True), "pk")
    )
    budgets = list(due[:BUDGETS_AT_ONCE])
    # First, so that an account that cannot be stated does not keep the others from their turn.
    Budget.objects.filter(pk__in=[budget.pk for budget in budgets]).update(looked_at=now)
    _look_at(budgets, now=now)
    return len(budgets) == BUDGETS_AT_ONCE


def look_at_caps(now: datetime, *, but: Collection[int] = ()) -> list[int]:
    """Look at some budgets that cap, or were never looked at; return which, none when all are.

    Only those with something new: a reading, another period, a budget that was changed across
    its cost, or credit for an account that is capped. `but` are those that this sweep has looked
    at. Safe to repeat.
    """
    caps = Exists(OPEN.filter(budget=OuterRef("pk")))
    credited = CreditEntry.objects.filter(
        grant__account=OuterRef("account"), recorded_at__gt=OuterRef("state__looked_at")
    )
    watched = (
        Budget.objects.filter(
            Q(is_active=True, hard_cap=True) | caps | Q(state=None, is_active=True)
        )
        .exclude(pk__in=but)
        .annotate(is_capped=caps, is_credited=caps & Exists(credited))
        .select_related("account", "state")
        .order_by(F("state__looked_at").asc(nulls_first=True), "pk")[:CAPS_A_SWEEP]
    )
    budgets = list(watched)
    newest = metering.queries.newest_readings_at({budget.account_id for budget in budgets})
    due = [budget for budget in budgets if _has_news(budget, newest, now=now)]
    _look_at(due[:BUDGETS_AT_ONCE], now=now)
    return [budget.pk for budget in due[:BUDGETS_AT_ONCE]]


def _has_news(budget: Any, newest: Mapping[UUID, datetime], *, now: datetime) -> bool:
    state = state_of(budget)
    if state is None or state.period_end <= now or budget.is_credited:
        return True
    # What is stopped is not read: changing the budget alone has to be enough.
    if budget.is_capped != is_reached(budget, state.cost):
        return True
    return (read_at := newest.get(budget.account_id)) is not None and state.read_at != read_at


def state_of(budget: Budget) -> BudgetState | None:
    """Return how far a budget is used up, None before the first look."""
    return getattr(budget, "state", None)


def _look_at(budgets: Sequence[Budget], *, now: datetime) -> None:
    """Compare budgets with what their accounts' periods cost, and do what follows."""
    accounts = {budget.account_id: budget.account for budget in budgets}
    # Before the cost, which may then count more than it says, and never less.
    newest = metering.queries.newest_readings_at(accounts)
    spent = _spent_by(accounts.values(), now=now)
    known = [budget for budget in budgets if budget.account_id in spent]
    states = {
        budget.pk: _state(budget, spent[budget.account_id], newest.get(budget.account_id), now=now)
        for budget in known
    }
    _keep(states.values(), now=now)
    tell_thresholds(known, spent, now=now)
    enforce_caps(known, spent, {pk: state.burn_rate for pk, state in states.items()}, now=now)


def _spent_by(accounts: Iterable[Account], *, now: datetime) -> dict[UUID, Spent]:
    """Return what each account's period around `now` comes to so far, as `usage/current` says."""
    spent: dict[UUID, Spent] = {}
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
                spent[one.account.pk] = Spent(one.period, total)
    return spent


def _state(
    budget: Budget, so_far: Spent, read_at: datetime | None, *, now: datetime
) -> BudgetState:
    """Return the budget's state as of now, with the rate that follows from the one before."""
    before, cost = state_of(budget), so_far.total.amount
    state = BudgetState(
        budget=budget,
        period_start=so_far.period.start,
        period_end=so_far.period.end,
        cost=cost,
        looked_at=now,
        read_at=read_at,
        earlier_cost=cost,
        earlier_at=now,
        burn_rate=Decimal(0),
    )
    if before is None or before.period_start != so_far.period.start:
        return state
    span = now - before.earlier_at
    rate = _rate(cost - before.earlier_cost, span)
    if span < RATE_SPAN:
        state.earlier_cost, state.earlier_at = before.earlier_cost, before.earlier_at
        # It may be old by now: what grew since may be faster.
        state.burn_rate = max(before.burn_rate, rate)
    else:
        state.burn_rate = rate
    return state


def _rate(growth: Decimal, span: timedelta) -> Decimal:
    """Return the cost of an hour, where `growth` was that of a span that says enough."""
    if span < SHORTEST_RATE_SPAN or growth <= 0:
        return Decimal(0)
    micros = span // timedelta(microseconds=1)
    hour = timedelta(hours=1) // timedelta(microseconds=1)
    return round(growth * hour / micros, MOST_DECIMALS)


def _keep(states: Iterable[BudgetState], *, now: datetime) -> None:
    """Keep the states of budgets that are there still and that nobody has looked at since `now`."""
    rows = sorted(states, key=lambda state: state.pk)
    changing = [field.name for field in BudgetState._meta.fields if not field.primary_key]  # noqa: SLF001 - Django's documented way
    with transaction.atomic():
        # One that was deleted since has no state any more.
        left = set(
            Budget.objects.select_for_update(no_key=True)
            .filter(pk__in=[row.pk for row in rows])
            .order_by("pk")
            .values_list("pk", flat=True)
        )
        # Asked once they are locked: whoever looked later may have waited less for it.
        left -= looked_at_since(left, now)
        BudgetState.objects.bulk_create(
            [row for row in rows if row.pk in left],
            update_conflicts=True,
            unique_fields=["budget"],
            update_fields=changing,
        )
