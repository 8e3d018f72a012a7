"""What periods' figures depend on: their own facts, and what closed ones leave to an open one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from billing.adjustments import Carried, credits_after
from billing.late_usage import carried_to
from billing.models import Account
from billing.own_facts import (
    DEFAULT_PLAN,
    AccountPeriod,
    credit_expiry,
    credits_held,
    own_facts_of,
    period_containing,
    schedule_of,
    schedules_of,
    subscribed,
    subscriptions_in,
)
from billing.periods import Schedule
from billing.statement import PeriodFacts
from metering.period import Period

__all__ = [
    "DEFAULT_PLAN",
    "AccountPeriod",
    "credit_expiry",
    "credits_held",
    "facts_of",
    "period_containing",
    "period_facts",
    "schedule_of",
    "schedules_of",
    "subscribed",
    "subscriptions_in",
]


def period_facts(
    account: Account, period: Period, *, schedule: Schedule | None = None
) -> PeriodFacts:
    """Return what the figures of the account's `period` depend on, as known now.

    `schedule` is how its time was cut then, if not as now. Raises ValueError when a price or a
    rule is no good.
    """
    [facts] = facts_of([AccountPeriod(account, period, schedule)])
    if isinstance(facts, Exception):
        raise facts
    return facts


def facts_of(wanted: Sequence[AccountPeriod]) -> list[PeriodFacts | ValueError]:
    """Return what the figures of each period depend on, as known now, in their order.

    The error in place of the facts, where something of that account is no good. A fixed number of
    queries, and more only for accounts whose closed periods leave something to their open one.
    """
    carried = carried_to([one.account for one in wanted if one.period == one.account.open_period])
    return [
        _taking_over(facts, left)
        if isinstance(facts, PeriodFacts)
        and one.period == one.account.open_period
        and (left := carried.get(one.account.pk))
        else facts
        for one, facts in zip(wanted, own_facts_of(wanted), strict=True)
    ]


def _taking_over(facts: PeriodFacts, carried: Carried) -> PeriodFacts:
    held = credits_after(facts.credits_held, carried.credit_moves, facts.period)
    return replace(facts, carried=carried, credits_held=held)
