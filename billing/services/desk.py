"""Adds up, in the background, what the desk's home page shows of all accounts' days."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from django.db import transaction
from django.db.models import F, Min, Q

from billing.daily_costs import UsageCost, cost_by_day
from billing.facts import AccountPeriod, facts_of, schedule_of
from billing.history import BILLING_A_PERIOD
from billing.lifecycle import NOT_FINAL
from billing.models import (
    Account,
    DeskCoverage,
    DeskDay,
    DeskRunning,
    DeskSlice,
    InvoiceLine,
    InvoiceTransition,
)
from billing.money import Money
from billing.statement import Statement, state_period
from billing.totals import NegativeTotalError
from metering.calendars import calendars_of
from metering.days import Calendar
from metering.meters import Meter
from metering.period import WINDOW, Period
from metering.summaries import DayUsage, daily_usage_of

SLICES = 16
"""By the first hexadecimal digit of an account's id."""
STALE_AFTER = timedelta(minutes=55)
RECENT_DAYS = 35
"""So many days are added up anew each time, and more where an older invoice changed."""
KEPT_DAYS = 400
ACCOUNTS_AT_ONCE = 200

_DAY = timedelta(days=1)
_LONGEST_PERIOD = timedelta(days=32)
# Summaries and transitions of a moment ago may not have been seen.
_OVERLAP = timedelta(hours=3)
_RUNNING_FIGURES = (
    "subscription_fee",
    "usage_fee",
    "discounts",
    "credits_used",
    "tax",
    "total_amount",
)

logger = logging.getLogger(__name__)

_DayKey = tuple[date, str, Meter]


