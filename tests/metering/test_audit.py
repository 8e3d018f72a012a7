from __future__ import annotations

import json
from argparse import ArgumentTypeError
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from metering import tasks
from metering.audit import Audit, audit_usage
from metering.management.commands.audit_usage import read_period
from metering.models import CounterReset, DailyUsageSummary, Gap, LateUsage, TouchedDay, UsageRecord
from metering.period import Period
from metering.samples import Known, Missed, State
from metering.services import freeze_account
from metering.summaries import summarise_touched_days, summarise_usage
from tests.metering.batches import Host
from tests.metering.fleet import Fleet

pytestmark = pytest.mark.django_db

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
START = datetime(2026, 11, 2, 10, 7, tzinfo=UTC)
NOW = START + timedelta(days=5)


def eth(rx: int, tx: int) -> dict[str, tuple[int, int]]:
    return {"eth0": (rx, tx)}


def eventful_life(host: Host, account: UUID, sandbox: str = "sbx") -> int:
    """Restart, falls of counters on edges and over them, silence, pause, and frozen windows."""
    first = host.start(account, sandbox, START)
    host.run(first, START, START + HOUR)
    host.stop(first, START + HOUR + MINUTE)
    life = host.start(account, sandbox, START + 2 * HOUR)
    at = START + 2 * HOUR
    edge = START.replace(hour=13, minute=0)
    host.read(life, at + MINUTE, cpu_ns=100, disk_bytes=10, network=eth(5, 5), storage_bytes=9)
    host.read(life, edge, cpu_ns=10**9, disk_bytes=500, network=eth(900, 9))
    # Each falls in the span after a window's edge, one on it, and one over two edges.
    host.read(life, edge + MINUTE, cpu_ns=50, disk_bytes=600, network=eth(30, 10))
    host.read(life, edge + 40 * MINUTE, cpu_ns=10, disk_bytes=20, network=eth(31, 11))
    host.read(
        life,
        edge + 60 * MINUTE,
        cpu_ns=10**6,
        disk_bytes=10**6,
        network=eth(10**5, 10**6),
        state=State.PAUSED,
        missed=Missed.COLLECTOR_DOWN,
    )
    host.read(life, edge + 61 * MINUTE, known=Known.CPU, cpu_ns=10**6 + 5, storage_bytes=99)
    host.fold(edge + 62 * MINUTE)
    freeze_account(account, until=edge + 120 * MINUTE)
    host.read(life, edge + 100 * MINUTE, cpu_ns=10**9, disk_bytes=10**7, network=eth(10**6, 10**7))
    host.read(life, edge + 110 * MINUTE, cpu_ns=7, disk_bytes=10**7, network=eth(1, 1))
    host.read(
        life,
        edge + 150 * MINUTE,
        cpu_ns=10**9,
        disk_bytes=10**8,
        network=eth(2, 2),
        storage_bytes=4,
    )
    host.fold(edge + 151 * MINUTE)
    freeze_account(account, until=edge + 240 * MINUTE)
    host.run(life, edge + 160 * MINUTE, edge + 400 * MINUTE)
    host.stop(life, edge + 401 * MINUTE, storage_bytes=4, is_gone=True)
    host.fold(edge + 500 * MINUTE)
    return life


@pytest.fixture
def eventful() -> tuple[UUID, int]:
    host = Host()
    account = host.account("Asia/Kathmandu")
    life = eventful_life(host, account)
    old = host.start(account, "older than its account", START - HOUR, counts_from_zero=False)
    # A counter that the first samples do not have: its base line comes later.
    host.read(old, START, cpu_ns=10**12, known=Known.CPU | Known.MEMORY, network=eth(10**9, 10**9))
    host.read(old, START + MINUTE, cpu_ns=10**12 + 5, network=eth(10**9 + 3, 10**9), disk_bytes=70)
    host.read(old, START + HOUR, cpu_ns=10**12 + 9, network=eth(10**9 + 4, 10**9), disk_bytes=80)
    other = host.start(account, "base line in another window", START, counts_from_zero=False)
    host.read(other, START, cpu_ns=10**12, known=Known.CPU)
    host.read(other, START + HOUR, cpu_ns=10**12 + 9, disk_bytes=80)
    host.read(other, START + 2 * HOUR, cpu_ns=10**12 + 9, disk_bytes=85)
    host.fold(START + 2 * HOUR)
    summarise_touched_days(now=START + timedelta(days=1))
    summarise_touched_days(now=NOW)
    return account, life


