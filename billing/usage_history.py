"""Usage and its exact cost over time: by hour, local day or month, and by sandbox or label.

A closed period cost what its invoice says, the others what they come to as known now; that is
shared out over the period's slices by quantity. So buckets that make up a billing period sum to
its raw cost, to the last digit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from fractions import Fraction
from itertools import pairwise
from uuid import UUID

from billing.cost_flow import CostedSpan, share_in_order
from billing.history import billing_periods
from billing.models import Account
from billing.period_costs import MeterSpan, period_costs
from billing.queries import one_snapshot
from metering.calendars import calendar_of
from metering.days import Calendar
from metering.meters import Meter
from metering.period import Period, window_start
from metering.summaries import RECENT, records_kept_since
from metering.used_slices import (
    Grouping,
    Slices,
    Used,
    costliest_keys,
    usage_of_keys,
    usage_of_slices,
)

MOST_CELLS = 20_000
"""How many rows of groups one answer may have."""
_DAY, _HOUR = timedelta(days=1), timedelta(hours=1)
_ZERO = Fraction(0)

Costs = dict[int, dict[Meter, Fraction]]
"""What each slice cost, by meter."""


class Granularity(StrEnum):
    """How long a bucket is; days and months are the account's."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


class HistoryRefusedError(ValueError):
    """It cannot be answered for; `field` names what is no good."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for: the local days from `start` to before `end`.

    `most` is how many groups are told apart. Without a grouping there are none.
    """

    start: date
    end: date
    granularity: Granularity
    grouping: Grouping | None = None
    most: int = 0


@dataclass(frozen=True, slots=True)
class Share:
    """What was used and what it cost: exact, in base units."""

    usage: dict[Meter, int]
    cost_by_meter: dict[Meter, Fraction]

    @property
    def cost(self) -> Fraction:
        """The exact cost of all meters."""
        return sum(self.cost_by_meter.values(), start=_ZERO)


@dataclass(frozen=True, slots=True)
class Bucket:
    """One hour, day or month. `groups` and `other` sum to the whole, less `without_usage`."""

    period: Period
    whole: Share
    without_usage: Fraction
    groups: Sequence[tuple[str | None, Share]]
    other: Share | None


@dataclass(frozen=True, slots=True)
class History:
    """The buckets in order, and how many groups there are in all of them together."""

    period: Period
    time_zone: str
    currency: str
    buckets: Sequence[Bucket]
    group_count: int


@dataclass(frozen=True, slots=True)
class _Plan:
    """How the time is cut. `bucket_of` says for each slice whose it is; None: of none."""

    slices: Slices
    bucket_of: Sequence[int | None]
    buckets: Sequence[Period]

    @property
    def asked(self) -> range:
        """The slices that are in a bucket: they follow one another."""
        places = [at for at, bucket in enumerate(self.bucket_of) if bucket is not None]
        return range(places[0], places[-1] + 1) if places else range(0)


def usage_history(account_id: UUID, asked: Asked, *, now: datetime) -> History:
    """Return what the account used and what it cost, bucket by bucket, up to `now`.

    Buckets that have not begun are left out. Raises HistoryRefusedError, Account.DoesNotExist.
    """
    with one_snapshot():
        account = Account.objects.get(pk=account_id)
        calendar = calendar_of(account_id)
        buckets = list(_buckets(asked, calendar, now))
        if not buckets:
            raise HistoryRefusedError("start_date", "It lies ahead.")
        if asked.grouping and len(buckets) * (asked.most + 1) > MOST_CELLS:
            raise HistoryRefusedError(
                "top",
                f"{len(buckets)} buckets of {asked.most} groups are too many. Ask for fewer "
                f"groups or days: at most {MOST_CELLS:,} rows are given at once.",
            )
        whole = Period(buckets[0].start, buckets[-1].end)
        periods = billing_periods(account, whole)
        spans = period_costs(account, periods)
        if asked.granularity is Granularity.HOUR:
            _refuse_dropped(whole, now)
            plan = _hours(account_id, buckets, periods, spans)
            used, costs, without = _cost_of_hours(plan, spans)
        else:
            plan = _days(account_id, buckets, periods, spans, calendar, now)
            plan, used, costs, without = _cost_of_days(account, plan, periods, spans)
        return _put_together(
            asked, plan, used, costs, without, currency=account.currency, zone=account.time_zone
        )


def _buckets(asked: Asked, calendar: Calendar, now: datetime) -> Iterator[Period]:
    """Yield the buckets that have begun, in order; what a zone leaves out is in none."""
    day = asked.start
    while day < asked.end:
        following = day + _DAY
        if asked.granularity is Granularity.MONTH:
            following = min((day.replace(day=1) + 31 * _DAY).replace(day=1), asked.end)
        span = calendar.span(day, following - _DAY)
        day = following
        if span is None or span.start > now:
            continue
        if asked.granularity is not Granularity.HOUR:
            yield span
            continue
        start = span.start
        while start < span.end and start <= now:
            yield Period(start, min(start + _HOUR, span.end))
            start += _HOUR


