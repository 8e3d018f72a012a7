"""Hard caps: marks accounts whose cost has reached one, measures the overshoot, lifts the mark.

Nothing here asks the platform. Payments sees the mark, and asks: see `payments.services.capping`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db import OperationalError, connection, transaction

from billing.letters import Content, moment_text, period_text
from billing.models import Account, Budget, BudgetCap, BudgetState, EventType, MailMessage
from billing.money import MOST_DECIMALS, Money
from billing.services.accounts import lock_account
from billing.services.budget_thresholds import Spent
from billing.services.messages import Notice, write_messages
from billing.services.outgoing import emit_event
from billing.services.outgoing_invoices import time_text
from billing.signals import account_capped, account_uncapped
from metering.period import Period

AGGREGATING: Final = timedelta(seconds=15)
"""Between two foldings of the streams; as the schedule has it."""
LOOKING: Final = timedelta(seconds=15)
"""Between two looks at budgets that cap; as the schedule has it."""
ASKING: Final = timedelta(seconds=20)
"""Payments' sweep, and the time-out of the platform's hook."""
OPEN = BudgetCap.objects.filter(lifted_at=None)
Ending = BudgetCap.Ending
_WORDS: Final[Mapping[str, str]] = {
    Ending.RAISED: "The budget was raised",
    Ending.REMOVED: "The hard cap was removed",
    Ending.COST_FELL: "The cost fell below it",
    Ending.PERIOD_ENDED: "A new billing period began",
}

logger = logging.getLogger(__name__)


def enforcement_time() -> timedelta:
    """Return how long it takes from a use to the platform's being asked, while all is well."""
    return timedelta(seconds=settings.METERING_INTERVAL_S) + AGGREGATING + LOOKING + ASKING


def overshoot_bound(burn_rate: Decimal) -> Decimal:
    """Return what may be used above a cap at a rate an hour, until the platform is asked."""
    micros = enforcement_time() // timedelta(microseconds=1)
    hour = timedelta(hours=1) // timedelta(microseconds=1)
    return round(burn_rate * micros / hour, MOST_DECIMALS)


def enforce_caps(
    budgets: Sequence[Budget],
    spent: Mapping[UUID, Spent],
    burn_rates: Mapping[int, Decimal],
    *,
    now: datetime,
) -> None:
    """Cap the accounts whose cost reached a hard cap, and lift what holds no more.

    `burn_rates` are by budget, a cost an hour. Safe to repeat, and at once: the account is locked,
    and a budget caps once at a time.
    """
    ids = [budget.pk for budget in budgets]
    open_caps = set(OPEN.filter(budget__in=ids).values_list("budget_id", flat=True))
    for budget in budgets:
        if budget.pk in open_caps or is_reached(budget, spent[budget.account_id].total.amount):
            try:
                _enforce(budget, spent[budget.account_id], burn_rates[budget.pk], now=now)
            except OperationalError:
                # A held lock says nothing about the others; the next look tries again.
                if not connection.is_usable():
                    raise
                logger.warning(
                    "account is busy", exc_info=True, extra={"account_id": budget.account_id}
                )


def looked_at_since(budget_ids: Iterable[int], now: datetime) -> set[int]:
    """Return those of the budgets that somebody has looked at later than `now`."""
    later = BudgetState.objects.filter(budget__in=budget_ids, looked_at__gt=now)
    return set(later.values_list("budget_id", flat=True))


def lift_cap(budget: Budget, ending: BudgetCap.Ending, *, now: datetime) -> None:
    """Lift the cap of a budget that is taken away or is to cap no more, if it has one.

    The caller has locked the account.
    """
    if cap := OPEN.filter(budget=budget).first():
        _lift(budget.account, cap, ending, now=now)


def is_reached(budget: Budget, cost: Decimal) -> bool:
    """Return whether a period that costs so much is to be capped by the budget."""
    return budget.is_active and budget.hard_cap and cost >= budget.amount


def _enforce(budget: Budget, so_far: Spent, burn_rate: Decimal, *, now: datetime) -> None:
    with transaction.atomic():
        account = lock_account(budget.account_id)
        # As it is now: it may have been changed, or taken away, since it was looked at.
        current = Budget.objects.filter(pk=budget.pk).first()
        cap = OPEN.filter(budget=budget.pk).first()
        # What somebody saw later counts: this cost may be of before a credit, or a period ago.
        if current is None or looked_at_since([current.pk], now):
            return
        if cap is None:
            if is_reached(current, so_far.total.amount):
                _cap(account, current, so_far, burn_rate, now=now)
        elif cap.period_start != so_far.period.start:
            _lift(account, cap, Ending.PERIOD_ENDED, now=now)
        else:
            cap.latest_cost, cap.latest_at = so_far.total.amount, now
            cap.save(update_fields=["latest_cost", "latest_at"])
            if ending := _ending(cap, current, so_far):
                _lift(account, cap, ending, now=now)


