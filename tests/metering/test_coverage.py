from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.test import Client

from metering import coverage
from metering.coverage import CoverageOfDay, GapsOfReason, account_coverage, gaps_by_reason
from metering.models import AccountRegistration, Sandbox
from metering.samples import Missed
from metering.summaries import summarise_touched_days
from tests.metering.batches import HOLD, Host

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
# Midnight in Kathmandu, 5:45 ahead.
START = datetime(2026, 11, 2, 18, 15, tzinfo=UTC)
FIRST = date(2026, 11, 3)
HOUR_MS = 3_600_000
HOLD_MS = int(HOLD.total_seconds() * 1000)


@pytest.fixture
def account() -> UUID:
    """Two sandboxes of one account: one read without a hole, one silent over midnight."""
    host = Host()
    account_id = host.account("Asia/Kathmandu")
    whole = host.start(account_id, "whole", START)
    host.read(whole, START + timedelta(milliseconds=1))
    host.run(whole, START, START + HOUR)
    silent = host.start(account_id, "silent", START + 22 * HOUR)
    host.read(silent, START + 22 * HOUR + timedelta(milliseconds=1), storage_bytes=1)
    host.read(silent, START + 26 * HOUR, missed=Missed.COLLECTOR_DOWN)
    host.fold(START + 26 * HOUR)
    summarise_touched_days(now=START + 27 * HOUR)
    other = host.account()
    host.run(host.start(other, "another account's", START), START + HOUR, START + 2 * HOUR)
    host.fold(START + 27 * HOUR)
    return account_id


def test_coverage_is_of_local_days_and_of_sandboxes_the_worst_first(account: UUID) -> None:
    covered = account_coverage(account, start=FIRST, end=date(2026, 12, 1))
    assert covered.time_zone == "Asia/Kathmandu"
    assert covered.days == [
        CoverageOfDay(FIRST, 2, 3 * HOUR_MS, HOUR_MS - 1 + HOLD_MS),
        CoverageOfDay(FIRST + timedelta(days=1), 1, 2 * HOUR_MS, 0),
    ]
    assert [row.sandbox_id for row in covered.sandboxes] == ["silent", "whole"]
    assert (covered.total.running_ms, covered.total.measured_ms) == (
        5 * HOUR_MS,
        HOUR_MS - 1 + HOLD_MS,
    )
    assert covered.sandboxes_left_out == covered.gaps_left_out == 0


def test_a_gap_is_shown_in_each_day_it_touches_and_in_no_other(account: UUID) -> None:
    for day, reasons in (
        (FIRST, {"before_first_sample", "collector_down"}),
        (FIRST + timedelta(days=1), {"collector_down"}),
        (FIRST + timedelta(days=2), set()),
        (FIRST - timedelta(days=1), set()),
    ):
        covered = account_coverage(account, start=day, end=day + timedelta(days=1))
        memory = {gap.reason for gap in covered.gaps if gap.meter == "memory"}
        assert memory == reasons, day
    newest = account_coverage(account, start=FIRST, end=date(2026, 12, 1)).gaps[0]
    assert (newest.sandbox_id, newest.end) == ("silent", START + 26 * HOUR)


def test_what_a_limit_leaves_out_is_counted(account: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = account_coverage(account, start=FIRST, end=date(2026, 12, 1))
    monkeypatch.setattr(coverage, "MOST_SANDBOXES", 1)
    monkeypatch.setattr(coverage, "MOST_GAPS", 2)
    covered = account_coverage(account, start=FIRST, end=date(2026, 12, 1))
    assert (len(covered.sandboxes), covered.sandboxes_left_out) == (1, 1)
    assert covered.gaps == everything.gaps[:2]
    assert covered.gaps_left_out == len(everything.gaps) - 2


def test_gaps_are_added_up_by_meter_and_reason(account: UUID) -> None:
    sandbox = Sandbox.objects.get(account=account, sandbox_id="silent")
    memory = [gaps for gaps in gaps_by_reason(sandbox) if gaps.meter == "memory"]
    millisecond = timedelta(milliseconds=1)
    assert memory == [
        GapsOfReason("memory", "collector_down", 1, 4 * HOUR - HOLD - millisecond),
        GapsOfReason("memory", "before_first_sample", 1, millisecond),
    ]


def test_an_account_that_ran_nothing_has_no_coverage_and_an_unknown_one_is_no_account() -> None:
    idle = Host().account()
    covered = account_coverage(idle, start=FIRST, end=date(2026, 12, 1))
    assert (covered.days, covered.sandboxes, covered.gaps) == ([], [], [])
    with pytest.raises(AccountRegistration.DoesNotExist):
        account_coverage(UUID(int=1), start=FIRST, end=date(2026, 12, 1))


@pytest.fixture
def staff(client: Client, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setattr("metering.admin_usage._today", lambda: FIRST + timedelta(days=2))
    client.force_login(User.objects.create_superuser("admin", password="x"))  # noqa: S106 - a test's
    return client


def page(staff: Client, path: str) -> str:
    answer = staff.get(f"/admin/metering/{path}")
    assert answer.status_code == 200, path
    return answer.content.decode()


def test_staff_see_the_coverage_of_sandboxes_days_and_accounts(
    account: UUID, staff: Client
) -> None:
    silent = Sandbox.objects.get(account=account, sandbox_id="silent")
    assert "2.0 %" in page(staff, "sandbox/")
    one = page(staff, f"sandbox/{silent.pk}/change/")
    assert "collector_down, memory: 1 of 14,100.0 s in all" in one
    assert "4.1 %" in one
    of_account = page(staff, f"accountregistration/{account}/change/")
    assert "2026-11-03: 2 sandboxes, 3.00 hours, coverage 36.1 %" in of_account
    days = page(staff, f"dailyusagesummary/?q={account}&day={FIRST}")
    assert "99.9 %" in days
    assert "Days on which an account used unusually much" in days
