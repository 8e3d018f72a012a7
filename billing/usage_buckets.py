"""How the time of a history is cut: buckets that are shown, and slices that make them up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from uuid import UUID

from billing.period_costs import MeterSpan
from metering.days import Calendar
from metering.period import Period
from metering.summaries import RECENT, records_kept_since
from metering.used_slices import Grouping, Slices

_DAY, _HOUR = timedelta(days=1), timedelta(hours=1)


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
class Plan:
    """How the time is cut. `bucket_of` says for each slice whose it is; None: of none."""

    slices: Slices
    bucket_of: Sequence[int | None]
    buckets: Sequence[Period]

    @property
    def asked(self) -> range:
        """The slices that are in a bucket: they follow one another."""
        places = [at for at, bucket in enumerate(self.bucket_of) if bucket is not None]
        return range(places[0], places[-1] + 1) if places else range(0)


def buckets_of(asked: Asked, calendar: Calendar, now: datetime) -> Iterator[Period]:
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


def refuse_dropped(whole: Period, now: datetime) -> None:
    """Raise HistoryRefusedError where records of the time may be dropped already."""
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


def cut_hours(
    account_id: UUID,
    buckets: Sequence[Period],
    periods: Sequence[Period],
    spans: Sequence[MeterSpan],
) -> Plan:
    """Cut the time into the buckets, and where prices or billing periods change inside one."""
    end = buckets[-1].end
    begun = {bucket.start for bucket in buckets}
    inside = {cut for cut in _cuts(periods, spans) if buckets[0].start < cut < end}
    starts = sorted(begun | inside)
    bucket_of: list[int | None] = []
    at = -1
    for start in starts:
        at += start in begun
        bucket_of.append(at)
    return Plan(Slices(account_id, starts, end, records_from=starts[0]), bucket_of, buckets)


def cut_days(
    account_id: UUID,
    buckets: Sequence[Period],
    periods: Sequence[Period],
    spans: Sequence[MeterSpan],
    calendar: Calendar,
    now: datetime,
) -> Plan:
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
    return Plan(slices, list(_places(starts, buckets)), buckets)


def _tomorrow(calendar: Calendar, now: datetime) -> datetime:
    return calendar.start_of(calendar.day_of(now) + _DAY)


def _places(starts: Sequence[datetime], buckets: Sequence[Period]) -> Iterator[int | None]:
    at = 0
    for start in starts:
        while at < len(buckets) and start >= buckets[at].end:
            at += 1
        yield at if at < len(buckets) and start in buckets[at] else None