def _refuse_dropped(whole: Period, now: datetime) -> None:
    kept = records_kept_since(now)
    if whole.start < kept:
        raise HistoryRefusedError(
            "start_date",
            f"Hours are kept from {kept.date() + _DAY} on. Ask for days before that.",
        )


def _cuts(periods: Sequence[Period], spans: Sequence[MeterSpan]) -> set[datetime]:
    """Return the moments at which other prices or another billing period begin."""
    every = [*periods, *(span.period for span in spans)]
    return {bound for period in every for bound in (period.start, period.end)}


def _hours(
    account_id: UUID,
    buckets: Sequence[Period],
    periods: Sequence[Period],
    spans: Sequence[MeterSpan],
) -> _Plan:
    end = buckets[-1].end
    begun = {bucket.start for bucket in buckets}
    inside = {cut for cut in _cuts(periods, spans) if buckets[0].start < cut < end}
    starts = sorted(begun | inside)
    bucket_of: list[int | None] = []
    at = -1
    for start in starts:
        at += start in begun
        bucket_of.append(at)
    return _Plan(Slices(account_id, starts, end, records_from=starts[0]), bucket_of, buckets)


def _days(
    account_id: UUID,
    buckets: Sequence[Period],
    periods: Sequence[Period],
    spans: Sequence[MeterSpan],
    calendar: Calendar,
    now: datetime,
) -> _Plan:
    """Cut the time into runs of days, as long as bucket, period and prices stay the same.

    It reaches as far as the billing periods do that it shares time with, since costs are shared
    out over whole ones.
    """
    first = min((buckets[0].start, *(period.start for period in periods)))
    last = min(
        max((buckets[-1].end, *(period.end for period in periods))), _tomorrow(calendar, now)
    )
    end_day = calendar.day_of(max(last, buckets[-1].end) - timedelta(microseconds=1)) + _DAY
    records_day = calendar.day_of(max(now - RECENT, records_kept_since(now) + _DAY))
    wanted = {calendar.day_of(first), records_day}
    wanted |= {calendar.day_of(bucket.start) for bucket in buckets}
    wanted.add(calendar.day_of(buckets[-1].end))
    for cut in _cuts(periods, spans):
        day = calendar.day_of(cut)
        wanted.add(day)
        if calendar.start_of(day) != cut:
            # The day lies on both sides of it, and is a slice by itself.
            wanted.add(day + _DAY)
    days = sorted(day for day in wanted if calendar.day_of(first) <= day < end_day)
    starts = [calendar.start_of(day) for day in days]
    end = calendar.start_of(end_day)
    slices = Slices(
        account_id,
        starts,
        end,
        records_from=min(max(calendar.start_of(records_day), starts[0]), end),
        first_days=days,
        records_day=records_day,
    )
    return _Plan(slices, list(_places(starts, buckets)), buckets)


def _tomorrow(calendar: Calendar, now: datetime) -> datetime:
    return calendar.start_of(calendar.day_of(now) + _DAY)


def _places(starts: Sequence[datetime], buckets: Sequence[Period]) -> Iterator[int | None]:
    at = 0
    for start in starts:
        while at < len(buckets) and start >= buckets[at].end:
            at += 1
        yield at if at < len(buckets) and start in buckets[at] else None


def _cost_of_hours(
    plan: _Plan, spans: Sequence[MeterSpan]
) -> tuple[Used, Costs, dict[int, Fraction]]:
    """Return what each slice used and cost: each lies in one span of each meter."""
    used = usage_of_slices(plan.slices)
    costs: Costs = {}
    without: dict[int, Fraction] = {}
    bounds = [*plan.slices.starts, plan.slices.end]
    for at, (start, end) in enumerate(pairwise(bounds)):
        for span in spans:
            if start not in span.period:
                continue
            if span.quantity:
                quantity = used.get(at, {}).get(span.meter, 0)
                if quantity and span.cost:
                    cost = span.cost * quantity / span.quantity
                    costs.setdefault(at, {})[span.meter] = cost
            elif window_start(end) >= span.period.end:
                without[at] = without.get(at, _ZERO) + span.cost
    return used, costs, without


