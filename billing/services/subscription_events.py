"""Tells customers' programs of each change of their subscription, whoever made it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import Any, Concatenate, ParamSpec, cast
from uuid import UUID

from django.db import transaction
from django.db.models import Q

from billing.models import Account, Event, EventType, Subscription
from billing.money import Money
from billing.services.accounts import lock_account
from billing.services.outgoing import emit_event

P = ParamSpec("P")


def tells_changes(
    change: Callable[Concatenate[UUID, P], Subscription],
) -> Callable[Concatenate[UUID, P], Subscription]:
    """Return the service with an event `subscription.changed` in its transaction, if one is made.

    What a service does through another one is told of once.
    """

    @wraps(change)
    def changing(account_id: UUID, *args: P.args, **options: P.kwargs) -> Subscription:
        now = options["now"]
        if not isinstance(now, datetime):
            raise TypeError("A change is made at a moment, which it takes as `now`.")
        with transaction.atomic():
            account = lock_account(account_id)
            before = _state(account, now)
            subscription = change(account_id, *args, **options)
            after = _state(account, now)
            if after != before:
                _tell(account, after, now=now)
        return subscription

    # Typed as what it wraps: `wraps` would name the first argument, which callers give by place.
    return cast("Callable[Concatenate[UUID, P], Subscription]", changing)


def _tell(account: Account, state: dict[str, Any], *, now: datetime) -> None:
    told = Event.objects.filter(
        account=account, type=EventType.SUBSCRIPTION_CHANGED, created_at=now
    ).values_list("data", flat=True)
    # The service inside this one has told of it.
    if state in told:
        return
    # Whoever repeats a change makes none, and comes here not. The account is locked, so the
    # number at this moment is nobody else's.
    key = f"account {account.pk}, at {_text(now)}, {len(told) + 1}"
    emit_event(account.pk, EventType.SUBSCRIPTION_CHANGED, key, state, now)


def _state(account: Account, now: datetime) -> dict[str, Any]:
    """Return what the account is on, and what it is to be on next, as the event says it."""
    rows = list(
        Subscription.objects.filter(Q(expires_at__isnull=True) | Q(expires_at__gt=now))
        .filter(account=account)
        .select_related("plan")
        .order_by("started_at")
    )
    current = next((row for row in rows if row.started_at <= now), None)
    following = next((row for row in rows if row.started_at > now), None)
    return {
        "current": _terms(account, current),
        "next": _terms(account, following),
    }


def _terms(account: Account, row: Subscription | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {
        "plan": row.plan.code,
        "interval": row.interval,
        "fee": Money(row.fee, account.currency).text,
        "currency": account.currency,
        "started_at": _text(row.started_at),
        "ends_at": _text(row.expires_at) if row.expires_at else None,
    }


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