def test_a_collected_fleet_with_losses_restarts_and_an_outage_adds_up() -> None:
    fleet = Fleet()
    fleet.source.share = 0.3
    fleet.add("short", ended_at=fleet.now + 7 * MINUTE)
    fleet.add("long")
    fleet.run(10 * MINUTE, tick=timedelta(seconds=10))
    fleet.add("short", container_id="another")
    fleet.now += 3 * HOUR
    freeze_account(fleet.account_id, until=fleet.now - HOUR)
    fleet.run(20 * MINUTE, tick=timedelta(seconds=10))
    audit = audit_usage(now=fleet.now)
    assert audit.failing == {}, audit
    assert LateUsage.objects.exists()


def named(audit: Audit) -> set[str]:
    return set(audit.failing)


def test_a_fleet_with_all_that_may_happen_adds_up(eventful: tuple[UUID, int]) -> None:
    assert CounterReset.objects.count() >= 5
    assert LateUsage.objects.filter(quantity_name="cpu_ns").count() >= 4
    assert {"before_first_sample", "held_too_long", "collector_down"} <= set(
        Gap.objects.values_list("reason", flat=True)
    )
    audit = audit_usage(now=NOW)
    assert audit.failing == {}, audit
    assert all(check.compared for check in audit.checks)
    assert audit.lives_left_out == 0
    del eventful


def first(table: str, key: str, condition: str = "true") -> str:
    """Return what picks one row."""
    return (
        f"({key}) = (SELECT {key} FROM metering_{table} WHERE {condition} "  # noqa: S608 - ours
        f"ORDER BY {key} LIMIT 1)"
    )


# After all that falls and freezes, where nothing excuses a link that does not hold.
LATER = "window_start > '2026-11-02 17:10+00'"
LATE = "window_start = '2026-11-02 16:00+00'"
RECORD = first("usagerecord", "window_start, life_id", LATER)
NETWORK_RECORD = first("networkusagerecord", "window_start, interface_id", LATER)
STORAGE_RECORD = first("storageusagerecord", "window_start, life_id", "measured_ms < existing_ms")


