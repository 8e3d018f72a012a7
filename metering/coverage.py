"""How much of the time that sandboxes ran was measured, and when and why the rest was not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from uuid import UUID

from django.db.models import Count, F, Q, QuerySet, Sum

from metering.calendars import calendar_of
from metering.models import AccountRegistration, DailyUsageSummary, Gap, Sandbox
from metering.queries import Coverage

# A page is made from these; a shorter period has all of its own.
MOST_SANDBOXES = 1000
MOST_GAPS = 1000

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class CoverageOfDay:
    """One local day of an account, and how many of its sandboxes had usage."""

    day: date
    sandboxes: int
    running_ms: int
    measured_ms: int


@dataclass(frozen=True, slots=True)
class CoverageOfSandbox:
    """One sandbox in the days asked for, by the customer's name for it."""

    sandbox_id: str
    running_ms: int
    measured_ms: int


@dataclass(frozen=True, slots=True)
class GapOfSandbox:
    """Time in which a sandbox ran, or its storage existed, and a meter was not measured."""

    sandbox_id: str
    meter: str
    reason: str
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class AccountCoverage:
    """The coverage of an account's days. What is left out of a list is counted beside it."""

    start: date
    end: date
    time_zone: str
    total: Coverage
    days: list[CoverageOfDay]
    sandboxes: list[CoverageOfSandbox]
    sandboxes_left_out: int
    gaps: list[GapOfSandbox]
    gaps_left_out: int


@dataclass(frozen=True, slots=True)
class GapsOfReason:
    """The gaps of one meter and reason."""

    meter: str
    reason: str
    count: int
    total: timedelta


def account_coverage(account_id: UUID, *, start: date, end: date) -> AccountCoverage:
    """Return the coverage of an account's local days from `start` to before `end`.

    Read from the day summaries, so up to an hour old. Sandboxes come with the longest
    unmeasured time first, gaps with the newest first, each up to a limit.
    Raises AccountRegistration.DoesNotExist.
    """
    account = AccountRegistration.objects.get(pk=account_id)
    days = _coverage_by_day(account_id, start, end)
    sandboxes, sandboxes_left_out = _coverage_by_sandbox(account_id, start, end)
    gaps, gaps_left_out = _gaps_of(account, start, end)
    return AccountCoverage(
        start=start,
        end=end,
        time_zone=account.time_zone,
        total=Coverage(
            running_ms=sum(day.running_ms for day in days),
            measured_ms=sum(day.measured_ms for day in days),
        ),
        days=days,
        sandboxes=sandboxes,
        sandboxes_left_out=sandboxes_left_out,
        gaps=gaps,
        gaps_left_out=gaps_left_out,
    )


def gaps_by_reason(sandbox: Sandbox) -> list[GapsOfReason]:
    """Return how many gaps a sandbox has, and how long they are, by meter and reason."""
    rows = (
        Gap.objects.filter(life__sandbox=sandbox)
        .values("meter", "reason")
        .annotate(count=Count("pk"), total=Sum(F("end") - F("start")))
        .order_by("-total")
    )
    return [GapsOfReason(row["meter"], row["reason"], row["count"], row["total"]) for row in rows]


def _coverage_by_day(account_id: UUID, start: date, end: date) -> list[CoverageOfDay]:
    rows = (
        _summaries(account_id, start, end)
        .values("day")
        .annotate(sandboxes=Count("pk"), running=Sum("running_ms"), measured=Sum("measured_ms"))
        .order_by("day")
    )
    return [
        CoverageOfDay(row["day"], row["sandboxes"], int(row["running"]), int(row["measured"]))
        for row in rows
    ]


def _coverage_by_sandbox(
    account_id: UUID, start: date, end: date
) -> tuple[list[CoverageOfSandbox], int]:
    """Return the sandboxes, and how many a page leaves out."""
    rows = (
        _summaries(account_id, start, end)
        .values("sandbox__sandbox_id")
        .annotate(running=Sum("running_ms"), measured=Sum("measured_ms"))
        .order_by(F("measured") - F("running"), "sandbox__sandbox_id")
    )
    shown = [
        CoverageOfSandbox(row["sandbox__sandbox_id"], int(row["running"]), int(row["measured"]))
        for row in rows[:MOST_SANDBOXES]
    ]
    return shown, rows.count() - len(shown) if len(shown) == MOST_SANDBOXES else 0


def _gaps_of(
    account: AccountRegistration, start: date, end: date
) -> tuple[list[GapOfSandbox], int]:
    """Return the gaps, and how many a page leaves out."""
    period = calendar_of(account.pk).span(start, end - _DAY)
    if period is None:
        return [], 0
    gaps = (
        Gap.objects.filter(life__sandbox__account=account)
        .filter(start__lt=period.end, end__gt=period.start)
        # Of the lives there ever were, only these can have any.
        .filter(Q(life__gone_at__isnull=True) | Q(life__gone_at__gt=period.start))
        .order_by("-start", "-pk")
    )
    shown = [
        GapOfSandbox(gap.life.sandbox.sandbox_id, gap.meter, gap.reason, gap.start, gap.end)
        for gap in gaps.select_related("life__sandbox")[:MOST_GAPS]
    ]
    return shown, gaps.count() - len(shown) if len(shown) == MOST_GAPS else 0


def _summaries(account_id: UUID, start: date, end: date) -> QuerySet[DailyUsageSummary]:
    return DailyUsageSummary.objects.filter(account=account_id, day__gte=start, day__lt=end)
