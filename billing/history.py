"""Which billing periods an account had, and how its time was cut into them then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db.models import Sum

from billing.account_terms import schedule_of
from billing.lifecycle import NOT_FINAL
from billing.models import Account, Invoice, InvoiceLine
from billing.periods import Cycle, Schedule, cover
from billing.rating import Rating
from metering.calendars import calendar_of
from metering.meters import Meter
from metering.period import WINDOW, Period

BILLING_A_PERIOD = (Invoice.Kind.USAGE, Invoice.Kind.FINAL)
"""The kinds of invoice of which a period has one."""
_SLIVER = timedelta(days=2)
"""What a change of time zone can leave between two cuts is shorter; no period is."""


class UsageNotKeptError(Exception):
    """Less usage is found in a period than its invoice charged for: records were dropped."""


def billing_periods(
    account: Account, span: Period, *, schedule: Schedule | None = None
) -> list[Period]:
    """Return the account's billing periods that share time with `span`, in order.

    A closed period is what its invoice says it was, whatever time zone the account had then.
    Closed time without an invoice held nothing to ask for, so it costs the same however it is
    cut: it is cut as the account's time is cut now. From the open period on the schedule says,
    which is read unless it is given.
    """
    schedule = schedule or schedule_of(account)
    periods = list(_closed_periods(account, schedule))
    period = account.open_period
    while period.start < span.end:
        periods.append(period)
        period = schedule.starting(period.end)
    return [period for period in periods if period.overlap(span)]


def last_closed_periods(account: Account, count: int) -> list[Period]:
    """Return the last `count` closed billing periods of the account, or as many as it had."""
    return list(_closed_periods(account, schedule_of(account)))[-count:]


def schedule_in(account: Account, period: Period) -> Schedule:
    """Return how the account's time was cut around one of its periods.

    The cycle of now where it fits; else the former time zone and the day that the period's ends
    tell, so that a period that was a whole one then is a whole one still.
    """
    schedule = schedule_of(account)
    last = period.end - WINDOW
    if schedule.whole(last).end == period.end:
        return schedule
    if any(followed.start == period.end for followed in schedule.followed):
        # A provider's periods took over: where it ends tells nothing of the cycle before.
        return schedule
    for zone in reversed(calendar_of(account.pk).zones):
        cycle = Cycle(zone, max(_day(period.start, zone), _day(period.end, zone)))
        if cycle.containing(last).end == period.end:
            return Schedule(cycle)
    return schedule


def invoiced_usage(account_id: UUID, span: Period) -> dict[datetime, dict[Meter, int]]:
    """Return what final invoices charged for in periods that share time with `span`.

    By the period's start, in base units.
    """
    rows = (
        InvoiceLine.objects.filter(
            kind=InvoiceLine.Kind.USAGE,
            quantity__gt=0,
            invoice__account_id=account_id,
            invoice__kind__in=BILLING_A_PERIOD,
            invoice__period_start__lt=span.end,
            invoice__period_end__gt=span.start,
        )
        .exclude(invoice__status__in=NOT_FINAL)
        .values_list("invoice__period_start", "meter")
        .annotate(total=Sum("quantity"))
        .order_by("invoice__period_start")
    )
    usage: dict[datetime, dict[Meter, int]] = {}
    for start, meter, total in rows:
        usage.setdefault(start, {})[Meter(meter)] = int(total)
    return usage


def refuse_lost_usage(rating: Rating, invoiced: Mapping[Meter, int]) -> None:
    """Raise UsageNotKeptError when less usage was rated than was invoiced."""
    rated = Counter[Meter]()
    for line in rating.lines:
        rated[line.meter] += line.quantity
    if any(rated[meter] < quantity for meter, quantity in invoiced.items()):
        raise UsageNotKeptError


def _closed_periods(account: Account, schedule: Schedule) -> Iterator[Period]:
    end = account.open_period_start
    # A void invoice tells its period too. One that was made again has the same.
    bounds = (
        Invoice.objects.filter(account=account, kind__in=BILLING_A_PERIOD, period_end__lte=end)
        .order_by("period_start")
        .values_list("period_start", "period_end")
        .distinct()
    )
    known = [Period(*bound) for bound in bounds]
    if known and known[0].start <= account.opened_at:
        start = known[0].start
    else:
        # The zone of then; the anchor day of then is told by nothing.
        cycle = Cycle(calendar_of(account.pk).zones[0], account.anchor_day)
        start = cycle.containing(account.opened_at).start
    if start >= end:
        return
    for span, invoiced in cover(Period(start, end), [(p, p) for p in known], between=None):
        if invoiced:
            yield invoiced
        else:
            yield from _cut(span, schedule)


def _cut(gap: Period, schedule: Schedule) -> Iterator[Period]:
    """Yield periods of the schedule's cycle that make up `gap`, with no sliver at either end."""
    start = gap.start
    while start < gap.end:
        end = schedule.cycle.containing(start + _SLIVER).end
        if gap.end - end < _SLIVER:
            end = gap.end
        yield Period(start, end)
        start = end


def _day(moment: datetime, zone: ZoneInfo) -> int:
    return moment.astimezone(zone).day