@pytest.mark.parametrize(
    ("table", "change", "where", "failing"),
    [
        (
            "usagerecord",
            "cpu_ns = cpu_ns + 1",
            RECORD,
            {"counters of lives", "chain of lives", "day summaries"},
        ),
        (
            "usagerecord",
            "",
            RECORD,
            {"counters of lives", "chain of lives", "day summaries"},
        ),
        ("usagerecord", "closing_disk_read_bytes = 1", RECORD, {"chain of lives"}),
        ("usagerecord", "opening_disk_write_bytes = 1", RECORD, {"chain of lives"}),
        (
            "lifereading",
            "cpu_ns = cpu_ns + 1",
            first("lifereading", "life_id"),
            {"counters of lives"},
        ),
        (
            "counterreset",
            "before = before + 1",
            first("counterreset", "id", "counter = 'cpu_ns'"),
            {"counters of lives"},
        ),
        (
            "lateusage",
            "quantity = quantity + 1",
            first("lateusage", "id", f"quantity_name = 'cpu_ns' AND {LATE}"),
            {"counters of lives", "chain of lives"},
        ),
        (
            "interfacereading",
            "tx_bytes = tx_bytes - 1",
            first("interfacereading", "interface"),
            {"counters of interfaces"},
        ),
        (
            "networkusagerecord",
            "rx_bytes = rx_bytes + 1",
            NETWORK_RECORD,
            {"counters of interfaces", "chain of interfaces", "day summaries"},
        ),
        (
            "networkusagerecord",
            "opening_rx_bytes = opening_rx_bytes + 1",
            NETWORK_RECORD,
            {"chain of interfaces"},
        ),
        (
            "lateusage",
            "",
            first(
                "lateusage", "id", f"quantity_name = 'rx_bytes' AND {LATE} AND interface = 'eth1'"
            ),
            {"counters of interfaces", "chain of interfaces"},
        ),
        (
            "usagerecord",
            "measured_ms = measured_ms - 1",
            RECORD,
            {"time of memory", "day summaries"},
        ),
        ("gap", "", first("gap", "id", "meter = 'memory'"), {"time of memory"}),
        (
            "lateusage",
            "",
            first("lateusage", "id", "quantity_name = 'measured_ms'"),
            {"time of memory"},
        ),
        (
            "storageusagerecord",
            "measured_ms = measured_ms + 1",
            STORAGE_RECORD,
            {"time of storage"},
        ),
        ("gap", "", first("gap", "id", "meter = 'storage'"), {"time of storage"}),
        (
            "lateusage",
            "",
            first("lateusage", "id", "quantity_name = 'existing_ms'"),
            {"time of storage"},
        ),
        (
            "dailyusagesummary",
            "gpu_ms = gpu_ms + 1",
            first("dailyusagesummary", "id"),
            {"day summaries", "day totals"},
        ),
        (
            "dailyusagesummary",
            "",
            first("dailyusagesummary", "id"),
            {"day summaries", "day totals"},
        ),
        ("dailyusagetotal", "cpu_ns = cpu_ns + 1", first("dailyusagetotal", "id"), {"day totals"}),
        ("dailyusagetotal", "", first("dailyusagetotal", "id"), {"day totals"}),
    ],
)
def test_one_false_figure_is_named(
    eventful: tuple[UUID, int], table: str, change: str, where: str, failing: set[str]
) -> None:
    verb = f"UPDATE metering_{table} SET {change}" if change else f"DELETE FROM metering_{table}"  # noqa: S608 - ours
    with connection.cursor() as cursor:
        cursor.execute(f"{verb} WHERE {where}")
        assert cursor.rowcount == 1
    audit = audit_usage(now=NOW)
    # No check but those that use the figure is to blame.
    assert named(audit) == failing
    for check in audit.checks:
        for difference in check.examples:
            assert difference.account == str(eventful[0])
            assert difference.expected != difference.found


def test_a_difference_has_the_ids_to_look_it_up(eventful: tuple[UUID, int]) -> None:
    account, life = eventful
    record = UsageRecord.objects.filter(life=life).earliest("window_start")
    UsageRecord.objects.filter(life=life, window_start=record.window_start).update(
        closing_disk_read_bytes=record.closing_disk_read_bytes + 10**12
    )
    (check,) = [check for check in audit_usage(now=NOW).checks if check.differences]
    # Its own closing, and the opening of the window after it.
    assert (check.name, check.differences) == ("chain of lives", 2)
    difference = check.examples[0]
    assert (difference.account, difference.sandbox, difference.life) == (str(account), "sbx", life)
    assert difference.figure == "closing disk_read_bytes"
    assert difference.at.startswith(f"{record.window_start:%Y-%m-%d %H:%M}")
    assert difference.found - difference.expected == 10**12


def test_a_day_that_waits_to_be_recomputed_is_left_out(eventful: tuple[UUID, int]) -> None:
    summary = DailyUsageSummary.objects.earliest("day")
    DailyUsageSummary.objects.filter(pk=summary.pk).update(gpu_ms=10**9)
    assert named(audit_usage(now=NOW)) == {"day summaries", "day totals"}
    TouchedDay.objects.create(account_id=eventful[0], day=summary.day)
    assert named(audit_usage(now=NOW)) == set()
    summarise_usage(eventful[0], [summary.day], now=NOW)
    TouchedDay.objects.all().delete()
    assert named(audit_usage(now=NOW)) == set()