def _ending(cap: BudgetCap, budget: Budget, so_far: Spent) -> BudgetCap.Ending | None:
    if not (budget.is_active and budget.hard_cap):
        return Ending.REMOVED
    if is_reached(budget, so_far.total.amount):
        return None
    return Ending.RAISED if budget.amount > cap.amount else Ending.COST_FELL


def _cap(
    account: Account, budget: Budget, so_far: Spent, burn_rate: Decimal, *, now: datetime
) -> None:
    cap = BudgetCap.objects.create(
        account=account,
        budget=budget,
        budget_name=budget.name,
        amount=budget.amount,
        period_start=so_far.period.start,
        period_end=so_far.period.end,
        capped_at=now,
        cost_at_cap=so_far.total.amount,
        burn_rate=burn_rate,
        latest_cost=so_far.total.amount,
        latest_at=now,
    )
    _tell(account, cap, EventType.BUDGET_CAPPED, now=now)
    _say(account_capped, cap)


def _lift(account: Account, cap: BudgetCap, ending: BudgetCap.Ending, *, now: datetime) -> None:
    cap.lifted_at, cap.lifted_because = now, ending
    cap.save(update_fields=["lifted_at", "lifted_because"])
    _tell(account, cap, EventType.BUDGET_CAP_LIFTED, now=now)
    _say(account_uncapped, cap)


def _say(signal: Any, cap: BudgetCap) -> None:
    """Send a signal when all is committed. It is a hint, and may be lost."""
    transaction.on_commit(
        partial(signal.send_robust, BudgetCap, account_id=cap.account_id, cap_id=cap.pk)
    )


def _tell(account: Account, cap: BudgetCap, event_type: EventType, *, now: datetime) -> None:
    is_capped = event_type is EventType.BUDGET_CAPPED
    kind = MailMessage.Kind.BUDGET_CAPPED if is_capped else MailMessage.Kind.BUDGET_CAP_LIFTED
    content = _content(account, cap, is_capped=is_capped)
    write_messages([Notice(account, kind, str(cap.pk), content)], now=now)
    emit_event(account.pk, event_type, str(cap.pk), cap_said(cap, account.currency), now)


def cap_said(cap: BudgetCap, currency: str) -> dict[str, Any]:
    """Return what events say of a cap."""

    def text(amount: Decimal) -> str:
        return Money(amount, currency).text

    return {
        "budget": {"id": cap.budget_id, "name": cap.budget_name, "amount": text(cap.amount)},
        "currency": currency,
        "period": {"start": time_text(cap.period_start), "end": time_text(cap.period_end)},
        "capped_at": time_text(cap.capped_at),
        "cost_at_cap": text(cap.cost_at_cap),
        "cost": text(cap.latest_cost),
        "overshoot": text(cap.overshoot),
        "overshoot_bound": text(overshoot_bound(cap.burn_rate)),
        "enforcement_seconds": enforcement_time() // timedelta(seconds=1),
        "lifted_at": time_text(cap.lifted_at) if cap.lifted_at else None,
        "lifted_because": cap.lifted_because or None,
    }


def _content(account: Account, cap: BudgetCap, *, is_capped: bool) -> Content:
    zone = ZoneInfo(account.time_zone)

    def money(amount: Decimal) -> str:
        return str(Money(amount, account.currency))

    bound = f"{money(overshoot_bound(cap.burn_rate))} at {money(cap.burn_rate)} an hour"
    facts = [
        ("Budget", cap.budget_name),
        ("Hard cap", money(cap.amount)),
        ("Cost", money(cap.latest_cost)),
        ("Above the cap", money(cap.overshoot)),
        ("Period", period_text(Period(cap.period_start, cap.period_end), zone)),
        ("Reached", moment_text(cap.capped_at, zone)),
    ]
    if is_capped:
        facts.append(("May still be added until all is stopped", bound))
    else:
        facts.append(("Lifted", _WORDS[cap.lifted_because]))
    return Content(
        template="budget_capped" if is_capped else "budget_cap_lifted",
        subject=f"{'Hard cap reached' if is_capped else 'Hard cap lifted'}: {cap.budget_name}",
        account_name=account.name,
        facts=facts,
        says={"budget": cap.budget_name, "cost": money(cap.latest_cost)},
    )