@dataclass(slots=True)
class _Sums:
    """The figures of a slice so far."""

    first_day: date
    quantity: defaultdict[_DayKey, int] = field(default_factory=lambda: defaultdict(int))
    cost: defaultdict[_DayKey, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    running_ms: defaultdict[date, int] = field(default_factory=lambda: defaultdict(int))
    measured_ms: defaultdict[date, int] = field(default_factory=lambda: defaultdict(int))
    running: defaultdict[str, list[Statement]] = field(default_factory=lambda: defaultdict(list))
    left_out: int = 0


def add_up_desk(*, now: datetime) -> bool:
    """Add up the slice that was added up longest ago; return False where none is stale.

    Safe to repeat and to run at once: a slice's figures are replaced as a whole, by one at a
    time.
    """
    if DeskSlice.objects.count() < SLICES:
        missing = [DeskSlice(number=number) for number in range(SLICES)]
        DeskSlice.objects.bulk_create(missing, ignore_conflicts=True)
    with transaction.atomic():
        part = (
            DeskSlice.objects.select_for_update(skip_locked=True)
            .filter(Q(computed_at__isnull=True) | Q(computed_at__lte=now - STALE_AFTER))
            .order_by(F("computed_at").asc(nulls_first=True), "number")
            .first()
        )
        if part is None:
            return False
        _add_up(part, now=now)
    return True


def _add_up(part: DeskSlice, *, now: datetime) -> None:
    ids = (UUID(int=part.number << 124), UUID(int=((part.number + 1) << 124) - 1))
    accounts = Account.objects.filter(pk__range=ids).order_by("pk")
    sums = _Sums(_first_day(part, ids, now=now))
    after: UUID | None = None
    while True:
        rows = accounts.filter(pk__gt=after) if after else accounts
        some = list(rows[:ACCOUNTS_AT_ONCE])
        if some:
            _add_accounts(sums, some, now=now)
        if len(some) < ACCOUNTS_AT_ONCE:
            break
        after = some[-1].pk
    _replace(part, sums, now=now)


def _first_day(part: DeskSlice, ids: tuple[UUID, UUID], *, now: datetime) -> date:
    """Return the day from which on the slice's figures may have changed since the last time."""
    today = now.date()
    oldest = today - timedelta(days=KEPT_DAYS)
    if part.computed_at is None:
        return oldest
    changed = InvoiceTransition.objects.filter(
        at__gte=part.computed_at - _OVERLAP, invoice__account__id__range=ids
    ).aggregate(first=Min("invoice__period_start"))["first"]
    days = [today - timedelta(days=RECENT_DAYS)]
    if changed:
        days.append(changed.date() - _DAY)
    return max(oldest, min(days))


def _add_accounts(sums: _Sums, accounts: Sequence[Account], *, now: datetime) -> None:
    ids = [account.pk for account in accounts]
    # The first periods begin before the first day, and their costs are shared out over all of
    # their days.
    first = sums.first_day - _LONGEST_PERIOD
    usage = daily_usage_of(ids, first, now.date() + _DAY)
    calendars = calendars_of(ids)
    invoiced = _invoiced_lines(ids, since=sums.first_day)
    stated = _statements(sums, accounts, now=now)
    for account in accounts:
        days = usage.get(account.pk, [])
        calendar = calendars.get(account.pk)
        costs = []
        if calendar:
            costs = [
                _cost(calendar, meter, period, amount)
                for meter, period, amount in (
                    *invoiced.get(account.pk, ()),
                    *_stated_lines(stated.get(account.pk, ())),
                )
            ]
        _add_days(sums, account.currency, days, costs)


def _invoiced_lines(
    ids: Sequence[UUID], *, since: date
) -> Mapping[UUID, list[tuple[Meter, Period, Money]]]:
    """Return the usage lines of final invoices whose periods reach `since` or later."""
    lines = (
        InvoiceLine.objects.filter(
            kind=InvoiceLine.Kind.USAGE,
            invoice__account__in=ids,
            invoice__kind__in=BILLING_A_PERIOD,
            # A local day may begin a day before the day of that name in UTC.
            invoice__period_end__date__gte=since - _DAY,
        )
        .exclude(invoice__status__in=NOT_FINAL)
        .values_list(
            "invoice__account_id",
            "invoice__currency",
            "meter",
            "period_start",
            "period_end",
            "amount",
        )
    )
    by_account: defaultdict[UUID, list[tuple[Meter, Period, Money]]] = defaultdict(list)
    for account_id, currency, meter, start, end, amount in lines:
        by_account[account_id].append((Meter(meter), Period(start, end), Money(amount, currency)))
    return by_account


def _statements(
    sums: _Sums, accounts: Sequence[Account], *, now: datetime
) -> Mapping[UUID, list[Statement]]:
    """Return the statements of each account's periods that are not closed, up to now."""
    wanted = [
        AccountPeriod(account, period)
        for account in accounts
        for period in _open_periods(account, now=now)
    ]
    by_account: defaultdict[UUID, list[Statement]] = defaultdict(list)
    failed: set[UUID] = set()
    for one, facts in zip(wanted, facts_of(wanted), strict=True):
        try:
            if isinstance(facts, ValueError):
                raise facts
            statement = state_period(facts)
        except (ValueError, NegativeTotalError):
            logger.warning(
                "account is in no figure of the desk",
                exc_info=True,
                extra={"account_id": one.account.pk},
            )
            failed.add(one.account.pk)
            continue
        by_account[one.account.pk].append(statement)
        if one.period.start <= now < one.period.end:
            sums.running[one.account.currency].append(statement)
    sums.left_out += len(failed)
    return by_account


def _open_periods(account: Account, *, now: datetime) -> Iterator[Period]:
    """Yield the periods that are not closed, as far as the desk keeps days, up to that of now."""
    schedule = schedule_of(account)
    period = account.open_period
    while period.start <= now:
        if period.end > now - timedelta(days=KEPT_DAYS):
            yield period
        period = schedule.starting(period.end)


def _stated_lines(statements: Sequence[Statement]) -> Iterator[tuple[Meter, Period, Money]]:
    for statement in statements:
        for line in statement.rating.lines:
            yield line.meter, line.period, line.amount


def _cost(calendar: Calendar, meter: Meter, period: Period, amount: Money) -> UsageCost:
    last = calendar.day_of(max(period.start, period.end - WINDOW))
    return UsageCost(meter, calendar.day_of(period.start), last, amount)


def _add_days(
    sums: _Sums, currency: str, days: Sequence[DayUsage], costs: Sequence[UsageCost]
) -> None:
    for day in days:
        if day.day < sums.first_day:
            continue
        sums.running_ms[day.day] += day.running_ms
        sums.measured_ms[day.day] += day.measured_ms
        for meter, quantity in day.usage.items():
            sums.quantity[day.day, currency, meter] += quantity
    usage = {day.day: day.usage for day in days}
    for (on, meter), amount in cost_by_day(costs, usage).items():
        if on >= sums.first_day:
            sums.cost[on, currency, meter] += amount


def _replace(part: DeskSlice, sums: _Sums, *, now: datetime) -> None:
    kept_since = now.date() - timedelta(days=KEPT_DAYS)
    is_replaced = Q(day__gte=sums.first_day) | Q(day__lt=kept_since)
    part.days.filter(is_replaced).delete()
    part.coverage.filter(is_replaced).delete()
    part.running.all().delete()
    DeskDay.objects.bulk_create(
        DeskDay(
            part=part,
            day=key[0],
            currency=key[1],
            meter=key[2],
            quantity=sums.quantity.get(key, 0),
            cost=sums.cost.get(key, Decimal(0)),
        )
        for key in sorted({*sums.quantity, *sums.cost})
    )
    DeskCoverage.objects.bulk_create(
        DeskCoverage(part=part, day=day, running_ms=running, measured_ms=sums.measured_ms[day])
        for day, running in sorted(sums.running_ms.items())
    )
    DeskRunning.objects.bulk_create(
        DeskRunning(
            part=part,
            currency=currency,
            accounts=len(statements),
            **{
                name: Money.total(
                    (getattr(statement.totals, name) for statement in statements), currency
                ).amount
                for name in _RUNNING_FIGURES
            },
        )
        for currency, statements in sorted(sums.running.items())
    )
    part.computed_at, part.left_out = now, sums.left_out
    part.save(update_fields=["computed_at", "left_out"])
