"""What periods' figures depend on: their own facts, and what closed ones leave to an open one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from billing.account_terms import (
    DEFAULT_PLAN,
    Terms,
    period_containing,
    read_terms,
    schedule_of,
    schedules_of,
    subscribed,
    subscriptions_in,
)
from billing.adjustments import Carried, credits_after
from billing.late_usage import carried_to
from billing.models import Account
from billing.own_facts import (
    AccountPeriod,
    UsedInSpans,
    credit_expiry,
    credits_held,
    own_facts_of,
)
from billing.periods import Schedule
from billing.statement import PeriodFacts
from metering.period import Period
from metering.totals import usage_of_spans

__all__ = [
    "DEFAULT_PLAN",
    "AccountPeriod",
    "credit_expiry",
    "credits_held",
    "facts_of",
    "period_containing",
    "period_facts",
    "read_terms",
    "schedule_of",
    "schedules_of",
    "subscribed",
    "subscriptions_in",
]


def period_facts(
    account: Account,
    period: Period,
    *,
    schedule: Schedule | None = None,
    terms: Terms | None = None,
    used: UsedInSpans = usage_of_spans,
) -> PeriodFacts:
    """Return what the figures of the account's `period` depend on, as known now.

    `schedule` is how its time was cut then, if not as now; the rest as `own_facts_of` has it.
    Raises ValueError when a price or a rule is no good.
    """
    [facts] = facts_of([AccountPeriod(account, period, schedule)], terms=terms, used=used)
    if isinstance(facts, Exception):
        raise facts
    return facts


def facts_of(
    wanted: Sequence[AccountPeriod],
    *,
    terms: Terms | None = None,
    used: UsedInSpans = usage_of_spans,
) -> list[PeriodFacts | ValueError]:
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
        for one, facts in zip(wanted, own_facts_of(wanted, terms=terms, used=used), strict=True)
    ]


def _taking_over(facts: PeriodFacts, carried: Carried) -> PeriodFacts:
    held = credits_after(facts.credits_held, carried.credit_moves, facts.period)
    return replace(facts, carried=carried, credits_held=held)