def test_days_that_are_not_over_are_left_out(eventful: tuple[UUID, int]) -> None:
    DailyUsageSummary.objects.all().delete()
    assert named(audit_usage(now=START + timedelta(days=1))) == set()
    assert named(audit_usage(now=NOW)) == {"day summaries", "day totals"}
    del eventful


def test_an_audit_of_some_accounts_or_of_a_period_leaves_out_the_rest(
    eventful: tuple[UUID, int],
) -> None:
    account, life = eventful
    other = Host().account()
    UsageRecord.objects.filter(life=life).update(cpu_ns=1)
    assert audit_usage(now=NOW, accounts=[other]).failing == {}
    assert audit_usage(now=NOW, accounts=[account]).failing
    before = Period(START - timedelta(days=9), START - timedelta(days=8))
    audit = audit_usage(now=NOW, period=before)
    assert audit.failing == {}
    assert not any(check.compared for check in audit.checks)
    during = Period(START - HOUR, START + timedelta(days=1))
    assert audit_usage(now=NOW, period=during).failing


def test_lives_whose_first_records_may_be_dropped_are_left_out_and_counted(
    eventful: tuple[UUID, int],
) -> None:
    UsageRecord.objects.all().delete()
    audit = audit_usage(now=NOW + timedelta(days=100))
    assert audit.failing == {}
    assert audit.lives_left_out == 4
    del eventful


@pytest.fixture
def at_now(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            del tz
            return NOW

    monkeypatch.setattr("metering.management.commands.audit_usage.datetime", Clock)
    monkeypatch.setattr("metering.tasks.datetime", Clock)


def printed(*arguments: str) -> str:
    out = StringIO()
    call_command("audit_usage", *arguments, stdout=out)
    return out.getvalue()


@pytest.mark.usefixtures("at_now")
def test_the_command_prints_a_table_and_fails_where_something_differs(
    eventful: tuple[UUID, int],
) -> None:
    table = printed()
    assert "counters of lives" in table
    assert "should be" not in table
    answer: dict[str, Any] = json.loads(printed("--json", "--account", str(eventful[0])))
    assert {check["differences"] for check in answer["checks"]} == {0}
    Gap.objects.filter(meter="memory").delete()
    out = StringIO()
    with pytest.raises(CommandError, match="time of memory") as failed:
        call_command("audit_usage", "--period", "2026-11", stdout=out)
    assert failed.value.returncode == 1
    assert f"account {eventful[0]}, sandbox sbx, life" in out.getvalue()


@pytest.mark.usefixtures("at_now")
def test_the_nightly_task_logs_an_error_with_the_counts_of_each_failing_check(
    eventful: tuple[UUID, int], caplog: pytest.LogCaptureFixture
) -> None:
    tasks.audit_usage()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    gaps = Gap.objects.filter(meter="storage").values("life").distinct().count()
    Gap.objects.filter(meter="storage").delete()
    tasks.audit_usage()
    (error,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert error.getMessage() == f"usage does not add up: time of storage: {gaps}"
    del eventful


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2026-11", (2026, 11, 1), (2026, 12, 1)),
        ("2026-12", (2026, 12, 1), (2027, 1, 1)),
        ("2027-02", (2027, 2, 1), (2027, 3, 1)),
        ("2026-11-03..2026-11-04", (2026, 11, 3), (2026, 11, 4)),
    ],
)
def test_a_period_is_a_month_or_a_span(
    text: str, start: tuple[int, int, int], end: tuple[int, int, int]
) -> None:
    assert read_period(text) == Period(datetime(*start, tzinfo=UTC), datetime(*end, tzinfo=UTC))


@pytest.mark.parametrize("text", ["", "2026", "2026-13", "2026-11-02..", "2026-11-02..2026-11-02"])
def test_another_period_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="like 2026-11"):
        read_period(text)
