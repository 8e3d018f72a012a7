"""What accounts are on, and how that cuts their time into billing periods."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db.models import Q, QuerySet

from billing.fees import Commitment, Interval, Subscribed
from billing.followed_periods import followed_by
from billing.models import Account, Plan, Subscription
from billing.money import Money
from billing.periods import Followed, Schedule
from metering.period import Period

DEFAULT_PLAN = "developer"
"""The plan whose prices hold for an account without a subscription."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What was read of some accounts' subscriptions, with their plans, from some time on."""

    subscriptions: Mapping[UUID, Sequence[Subscription]]
    followed: Mapping[UUID, tuple[Followed, ...]]
    default_plan: Plan

    def schedule_of(self, account: Account) -> Schedule:
        """Return how the account's time is cut into periods from its open one on."""
        rows = self.subscriptions.get(account.pk, ())
        return _schedule(account, rows, self.followed.get(account.pk, ()))

    def period_containing(self, account: Account, moment: datetime) -> Period:
        """Return the account's billing period that `moment` falls into."""
        return self.schedule_of(account).following(account.open_period, moment)

    def rows(self) -> Iterator[Subscription]:
        """Yield the subscriptions of all the accounts."""
        for of_account in self.subscriptions.values():
            yield from of_account

    def rows_in(self, account: Account, period: Period) -> list[Subscription]:
        """Return the account's subscriptions that share time with the period, in order."""
        return [
            row
            for row in self.subscriptions.get(account.pk, ())
            if row.started_at < period.end
            and (row.expires_at is None or row.expires_at > period.start)
        ]

    def plan_at(self, account: Account, moment: datetime) -> Plan:
        """Return the plan whose prices hold for the account at a moment."""
        for row in self.subscriptions.get(account.pk, ()):
            if row.started_at <= moment and (row.expires_at is None or row.expires_at > moment):
                return row.plan
        return self.default_plan


def read_terms(accounts: Collection[Account], *, since: datetime | None = None) -> Terms:
    """Return the terms of accounts from their open periods on, or from `since` where that is less.

    Three queries, however many they are.
    """
    starts = [account.open_period_start for account in accounts]
    first = min([*starts, since] if since else starts)
    rows: dict[UUID, list[Subscription]] = {}
    for row in (
        Subscription.objects.filter(account__in=[account.pk for account in accounts])
        .filter(Q(expires_at__isnull=True) | Q(expires_at__gt=first))
        .select_related("plan")
        .order_by("started_at")
    ):
        rows.setdefault(row.account_id, []).append(row)
    return Terms(
        subscriptions=rows,
        followed=followed_by([account.pk for account in accounts]),
        default_plan=Plan.objects.get(code=DEFAULT_PLAN),
    )


def _schedule(
    account: Account, rows: Iterable[Subscription], followed: tuple[Followed, ...]
) -> Schedule:
    cuts = [row.expires_at for row in rows if row.ends_period]
    # Of an account that is closed, whatever it was on.
    cuts.append(account.ends_at)
    return Schedule(
        cycle=account.cycle,
        next_cycle=account.next_cycle,
        changes_at=account.cycle_changes_at,
        cuts=tuple(cut for cut in cuts if cut and cut > account.open_period_start),
        followed=followed,
    )


def schedule_of(account: Account) -> Schedule:
    """Return how the account's time is cut into periods from its open one on."""
    return schedules_of([account])[account.pk]


def schedules_of(accounts: Collection[Account]) -> dict[UUID, Schedule]:
    """Return what `schedule_of` does for each account, by the same queries for all of them."""
    cutting: dict[UUID, list[Subscription]] = {}
    for row in Subscription.objects.filter(account__in=accounts, ends_period=True):
        cutting.setdefault(row.account_id, []).append(row)
    followed = followed_by([account.pk for account in accounts])
    return {
        account.pk: _schedule(account, cutting.get(account.pk, ()), followed.get(account.pk, ()))
        for account in accounts
    }


def period_containing(account: Account, moment: datetime) -> Period:
    """Return the account's billing period that `moment` falls into."""
    return schedule_of(account).following(account.open_period, moment)


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
        plan_id=row.plan_id,
        zone=ZoneInfo(row.time_zone) if row.time_zone else None,
        provider_collects=row.provider_collects,
    )