def _cost_of_days(
    account: Account, plan: _Plan, periods: Sequence[Period], spans: Sequence[MeterSpan]
) -> tuple[_Plan, Used, Costs, dict[int, Fraction]]:
    """Return the plan, and what each slice used and cost.

    Summaries follow the records within the hour. Where those of the open period are behind, its
    days are taken from the records instead, and the plan that is returned says so.
    """
    used = usage_of_slices(plan.slices)
    open_start = account.open_period_start
    if not _adds_up(plan, used, spans, since=open_start):
        fresh = min(open_start, plan.slices.records_from)
        slices = plan.slices
        slices = Slices(
            slices.account_id,
            slices.starts,
            slices.end,
            records_from=max(fresh, slices.starts[0]),
            first_days=slices.first_days,
            records_day=next(
                day
                for day, start in zip(slices.first_days, slices.starts, strict=True)
                if start >= fresh
            ),
        )
        plan = _Plan(slices, plan.bucket_of, plan.buckets)
        used = usage_of_slices(slices)
    costs: Costs = {}
    without: dict[int, Fraction] = {}
    for first, last, chunk in _chunks(plan, periods):
        for meter in Meter:
            of_meter = [s for s in spans if s.meter is meter and s.period.start in chunk]
            if not of_meter:
                continue
            shared = share_in_order(
                [CostedSpan(span.quantity, span.cost) for span in of_meter],
                [used.get(at, {}).get(meter, 0) for at in range(first, last)],
            )
            for at, cost in enumerate(shared.costs, start=first):
                if cost:
                    costs.setdefault(at, {})[meter] = cost
            if shared.without_usage:
                without[last - 1] = without.get(last - 1, _ZERO) + shared.without_usage
    return plan, used, costs, without


def _adds_up(plan: _Plan, used: Used, spans: Sequence[MeterSpan], *, since: datetime) -> bool:
    """Return whether the slices since then hold what is charged for."""
    starts = plan.slices.starts
    charged: dict[Meter, int] = {}
    for span in spans:
        if span.period.start >= since:
            charged[span.meter] = charged.get(span.meter, 0) + span.quantity
    found = dict.fromkeys(charged, 0)
    for at, by_meter in used.items():
        if starts[at] >= since:
            for meter in charged:
                found[meter] += by_meter.get(meter, 0)
    return found == charged


def _chunks(plan: _Plan, periods: Sequence[Period]) -> Iterator[tuple[int, int, Period]]:
    """Yield the slices, from one to before another, of billing periods that share no slice.

    Mostly of one period; more where one ends inside a day.
    """
    places = {start: at for at, start in enumerate(plan.slices.starts)}
    begun, first = None, 0
    for period in periods:
        if begun is None and period.start < plan.slices.end:
            begun, first = period, _place_of(plan, period.start)
        if begun and (period.end in places or period is periods[-1]):
            last = places.get(period.end, len(plan.slices.starts))
            yield first, last, Period(begun.start, period.end)
            begun = None


def _place_of(plan: _Plan, moment: datetime) -> int:
    return max(0, sum(start <= moment for start in plan.slices.starts) - 1)


def _put_together(
    asked: Asked,
    plan: _Plan,
    used: Used,
    costs: Costs,
    without: dict[int, Fraction],
    *,
    currency: str,
    zone: str,
) -> History:
    by_key: dict[str | None, tuple[Used, Costs]] = {}
    count = 0
    if asked.grouping:
        prices = {
            at: {m: cost / used[at][m] for m, cost in by_meter.items() if used.get(at, {}).get(m)}
            for at, by_meter in costs.items()
            if plan.bucket_of[at] is not None
        }
        slices, places = plan.slices, plan.asked
        keys, count = costliest_keys(slices, asked.grouping, prices, asked=places, most=asked.most)
        for key, of_key in usage_of_keys(slices, asked.grouping, keys, asked=places).items():
            priced = {
                at: {m: prices[at][m] * q for m, q in usage.items() if m in prices.get(at, {})}
                for at, usage in of_key.items()
            }
            by_key[key] = of_key, priced
    wholes = _by_bucket(plan, used, costs)
    dues = [_ZERO] * len(plan.buckets)
    for at, due in without.items():
        if (bucket := plan.bucket_of[at]) is not None:
            dues[bucket] += due
    shares = {key: _by_bucket(plan, *of_key) for key, of_key in by_key.items()}
    buckets = []
    for at, period in enumerate(plan.buckets):
        groups = [(key, share) for key, of_key in shares.items() if (share := of_key[at]).usage]
        other = _rest(wholes[at], [share for _, share in groups]) if asked.grouping else None
        buckets.append(Bucket(period, wholes[at], dues[at], groups, other))
    return History(
        Period(plan.buckets[0].start, plan.buckets[-1].end), zone, currency, buckets, count
    )


def _by_bucket(plan: _Plan, used: Used, costs: Costs) -> list[Share]:
    shares = [Share({}, {}) for _ in plan.buckets]
    for at, bucket in enumerate(plan.bucket_of):
        if bucket is None:
            continue
        share = shares[bucket]
        for meter, quantity in used.get(at, {}).items():
            share.usage[meter] = share.usage.get(meter, 0) + quantity
        for meter, cost in costs.get(at, {}).items():
            share.cost_by_meter[meter] = share.cost_by_meter.get(meter, _ZERO) + cost
    return shares


def _rest(whole: Share, groups: Sequence[Share]) -> Share:
    usage, costs = dict(whole.usage), dict(whole.cost_by_meter)
    for group in groups:
        for meter, quantity in group.usage.items():
            usage[meter] -= quantity
        for meter, cost in group.cost_by_meter.items():
            costs[meter] -= cost
    return Share(
        {meter: quantity for meter, quantity in usage.items() if quantity},
        {meter: cost for meter, cost in costs.items() if cost},
    )
