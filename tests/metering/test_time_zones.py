"""An account's days when its time zone changes: no usage counts in two of them, or in none."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test import Client

from metering.audit import audit_usage
from metering.calendars import calendar_of
from metering.coverage import account_coverage
from metering.meters import Meter
from metering.models import (
    AccountRegistration,
    DailyUsageSummary,
    FormerTimeZone,
    TouchedDay,
    UsageRecord,
)
from metering.period import Period
from metering.queries import usage_totals
from metering.services import TimeZoneRefusedError, change_time_zone, freeze_account
from metering.summaries import daily_usage, summarise_touched_days, summarise_usage
from tests.metering.batches import Host

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
SUMMARISED_WITHIN_S = 30
# Zones before and after, and the midnight of the one before at which a period starts.
CHANGES = [
    ("Asia/Tokyo", "America/New_York", datetime(2026, 11, 9, 15, tzinfo=UTC)),
    ("America/New_York", "Asia/Tokyo", datetime(2026, 11, 10, 5, tzinfo=UTC)),
    ("UTC", "Asia/Kathmandu", datetime(2026, 11, 10, tzinfo=UTC)),
    ("Pacific/Kiritimati", "Etc/GMT+12", datetime(2026, 11, 9, 10, tzinfo=UTC)),
    ("Etc/GMT+12", "Pacific/Kiritimati", datetime(2026, 11, 10, 12, tzinfo=UTC)),
]


class Account:
    """An account with one sandbox whose cpu grows by 1000 s each hour, read each hour."""

    def __init__(self, zone: str, start: datetime) -> None:
        self.host = Host(registered_at=start)
        self.account_id: UUID = self.host.account(zone)
        self.start = self.read_until = start
        self.life = self.host.start(self.account_id, "sbx", start)

    def run_until(self, end: datetime) -> None:
        while self.read_until < end:
            self.read_until = min(self.read_until + HOUR, end)
            grown_s = (self.read_until - self.start) // timedelta(seconds=1)
            self.host.read(
                self.life, self.read_until, cpu_ns=grown_s * 10**12, storage_bytes=grown_s
            )
        self.host.fold(end)

    def change(self, zone: str, now: datetime) -> None:
        change_time_zone(self.account_id, time_zone=zone, now=now)

    def days(self) -> dict[date, int]:
        found = daily_usage(self.account_id, date(2026, 1, 1), date(2027, 1, 1))
        return {day.day: day.usage[Meter.CPU] for day in found}

    def rows(self) -> dict[date, Any]:
        return {row["day"]: row for row in DailyUsageSummary.objects.values()}

    def assert_each_window_is_in_one_day(self, before: str, after: str, change: datetime) -> None:
        """Add up every record by the rule, in its own words."""
        day_of_change = change.astimezone(ZoneInfo(before)).date()
        expected: Counter[date] = Counter()
        for record in UsageRecord.objects.all():
            if record.window_start < change:
                day = record.window_start.astimezone(ZoneInfo(before)).date()
            else:
                day = record.window_start.astimezone(ZoneInfo(after)).date()
                day = max(day, day_of_change)
            expected[day] += record.cpu_ns
        assert self.days() == expected
        everything = Period(self.start - DAY, self.read_until + DAY)
        assert sum(expected.values()) == usage_totals(self.account_id, everything)[Meter.CPU]


@pytest.mark.parametrize(("before", "after", "change"), CHANGES)
def test_usage_is_in_one_day_and_days_before_stay_as_they_were(
    before: str, after: str, change: datetime
) -> None:
    account = Account(before, change - 40 * HOUR)
    account.run_until(change + 20 * timedelta(minutes=1))
    summarise_touched_days(now=change + HOUR / 3)
    account.change(after, change)
    over = {
        day: row
        for day, row in account.rows().items()
        if day < change.astimezone(ZoneInfo(before)).date()
    }
    assert over
    for hours in (1, 14, 27, 60):
        account.run_until(change + hours * HOUR)
        summarise_touched_days(now=account.read_until)
        account.assert_each_window_is_in_one_day(before, after, change)
    assert {day: row for day, row in account.rows().items() if day in over} == over


@pytest.mark.parametrize(("before", "after", "change"), CHANGES)
def test_a_change_that_is_called_for_days_late_is_caught_up(
    before: str, after: str, change: datetime
) -> None:
    account = Account(before, change - 30 * HOUR)
    for days in range(1, 6):
        account.run_until(change + days * DAY)
        summarise_touched_days(now=account.read_until)
    account.change(after, change)
    summarise_touched_days(now=account.read_until)
    account.assert_each_window_is_in_one_day(before, after, change)
    assert not TouchedDay.objects.exists()


@pytest.mark.parametrize(("before", "after", "change"), CHANGES)
def test_what_arrives_late_goes_to_the_days_there_were(
    before: str, after: str, change: datetime
) -> None:
    account = Account(before, change - 30 * HOUR)
    account.run_until(change - 28 * HOUR)
    summarise_touched_days(now=account.read_until)
    account.change(after, change)
    # The collector was down for nine days: its growth belongs to all of them.
    later = change + 8 * DAY
    grown_s = (later - account.start) // timedelta(seconds=1)
    account.host.read(account.life, later, cpu_ns=grown_s * 10**12)
    account.host.fold(later)
    account.read_until = later
    summarise_touched_days(now=later)
    account.assert_each_window_is_in_one_day(before, after, change)
    days = account.rows()
    audit = audit_usage(now=later)
    assert audit.failing == {}
    assert next(c for c in audit.checks if c.name == "day summaries").compared
    DailyUsageSummary.objects.filter(day=min(days)).delete()
    summarise_usage(account.account_id, days, now=later)
    account.assert_each_window_is_in_one_day(before, after, change)


@pytest.mark.django_db(transaction=True)
def test_a_summary_waits_for_a_change_that_is_not_committed() -> None:
    before, after, change = CHANGES[0]
    account = Account(before, change - 30 * HOUR)
    account.run_until(change + 5 * DAY)
    with transaction.atomic():
        account.change(after, change)
        thread = threading.Thread(target=summarise, args=[account.read_until])
        thread.start()
        thread.join(1)
        assert thread.is_alive()
    thread.join(SUMMARISED_WITHIN_S)
    assert not thread.is_alive()
    account.assert_each_window_is_in_one_day(before, after, change)


@pytest.mark.django_db(transaction=True)
def test_a_change_waits_for_a_summary_that_is_not_committed() -> None:
    before, after, change = CHANGES[0]
    account = Account(before, change - 30 * HOUR)
    account.run_until(change + 5 * DAY)
    with transaction.atomic():
        # The first there is: nobody else sees its rows, and each of them has to be marked.
        summarise_touched_days(now=account.read_until)
        thread = threading.Thread(target=change_elsewhere, args=[account, after, change])
        thread.start()
        thread.join(1)
    thread.join(SUMMARISED_WITHIN_S)
    assert not thread.is_alive()
    summarise_touched_days(now=account.read_until)
    account.assert_each_window_is_in_one_day(before, after, change)


def summarise(now: datetime) -> None:
    try:
        summarise_touched_days(now=now)
    finally:
        connection.close()


def change_elsewhere(account: Account, zone: str, now: datetime) -> None:
    try:
        account.change(zone, now)
    finally:
        connection.close()


def test_repeating_a_change_changes_nothing() -> None:
    before, after, change = CHANGES[0]
    account = Account(before, change - 30 * HOUR)
    account.run_until(change + HOUR)
    summarise_touched_days(now=account.read_until)
    account.change(after, change)
    summarise_touched_days(now=account.read_until)
    rows = account.rows()
    # Whenever it is repeated.
    for now in (change, change + 3 * DAY, change - 3 * DAY):
        account.change(after, now)
    assert not TouchedDay.objects.exists()
    former = FormerTimeZone.objects.get()
    assert (former.time_zone, former.until) == (before, change)
    assert summarise_touched_days(now=account.read_until).rows == 0
    assert account.rows() == rows


def test_a_change_counts_from_the_start_of_its_window_and_never_before_the_last_one() -> None:
    change = datetime(2026, 11, 10, 7, 52, 3, tzinfo=UTC)
    window = datetime(2026, 11, 10, 7, 45, tzinfo=UTC)
    account = Account("UTC", change - DAY)
    account.change("Asia/Tokyo", change)
    account.change("Europe/Berlin", change)
    account.change("America/New_York", change - DAY)
    assert FormerTimeZone.objects.get().until == window
    found = calendar_of(account.account_id)
    assert (found.zones, found.changes) == (
        (ZoneInfo("UTC"), ZoneInfo("America/New_York")),
        (window,),
    )
    account.change("UTC", change + HOUR)
    assert calendar_of(account.account_id).changes == (window, window + HOUR)


def test_coverage_has_the_gaps_of_the_days_there_were() -> None:
    before, after, change = CHANGES[0]
    account = Account(before, change - 30 * HOUR)
    account.change(after, change)
    account.run_until(change + 20 * HOUR)
    summarise_touched_days(now=account.read_until)
    (today,) = account.days().keys() & {date(2026, 11, 10)}
    covered = account_coverage(account.account_id, start=today, end=today + DAY)
    assert covered.time_zone == after
    # Until midnight in New York: all of it since midnight in Tokyo.
    assert covered.total.running_ms == 20 * 3_600_000
    assert covered.gaps
    assert all(change - HOUR <= gap.start for gap in covered.gaps)


def test_coverage_of_a_day_that_is_left_out_is_empty() -> None:
    before, after, change = CHANGES[-1]
    account = Account(before, change - 3 * HOUR)
    account.change(after, change)
    account.run_until(change + 3 * HOUR)
    summarise_touched_days(now=account.read_until)
    left_out = date(2026, 11, 10)
    covered = account_coverage(account.account_id, start=left_out, end=left_out + DAY)
    assert (covered.days, covered.gaps, covered.gaps_left_out) == ([], [], 0)


def test_an_account_without_usage_has_no_day_marked() -> None:
    account_id = Host().account()
    now = datetime(2026, 11, 10, tzinfo=UTC)
    freeze_account(account_id, until=now)
    change_time_zone(account_id, time_zone="Asia/Tokyo", now=now)
    assert not TouchedDay.objects.exists()
    registered = AccountRegistration.objects.get()
    assert (registered.time_zone, registered.frozen_until) == ("Asia/Tokyo", now)


def test_a_zone_that_there_is_not_and_an_unknown_account_are_refused() -> None:
    account_id = Host().account()
    now = datetime(2026, 11, 10, tzinfo=UTC)
    for zone in ("Mars/Olympus", "", "America", "../etc/passwd"):
        with pytest.raises(TimeZoneRefusedError, match=r"time_zone '.*' is not an IANA time zone"):
            change_time_zone(account_id, time_zone=zone, now=now)
    with pytest.raises(AccountRegistration.DoesNotExist):
        change_time_zone(uuid4(), time_zone="UTC", now=now)
    with pytest.raises(AccountRegistration.DoesNotExist):
        calendar_of(uuid4())


def test_an_accounts_page_shows_the_zones_it_had(client: Client) -> None:
    client.force_login(User.objects.create_superuser("admin", password="x"))  # noqa: S106 - a test's
    account_id = Host().account("Asia/Kathmandu")
    change_time_zone(account_id, time_zone="UTC", now=datetime(2026, 11, 10, tzinfo=UTC))
    page = client.get(f"/admin/metering/accountregistration/{account_id}/change/")
    assert "Asia/Kathmandu" in page.content.decode()
