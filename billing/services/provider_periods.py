"""Lets an account's billing periods follow those of the payment provider that collects its fee."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import transaction

from billing.facts import period_containing, schedule_of
from billing.history import BILLING_A_PERIOD
from billing.models import Account, CreditGrant, Invoice, ProviderPeriod, Subscription
from billing.periods import Schedule
from billing.proration import whole_seconds
from billing.services.accounts import lock_account
from billing.services.credits import (
    BY_ITSELF,
    grant_period_credits,
    revoke_credit,
    revoke_unearned_credits,
)
from billing.services.statements import discard_drafts
from metering.period import WINDOW, Period, window_start


class ProviderPeriodRefusedError(ValueError):
    """An account's periods cannot follow this one; the message says why."""


class ProviderPeriodTooLateError(ProviderPeriodRefusedError):
    """The time that it would have bounded is closed, and closed periods stay."""


def take_provider_period(account_id: UUID, period: Period, *, now: datetime) -> Account:
    """Let the account's periods follow the payment provider's, whose current one is `period`.

    Bounds are the provider's own, in whole seconds; ours are the starts of the windows that they
    fall into. The open period ends where the provider's begins or ends, whichever comes first, and
    the months after it follow until the provider collects no more: then the account's own cycle
    holds again, from the end of the provider's period. What is closed stays. An end of the
    subscription that waits for the period's end moves with it.

    Safe to repeat, and an earlier period than was told last changes nothing. Raises
    ProviderPeriodRefusedError, ProviderPeriodTooLateError, Account.DoesNotExist.
    """
    with transaction.atomic():
        account = lock_account(account_id)
        told = ProviderPeriod.objects.filter(account=account)
        last = told.order_by("id").last()
        if last and period.start < last.starts_at:
            return account
        if told.filter(starts_at=period.start, ends_at=period.end).exists():
            return account
        _refuse_unless_collected(account, period, now)
        starts = window_start(period.start), account.open_period_start
        ProviderPeriod.objects.create(
            account=account,
            starts_at=period.start,
            ends_at=period.end,
            holds_from=max(starts),
            recorded_at=now,
        )
        _move_waiting_end(account, period, now)
        _follow(account, now)
    return account


def _refuse_unless_collected(account: Account, period: Period, now: datetime) -> None:
    whole_seconds(period)
    if window_start(period.start) == window_start(period.end):
        raise ProviderPeriodRefusedError(f"{period} is shorter than a window of usage.")
    if period.start > now + WINDOW:
        raise ProviderPeriodRefusedError(f"{period} has not begun at {now}.")
    if window_start(period.end) <= account.open_period_start:
        raise ProviderPeriodTooLateError(
            f"{period} of account {account.pk} is told too late: all before "
            f"{account.open_period_start} is closed. Its invoices stay; compare them with the "
            "provider's."
        )
    collected = account.subscriptions.exclude(provider_price_id="").filter(
        started_at__lt=period.end
    )
    if not any(row.expires_at is None or row.expires_at > period.start for row in collected):
        raise ProviderPeriodRefusedError(
            f"Account {account.pk} is on no plan whose fee the payment provider collects in "
            f"{period}. Cancel it there, or put the account on such a plan."
        )


def _move_waiting_end(account: Account, period: Period, now: datetime) -> None:
    """Let a subscription that ends with its period end with the provider's, and the next begin."""
    if now not in period:
        return
    rows = Subscription.objects.filter(account=account)
    ending = (
        rows.exclude(provider_price_id="")
        .filter(started_at__lte=now, expires_at__gt=now, ends_period=False)
        .first()
    )
    if ending is None or ending.expires_at is None:
        return
    moves = [(ending, "expires_at")]
    if following := rows.filter(started_at=ending.expires_at).first():
        moves.append((following, "started_at"))
    if ending.expires_at < period.end:
        # They must not overlap, not even in between.
        moves.reverse()
    for row, column in moves:
        setattr(row, column, period.end)
        row.save(update_fields=[column])


def _follow(account: Account, now: datetime) -> None:
    """Bring what rests on the account's periods in line with its schedule, from the open one on."""
    schedule = schedule_of(account)
    opened = account.open_period_start
    account.open_period_end = schedule.starting(opened).end
    if account.cycle_changes_at:
        last = max(opened, account.cycle_changes_at - WINDOW)
        account.cycle_changes_at = schedule.following(account.open_period, last).end
    account.save(update_fields=["open_period_end", "cycle_changes_at"])
    _discard_drafts(account, schedule)
    _move_credits(account, schedule, now)


def _move_credits(account: Account, schedule: Schedule, now: datetime) -> None:
    """Take back the credits of time that is in another period now, and grant those of this one."""
    ahead = CreditGrant.objects.filter(
        account=account,
        subscription__isnull=False,
        period_start__gte=account.open_period_start,
    )
    for grant in ahead:
        if grant.period_start is None:
            continue
        period = schedule.following(account.open_period, grant.period_start)
        if period.start == grant.period_start:
            revoke_unearned_credits(account, period, now=now)
        else:
            revoke_credit(grant.pk, by=BY_ITSELF, now=now)
    grant_period_credits(account, period_containing(account, now), now=now)


def _discard_drafts(account: Account, schedule: Schedule) -> None:
    """Drop drafts of periods that there are no more: the sweep drafts those that there are."""
    drafts = Invoice.objects.filter(
        account=account, kind__in=BILLING_A_PERIOD, status=Invoice.Status.DRAFT
    )
    discard_drafts(
        [
            draft
            for draft in drafts
            if draft.period != schedule.following(account.open_period, draft.period_start)
        ]
    )
