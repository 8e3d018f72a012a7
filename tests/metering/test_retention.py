"""What is dropped when, and what holds it back; months that rows had no partition for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from pytest_django.fixtures import Settings

from metering import stream, tasks
from metering.models import (
    AccountRegistration,
    CounterReset,
    DailyUsageSummary,
    Gap,
    InterfaceReading,
    LateUsage,
    Life,
    LifeReading,
    NetworkUsageRecord,
    Refusal,
    Sandbox,
    StorageReading,
    StorageUsageRecord,
    StreamCursor,
    UsageRecord,
)
from metering.partitions import drop_month, make_partitions, months_kept, rows_without_month
from metering.period import from_ms
from metering.queries import stream_lag
from metering.retention import clean_up, plan_clean_up
from metering.samples import State
from tests.metering.history import MINUTE_MS, START, History, Taken
from tests.races.workers import run_at_once

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "owner"])

NOVEMBER_ENDS = datetime(2026, 12, 1, tzinfo=UTC)
RETENTION = timedelta(days=90)
OVER = NOVEMBER_ENDS + RETENTION
SECOND = timedelta(seconds=1)


@pytest.fixture(autouse=True)
def _there_are_no_months() -> Iterator[None]:
    """Each test makes its own; others, which need none, may have had some made."""
    _drop_months()
    yield
    _drop_months()


def _drop_months() -> None:
    for month in months_kept():
        drop_month(month)


def test_two_that_make_the_same_months_at_once_both_find_them_made() -> None:
    for _ in range(5):
        _drop_months()
        assert run_at_once(lambda _: make_partitions(now=START), workers=3) == [0, 0, 0]
        assert len(kept()) == 6
    assert run_at_once(lambda _: _drop_months(), workers=3) == [0, 0, 0]
    assert kept() == []


def lived(*, ends: bool = True) -> tuple[History, int]:
    """A life in November with one of everything, its container gone at the end if it ends."""
    history = History()
    life = history.begin("sbx")
    samples = [
        Taken(
            minute * MINUTE_MS,
            cpu_ns=minute % 20,
            memory_bytes=10,
            interfaces={"eth0": (minute, minute)},
            storage_bytes=10,
        )
        for minute in range(1, 40)
    ]
    if ends:
        samples.append(Taken(40 * MINUTE_MS, state=State.STOPPED, is_gone=True))
        ended_at = START + timedelta(minutes=40)
        Life.objects.filter(pk=life).update(ended_at=ended_at, gone_at=ended_at)
    history.send(life, samples)
    history.fold()
    return history, life


def kept() -> list[str]:
    return [month.suffix for month in months_kept()]


def test_a_month_goes_when_it_is_old_and_finally_invoiced() -> None:
    make_partitions(now=START)
    history, life = lived()
    assert plan_clean_up(now=OVER - SECOND).months[-1].suffix == "2026_10"
    held = plan_clean_up(now=OVER)
    assert [month.suffix for month in held.months] == ["2026_09", "2026_10"]
    assert held.held[0].reason == f"account {history.account_id} is invoiced to nowhere yet"
    freeze_account_until(history, NOVEMBER_ENDS - SECOND)
    done = clean_up(now=OVER)
    assert done.held[0].reason == f"account {history.account_id} is invoiced to 2026-11-30"
    assert kept()[0] == "2026_11"
    assert UsageRecord.objects.filter(life=life).count() == 3
    freeze_account_until(history, NOVEMBER_ENDS)
    done = clean_up(now=OVER)
    assert kept()[0] == "2026_12"
    assert done.rows["lives with their readings"] == 1
    assert done.rows["sandboxes"] == 1
    for model in (
        *(UsageRecord, NetworkUsageRecord, StorageUsageRecord, Gap, CounterReset),
        *(Life, LifeReading, InterfaceReading, StorageReading, Sandbox),
    ):
        assert not model.objects.exists(), model
    assert AccountRegistration.objects.filter(pk=history.account_id).exists()
    again = clean_up(now=OVER)
    assert not again.months
    assert not any(again.rows.values())


def freeze_account_until(history: History, until: datetime) -> None:
    AccountRegistration.objects.filter(pk=history.account_id).update(frozen_until=until)


def test_an_account_that_is_not_active_holds_a_month_for_one_retention_longer() -> None:
    make_partitions(now=START)
    history, _ = lived()
    AccountRegistration.objects.filter(pk=history.account_id).update(is_active=False)
    assert plan_clean_up(now=OVER + RETENTION - SECOND).held[0].month.suffix == "2026_11"
    assert not plan_clean_up(now=OVER + RETENTION).held


def test_a_month_that_is_held_holds_those_after_it() -> None:
    make_partitions(now=START)
    history, _ = lived()
    held = plan_clean_up(now=OVER + RETENTION).held
    assert [one.month.suffix for one in held] == ["2026_11", "2026_12", "2027_01", "2027_02"]
    assert held[1].reason == "2026-11 is kept, and there are no holes"
    freeze_account_until(history, NOVEMBER_ENDS)
    assert not plan_clean_up(now=OVER + RETENTION).held


def test_a_life_stays_while_its_container_does_or_anything_refers_to_it() -> None:
    make_partitions(now=START)
    living, living_life = lived(ends=False)
    late, late_life = lived()
    for history in (living, late):
        freeze_account_until(history, NOVEMBER_ENDS)
    LateUsage.objects.create(
        life_id=late_life,
        quantity_name="cpu_ns",
        window_start=START,
        quantity=1,
        recorded_at=START,
    )
    clean_up(now=OVER)
    assert not UsageRecord.objects.exists()
    assert set(Life.objects.values_list("pk", flat=True)) == {living_life, late_life}
    assert LifeReading.objects.count() == 2
    clean_up(now=START + timedelta(days=1096))
    assert set(Life.objects.values_list("pk", flat=True)) == {living_life}


def test_summaries_go_after_three_years_and_refusals_after_the_retention() -> None:
    history, _ = lived()
    sandbox = Sandbox.objects.get()
    for day in (date(2023, 11, 2), date(2023, 11, 3)):
        DailyUsageSummary.objects.create(
            account_id=history.account_id, sandbox=sandbox, day=day, computed_at=START
        )
    for days in (89, 91):
        Refusal.objects.create(
            host=history.host,
            reason=Refusal.Reason.LIFE_UNKNOWN,
            subject=str(days),
            first_at=START,
            last_at=START - timedelta(days=days),
        )
    clean_up(now=START)
    assert [summary.day for summary in DailyUsageSummary.objects.all()] == [date(2023, 11, 3)]
    assert [refusal.subject for refusal in Refusal.objects.all()] == ["89"]


def test_the_command_says_what_would_go_and_why_not_and_then_does_it() -> None:
    now = datetime.now(UTC)
    make_partitions(now=now - timedelta(days=300))
    out = StringIO()
    count = len(kept())
    call_command("clean_up_metering", "--dry-run", stdout=out)
    assert out.getvalue().startswith("Would go:\n  usage of 20")
    assert len(kept()) == count
    call_command("clean_up_metering", stdout=out)
    assert len(kept()) < count
    tasks.clean_up()


def test_rows_without_a_month_are_told_of_and_moved_into_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert "2026_11" not in kept()
    history, _ = lived()
    stored = history.stored()
    tables = {"metering_usagerecord", "metering_networkusagerecord", "metering_storageusagerecord"}
    assert rows_without_month() == dict.fromkeys(tables, 3)
    out = StringIO()
    call_command("metering_status", stdout=out)
    assert "metering_usagerecord: 3 rows are in no month of their own" in out.getvalue()
    tasks.make_partitions_ahead()
    assert "rows without a month" in caplog.text
    assert rows_without_month() == {}
    assert "2026_11" in kept()
    assert history.stored() == stored
    # The default partition is there again, and takes what comes next.
    later, life = History(), 0
    life = later.begin("later", 400 * 24 * 60 * MINUTE_MS)
    later.send(life, [Taken(400 * 24 * 60 * MINUTE_MS + 1000, cpu_ns=1)])
    later.fold(400 * 24 * 60 * MINUTE_MS + 2000)
    assert rows_without_month() == {"metering_usagerecord": 1}


def test_partitions_are_made_three_months_ahead_and_back_to_where_they_are_asked_for() -> None:
    make_partitions(now=START, since=datetime(2026, 5, 17, tzinfo=UTC))
    assert [name for name in kept() if "2026_04" < name < "2027_03"] == [
        *(f"2026_{month:02d}" for month in range(5, 13)),
        "2027_01",
        "2027_02",
    ]


def test_a_stream_over_its_share_of_memory_goes_up_to_the_cursor_and_no_further(
    settings: Settings,
) -> None:
    history = History()
    life = history.begin("sbx")
    samples = [Taken(second * 2000, cpu_ns=second) for second in range(1, 801)]
    history.send(life, samples[:400])
    history.fold()
    history.send(life, samples[400:])
    cursor = StreamCursor.objects.get(host=history.host_id)
    now = datetime.now(UTC)
    assert stream.trim(history.host_id, folded=cursor.entry_id, now=now) == 0
    settings.METERING_STREAM_MAX_BYTES = 1
    assert stream.trim(history.host_id, folded=cursor.entry_id, now=now) > 200
    assert stream_lag(history.host_id).entries == 400
    left = list(stream.read_after(history.host_id, cursor.entry_id, limit=1000))
    assert len(left) == 400


def test_the_lag_of_a_stream_is_what_is_behind_the_cursor() -> None:
    history = History()
    life = history.begin("sbx")
    nothing = stream_lag(history.host_id)
    assert (nothing.entries, nothing.oldest_at) == (0, None)
    history.send(life, [Taken(second * 2000, cpu_ns=second) for second in range(1, 11)])
    waiting = stream_lag(history.host_id)
    (first, *_) = stream.read_after(history.host_id, "0-0", limit=1)
    assert waiting.entries == 10
    assert waiting.oldest_at == from_ms(stream.order(first.entry_id)[0])
    assert waiting.stream_bytes > 0
    history.fold()
    assert stream_lag(history.host_id).entries == 0
