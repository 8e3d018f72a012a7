"""Tells of the parts of budgets, and the amounts, that a period's cost has reached: each once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db import transaction

from billing.letters import Content, period_text
from billing.models import Budget, EventType, MailMessage
from billing.money import Money
from billing.services.messages import Notice, write_messages
from billing.services.outgoing import Happening, emit_events
from billing.services.outgoing_invoices import time_text
from metering.period import Period


@dataclass(frozen=True, slots=True)
class Spent:
    """What a period has cost so far."""

    period: Period
    total: Money


@dataclass(frozen=True, slots=True)
class _Mark:
    """A part of a budget, or an amount, that is told of when the cost reaches it."""

    key: str
    amount: Decimal
    # None: an amount.
    percent: int | None


def tell_thresholds(
    budgets: Sequence[Budget], spent: Mapping[UUID, Spent], *, now: datetime
) -> None:
    """Tell what is newly reached: by e-mail, and as an event. Safe to repeat, and at once.

    Of several percentages that are newly reached the highest is told of, and so of amounts.
    """
    reached = [
        (budget, spent[budget.account_id], marks)
        for budget in budgets
        for find in (_parts, _amounts)
        if (marks := find(budget, spent[budget.account_id]))
    ]
    told = set(
        MailMessage.objects.filter(
            kind=MailMessage.Kind.BUDGET_REACHED,
            subject_key__in=[mark.key for _, _, marks in reached for mark in marks],
        ).values_list("subject_key", flat=True)
    )
    notices, happenings = [], []
    for budget, so_far, marks in reached:
        cost = so_far.total.amount
        under = [mark for mark in marks if mark.amount <= cost]
        if not under:
            continue
        highest = max(under, key=lambda mark: mark.amount)
        # Those above were reached before, if the cost fell since.
        if told.isdisjoint(mark.key for mark in marks if mark.amount >= highest.amount):
            notices.append(_notice(budget, so_far, highest))
            happenings.append(_happening(budget, so_far, highest))
    with transaction.atomic():
        write_messages(notices, now=now)
        emit_events(happenings, now=now)


def budget_said(budget: Budget, so_far: Spent) -> dict[str, Any]:
    """Return what events say of a budget and its period."""
    currency = budget.account.currency
    return {
        "budget": {
            "id": budget.pk,
            "name": budget.name,
            "amount": Money(budget.amount, currency).text,
            "hard_cap": budget.hard_cap,
        },
        "currency": currency,
        "cost": so_far.total.text,
        "period": {
            "start": time_text(so_far.period.start),
            "end": time_text(so_far.period.end),
        },
    }


def percent_text(cost: Decimal, amount: Decimal) -> str:
    """Return how many percent of an amount a cost is, to a tenth."""
    return f"{cost * 100 / amount:.1f}"


def _parts(budget: Budget, so_far: Spent) -> list[_Mark]:
    # The amount is in the key, since another amount is another budget to reach.
    amount = Money(budget.amount, budget.account.currency).text
    return [
        _Mark(f"{_key(budget, so_far)} {amount} {percent}%", budget.amount * percent / 100, percent)
        for percent in budget.thresholds
    ]


def _amounts(budget: Budget, so_far: Spent) -> list[_Mark]:
    currency = budget.account.currency
    return [
        _Mark(f"{_key(budget, so_far)} at {Money(amount, currency).text}", amount, None)
        for amount in budget.alert_amounts
    ]


def _key(budget: Budget, so_far: Spent) -> str:
    return f"{budget.pk} {so_far.period.start:%Y-%m-%dT%H:%M}"


def _happening(budget: Budget, so_far: Spent, mark: _Mark) -> Happening:
    said = budget_said(budget, so_far)
    if mark.percent is None:
        kind = EventType.USAGE_THRESHOLD
        said["threshold_amount"] = Money(mark.amount, budget.account.currency).text
    else:
        kind = EventType.BUDGET_REACHED
        said["threshold_percent"] = mark.percent
        said["percent"] = percent_text(so_far.total.amount, budget.amount)
    return Happening(budget.account_id, kind, mark.key, said)


def _notice(budget: Budget, so_far: Spent, mark: _Mark) -> Notice:
    account = budget.account
    amount = Money(budget.amount, account.currency)
    reached = (
        str(Money(mark.amount, account.currency)) if mark.percent is None else f"{mark.percent} %"
    )
    share = percent_text(so_far.total.amount, amount.amount)
    return Notice(
        account=account,
        kind=MailMessage.Kind.BUDGET_REACHED,
        about=mark.key,
        content=Content(
            template="budget_reached",
            # What is sure first: the name may be long.
            subject=f"{reached} of a budget reached: {budget.name}",
            account_name=account.name,
            facts=[
                ("Budget", budget.name),
                ("Amount", str(amount)),
                ("Cost so far", f"{so_far.total} ({share} %)"),
                ("Period", period_text(so_far.period, ZoneInfo(account.time_zone))),
            ],
            says={
                "threshold": reached,
                "budget": budget.name,
                "cost": str(so_far.total),
                "hard_cap": budget.hard_cap,
            },
        ),
    )
