from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Q, QuerySet, Sum

import metering.queries
from billing.charges import PerUnit, Price
from billing.models import (
    Account,
    CreditEntry,
    Invoice,
    Plan,
    PriceBookVersion,
    Subscription,
)
from billing.money import Money
from billing.periods import by_window, cover, join_equal, month_containing
from billing.rating import (
    CostBreakdown,
    PricedUsage,
    Prices,
    Rating,
    UnpricedUsage,
    break_down_cost,
    rate_usage,
)
from metering.meters import Meter
from metering.period import Period

DEFAULT_PLAN = "developer"
"""The plan whose prices hold for an account without a subscription."""


@dataclass(frozen=True, slots=True)
class CurrentUsage:
    """What an account used and what it costs, in the month so far. Usage is in stored units."""

    period: Period
    # The newest reading that is counted. None: nothing was measured yet.
    as_of: datetime | None
    plan: Plan
    usage: dict[Meter, int]
    cost: CostBreakdown
    remaining_credits: Money
    coverage: metering.queries.Coverage
    unpriced: tuple[UnpricedUsage, ...]


def current_usage(account_id: UUID, *, now: datetime) -> CurrentUsage:
    """Return the usage and cost of the account's month that contains `now`.

    Raises Account.DoesNotExist.
    """
    with _one_snapshot():
        account = Account.objects.get(pk=account_id)
        period = month_containing(now, account.zone)
        rating = rate_period(account, period)
        available = credits_available(account, period)
        cost = break_down_cost(rating, credits_available=available)
        return CurrentUsage(
            period=period,
            as_of=metering.queries.newest_reading_at(account_id),
            plan=_plan_at(account_id, now),
            usage=rating.usage,
            cost=cost,
            remaining_credits=available - cost.credits_used,
            coverage=metering.queries.coverage(account_id, period),
            unpriced=rating.unpriced,
        )


def invoices_of(account_id: UUID) -> QuerySet[Invoice]:
    """Return an account's invoices, drafts too, newest period first."""
    return Invoice.objects.filter(account_id=account_id)


def rate_period(account: Account, period: Period) -> Rating:
    """Return the price of an account's usage in `period`, cut where other prices begin to hold."""
    priced = [
        PricedUsage(span, metering.queries.usage_totals(account.pk, span), prices)
        for span, prices in _prices_in_force(account, period)
    ]
    return rate_usage(priced, currency=account.currency)


def credits_available(account: Account, period: Period) -> Money:
    """Return what is left of the credits that belong to the account's `period`."""
    entries = CreditEntry.objects.filter(
        grant__subscription__account=account, grant__period_start=period.start
    )
    amount = entries.aggregate(total=Sum("amount"))["total"]
    return Money.zero(account.currency) if amount is None else Money(amount, account.currency)


def subscriptions_in(account_id: UUID, period: Period) -> QuerySet[Subscription]:
    """Return the subscriptions that share time with `period`, in order."""
    return (
        Subscription.objects.filter(account_id=account_id, started_at__lt=period.end)
        .filter(Q(ended_at__isnull=True) | Q(ended_at__gt=period.start))
        .select_related("plan")
        .order_by("started_at")
    )


@contextmanager
def _one_snapshot() -> Iterator[None]:
    """Let all reads inside see one moment, so that usage and `as_of` belong together.

    Inside a caller's transaction, the caller's isolation holds.
    """
    is_outermost = not connection.in_atomic_block
    with transaction.atomic():
        if is_outermost:
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield


def _plan_at(account_id: UUID, moment: datetime) -> Plan:
    subscription = (
        Subscription.objects.filter(account_id=account_id, started_at__lte=moment)
        .filter(Q(ended_at__isnull=True) | Q(ended_at__gt=moment))
        .select_related("plan")
        .first()
    )
    return subscription.plan if subscription else Plan.objects.get(code=DEFAULT_PLAN)


def _prices_in_force(account: Account, period: Period) -> list[tuple[Period, Prices | None]]:
    """Return the prices for each part of `period`; None where no version was in force."""
    books = cover(
        period,
        [
            (windows, subscription.plan.price_book_id)
            for subscription in subscriptions_in(account.pk, period)
            if (part := subscription.part_of(period)) and (windows := by_window(part))
        ],
        between=Plan.objects.get(code=DEFAULT_PLAN).price_book_id,
    )
    versions = _versions_of({book for _, book in books}, period)
    return join_equal(
        priced
        for span, book in books
        for priced in cover(span, versions.get(book, ()), between=None)
    )


def _versions_of(books: set[int], period: Period) -> dict[int, list[tuple[Period, Prices | None]]]:
    """Return, by book, the windows in which each version is in force and its prices."""
    versions: dict[int, list[tuple[Period, Prices | None]]] = {}
    for version in (
        PriceBookVersion.objects.filter(book__in=books, effective_from__lt=period.end)
        .filter(Q(effective_to__isnull=True) | Q(effective_to__gt=period.start))
        .prefetch_related("prices")
        .order_by("effective_from")
    ):
        in_force = Period(
            max(version.effective_from, period.start),
            min(version.effective_to or period.end, period.end),
        )
        if windows := by_window(in_force):
            prices = {
                (Meter(price.meter), price.currency): Price(PerUnit(price.unit_price))
                for price in version.prices.all()
            }
            versions.setdefault(version.book_id, []).append((windows, Prices(prices)))
    return versions
