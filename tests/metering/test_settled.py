from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from random import Random
from uuid import UUID

import pytest
from django.db.models import F
from pytest_django import DjangoAssertNumQueries

from metering.models import (
    AccountRegistration,
    DailyUsageTotal,
    SettledDays,
    TouchedDay,
    UsageRecord,
)
from metering.period import Period
from metering.services import change_time_zone
from metering.settled import SpanUsage, usage_so_far
from metering.summaries import summarise_touched_days
from metering.totals import running_of_spans, usage_of_spans
from tests.metering.batches import Host

pytestmark = pytest.mark.django_db

HOUR, DAY, QUARTER = timedelta(hours=1), timedelta(days=1), timedelta(minutes=15)
FIRST = datetime(2026, 10, 28, tzinfo=UTC)
ZONES = ("UTC", "Asia/Kathmandu", "America/New_York", "Pacific/Kiritimati")
MOMENTS = 10
"""So many times a story is looked at, and hourly runs are missed or not between them."""


def by_records(spans: list[tuple[UUID, Period]]) -> list[SpanUsage]:
    """Return what usage_so_far has to say, the slow and plain way."""
    return [
        SpanUsage(usage, *running)
        for usage, running in zip(usage_of_spans(spans), running_of_spans(spans), strict=True)
    ]


def assert_it_is_what_records_say(chance: Random, now: datetime) -> None:
    spans = []
    for account in AccountRegistration.objects.order_by("pk"):
        for _ in range(4):
            start = FIRST + chance.randrange(96 * 8) * QUARTER
            spans.append(
                (account.pk, Period(start, start + chance.randrange(1, 96 * 12) * QUARTER))
            )
        spans.append((account.pk, Period(FIRST - 30 * DAY, now + DAY)))
    found = usage_so_far(spans)
    assert found == by_records(spans)
    assert [list(one.usage) for one in found] == [list(one.usage) for one in by_records(spans)]


@pytest.mark.parametrize("seed", range(6))
def test_it_is_what_the_records_add_up_to_at_every_moment(seed: int) -> None:
    chance = Random(seed)  # noqa: S311 -- the same story in each run
    host = Host(registered_at=FIRST - DAY)
    accounts = [host.account(zone) for zone in chance.sample(ZONES, 2)]
    lives: dict[int, tuple[datetime, datetime]] = {}
    now = FIRST
    has_settled = False
    for _ in range(MOMENTS):
        for account in accounts:
            if chance.random() < 0.6:
                start = now + chance.randrange(8) * HOUR
                life = host.start(account, f"sbx-{chance.randrange(3)}", start)
                lives[life] = start, start
        now += chance.randrange(10, 40) * HOUR
        for life, (start, last) in lives.items():
            if chance.random() < 0.7 and last < now:
                # Some were not read for days, so that their growth is of days long past.
                host.read(
                    life,
                    now,
                    cpu_ns=int((now - start).total_seconds()) * 10**9,
                    network={"eth0": (int((now - start).total_seconds()), 3)},
                    storage_bytes=2**20,
                )
                lives[life] = start, now
        host.fold(now + HOUR)
        now += HOUR
        if chance.random() < 0.2:
            change_time_zone(chance.choice(accounts), time_zone=chance.choice(ZONES), now=now)
        assert_it_is_what_records_say(chance, now)
        if chance.random() < 0.7:
            summarise_touched_days(now=now)
            assert_it_is_what_records_say(chance, now)
        has_settled |= SettledDays.objects.filter(until__gt=F("since")).exists()
    assert has_settled
    assert UsageRecord.objects.exists()


def settled_account() -> tuple[UUID, Period, datetime]:
    """Return an account that ran for six days, whose first ones are settled."""
    host = Host(registered_at=FIRST)
    account = host.account()
    life = host.start(account, "sbx", FIRST)
    now = FIRST + 6 * DAY
    host.read(life, now, cpu_ns=6 * 86_400 * 10**9)
    host.fold(now)
    summarise_touched_days(now=now)
    return account, Period(FIRST, FIRST + 30 * DAY), now


def falsify(day: date) -> None:
    assert DailyUsageTotal.objects.filter(day=day).update(cpu_ns=F("cpu_ns") + 1) == 1


def test_settled_days_are_read_from_their_totals_and_others_are_not() -> None:
    account, period, _ = settled_account()
    [settled] = SettledDays.objects.all()
    assert (settled.since, settled.until) == (FIRST.date(), (FIRST + 4 * DAY).date())
    falsify(settled.until)
    assert usage_so_far([(account, period)]) == by_records([(account, period)])
    falsify(settled.until - DAY)
    assert usage_so_far([(account, period)]) != by_records([(account, period)])
    # A span that begins inside the day does not read its total.
    inside = Period(FIRST + 3 * DAY + HOUR, period.end)
    assert usage_so_far([(account, inside)]) == by_records([(account, inside)])


def test_from_a_marked_day_on_records_are_read() -> None:
    account, period, _ = settled_account()
    marked = FIRST + 2 * DAY
    falsify(marked.date())
    TouchedDay.objects.create(account_id=account, day=marked.date())
    assert usage_so_far([(account, period)]) == by_records([(account, period)])


def test_days_that_no_run_recomputed_are_not_settled() -> None:
    account, period, now = settled_account()
    later = now + 60 * DAY
    UsageRecord.objects.filter(window_start__gte=FIRST + 5 * DAY).delete()
    host = Host(registered_at=FIRST)
    host.start(account, "sbx", later)
    # Further back than a run looks: what lies between is recomputed by nobody.
    summarise_touched_days(now=later)
    [settled] = SettledDays.objects.all()
    assert (settled.since, settled.until) == (
        (later - 35 * DAY).date(),
        (later - 2 * DAY).date(),
    )
    assert usage_so_far([(account, period)]) == by_records([(account, period)])


def test_many_accounts_and_spans_are_two_queries(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    account, period, _ = settled_account()
    other = Host().account()
    with django_assert_num_queries(2):
        usage_so_far([(account, period), (other, period), (account, Period(FIRST, FIRST + DAY))])
    assert usage_so_far([]) == []
