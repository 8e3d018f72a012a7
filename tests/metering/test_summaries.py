from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import F, Sum

from metering import tasks
from metering.day_sums import FIGURES
from metering.days import Calendar
from metering.meters import Meter
from metering.models import (
    DailyUsageSummary,
    DailyUsageTotal,
    NetworkUsageRecord,
    StorageUsageRecord,
    TouchedDay,
    UsageRecord,
)
from metering.queries import usage_totals
from metering.summaries import (
    Summarised,
    daily_usage,
    summarise_touched_days,
    summarise_usage,
)
from tests.metering.batches import Host

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def at(day: int, hour: int = 0, minute: int = 0, *, month: int = 11) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=UTC)


def stored() -> list[Any]:
    return list(DailyUsageSummary.objects.order_by("account", "day", "sandbox").values())


def sums_of_records(zone: ZoneInfo) -> dict[tuple[int, date], Counter[str]]:
    """Add up every record by sandbox and local day, the slow and plain way."""
    sums: dict[tuple[int, date], Counter[str]] = {}
    lives: dict[tuple[int, date], set[int]] = {}
    for model, path, names in (
        (UsageRecord, "life__", {figure: figure for figure in FIGURES}),
        (
            NetworkUsageRecord,
            "interface__life__",
            {"network_rx_bytes": "rx_bytes", "network_tx_bytes": "tx_bytes"},
        ),
        (StorageUsageRecord, "life__", {"storage_byte_ms": "storage_byte_ms"}),
    ):
        for row in model.objects.annotate(sandbox_of=F(f"{path}sandbox")).values():
            key = row["sandbox_of"], row["window_start"].astimezone(zone).date()
            figures = sums.setdefault(key, Counter(dict.fromkeys(FIGURES, 0)))
            figures.update({figure: row[name] for figure, name in names.items() if name in row})
            if model is UsageRecord:
                lives.setdefault(key, set()).add(row["life_id"])
    for key, numbers in lives.items():
        sums[key]["life_count"] = len(numbers)
    return sums


def assert_summaries_are_the_sums_of_records(zone: str = "UTC") -> None:
    rows = {
        (row["sandbox_id"], row["day"]): Counter({figure: int(row[figure]) for figure in FIGURES})
        for row in stored()
    }
    assert rows
    assert rows == sums_of_records(ZoneInfo(zone))
    assert_totals_are_the_sums_of_summaries()


def assert_totals_are_the_sums_of_summaries() -> None:
    sums: dict[tuple[UUID, date], Counter[str]] = {}
    for row in stored():
        figures = sums.setdefault((row["account_id"], row["day"]), Counter())
        figures.update({figure: int(row[figure]) for figure in FIGURES} | {"sandbox_count": 1})
    totals = {
        (row["account_id"], row["day"]): Counter(
            {figure: int(row[figure]) for figure in (*FIGURES, "sandbox_count")}
        )
        for row in [vars(total) for total in DailyUsageTotal.objects.all()]
    }
    assert totals == sums


def run_for_three_days(host: Host, account: UUID, start: datetime) -> None:
    for n in range(2):
        life = host.start(account, f"sbx-{n}", start)
        host.run(life, start, start + timedelta(hours=9 + n))
        host.stop(life, start + timedelta(hours=9 + n))
        again = host.start(account, f"sbx-{n}", start + 30 * HOUR)
        host.run(again, start + 30 * HOUR, start + 40 * HOUR)
    host.fold(start + 40 * HOUR)


@pytest.mark.parametrize(
    ("zone", "start"),
    [
        ("UTC", at(2, 20)),
        ("Asia/Kathmandu", at(2, 15)),
        ("Pacific/Kiritimati", at(2, 7)),
        ("Pacific/Marquesas", at(2, 7)),
        # The day of 25 hours, whose second 01:00 is another moment than the first.
        ("America/New_York", at(31, 22, month=10)),
        # Clocks that go back at midnight: the day begins at the first of two.
        ("America/Havana", at(31, 22, month=10)),
    ],
)
def test_a_summary_is_the_sum_of_the_records_of_a_local_day(zone: str, start: datetime) -> None:
    host = Host(registered_at=start - DAY)
    account = host.account(zone)
    run_for_three_days(host, account, start)
    done = summarise_touched_days(now=start + 41 * HOUR)
    assert (done.accounts, done.failed) == (1, 0)
    assert_summaries_are_the_sums_of_records(zone)
    days = daily_usage(account, date(2026, 10, 1), date(2026, 12, 1))
    span = Calendar((ZoneInfo(zone),)).span(days[0].day, days[-1].day)
    assert span
    total: Counter[Meter] = Counter()
    for day in days:
        total.update(day.usage)
    assert total == usage_totals(account, span)


def test_repeating_changes_nothing_and_writes_nothing() -> None:
    host = Host()
    run_for_three_days(host, host.account(), at(2, 20))
    first = summarise_touched_days(now=at(4, 13))
    before = stored()
    assert first == Summarised(accounts=1, rows=len(before), failed=0)
    assert summarise_touched_days(now=at(4, 14)).rows == 0
    assert stored() == before


def test_what_is_no_longer_in_the_records_goes_and_what_changed_is_replaced() -> None:
    host = Host()
    account = host.account()
    run_for_three_days(host, account, at(2, 20))
    summarise_touched_days(now=at(4, 13))
    gone = DailyUsageSummary.objects.earliest("day", "sandbox_id")
    for model, path in (
        (UsageRecord, "life"),
        (NetworkUsageRecord, "interface__life"),
        (StorageUsageRecord, "life"),
    ):
        model.objects.filter(
            **{f"{path}__sandbox": gone.sandbox_id, "window_start__lt": at(3)}
        ).delete()
    changed = UsageRecord.objects.latest("window_start").life.usage_records
    changed.update(cpu_ns=F("cpu_ns") + 1)
    summarise_usage(account, [at(n).date() for n in (2, 3, 4)], now=at(4, 14))
    assert_summaries_are_the_sums_of_records()
    assert not DailyUsageSummary.objects.filter(pk=gone.pk).exists()


def test_the_number_of_sandboxes_of_a_day_is_one_query() -> None:
    host = Host()
    account, other = host.account(), host.account()
    run_for_three_days(host, account, at(2, 20))
    host.run(host.start(other, "sbx-0", at(3)), at(3), at(3, 1))
    host.fold(at(4, 12))
    summarise_touched_days(now=at(4, 13))
    days = daily_usage(account, at(2).date(), at(4).date())
    assert [(day.day.day, day.sandboxes, day.lives) for day in days] == [
        (2, 2, 2),
        (3, 2, 2),
        (4, 2, 2),
    ]
    (alone,) = daily_usage(other, at(1).date(), at(30).date())
    assert (alone.sandboxes, alone.lives) == (1, 1)
    assert alone.running_ms == 3_600_000
    assert alone.usage[Meter.CPU] == 3600 * 10**9


def test_what_arrives_late_touches_its_day_and_only_that_is_recomputed() -> None:
    host = Host(registered_at=at(1))
    account = host.account("Asia/Kathmandu")
    life = host.start(account, "sbx", at(2))
    host.run(life, at(2), at(2, 6))
    host.fold(at(2, 7))
    summarise_touched_days(now=at(2, 8))
    assert not TouchedDay.objects.exists()
    # The collector was down for five days: its growth belongs to all of them.
    host.read(life, at(7), cpu_ns=10**15, network={"eth0": (10**9, 10**9)}, storage_bytes=5)
    host.fold(at(7, 1))
    marked = set(TouchedDay.objects.values_list("day", flat=True))
    assert marked == {at(n).date() for n in (2, 3, 4, 5)}
    summarise_touched_days(now=at(7, 1))
    assert_summaries_are_the_sums_of_records("Asia/Kathmandu")
    assert not TouchedDay.objects.exists()
    summed = DailyUsageSummary.objects.aggregate(cpu=Sum("cpu_ns"))
    assert summed["cpu"] == 10**15


def test_a_recent_change_touches_no_day() -> None:
    host = Host()
    life = host.start(host.account(), "sbx", at(2))
    host.run(life, at(2), at(2, 1))
    host.fold(at(3, 11))
    assert not TouchedDay.objects.exists()
    host.read(life, at(2, 2), cpu_ns=4 * 10**12)
    host.fold(at(3, 15))
    assert TouchedDay.objects.get().day == at(2).date()


def test_an_account_that_was_not_summarised_for_days_is_caught_up() -> None:
    host = Host()
    life = host.start(host.account(), "sbx", at(2))
    host.run(life, at(2), at(2, 6))
    host.fold(at(2, 7))
    summarise_touched_days(now=at(2, 8))
    for n in range(2, 7):
        host.run(life, at(n, 6), at(n + 1, 6))
        host.fold(at(n + 1, 6))
    summarise_touched_days(now=at(7, 6))
    assert_summaries_are_the_sums_of_records()


def test_a_day_whose_records_may_be_gone_keeps_its_summary() -> None:
    host = Host()
    account = host.account()
    host.run(host.start(account, "sbx", at(2)), at(2), at(2, 6))
    host.fold(at(2, 7))
    summarise_touched_days(now=at(2, 8))
    before = stored()
    UsageRecord.objects.all().delete()
    TouchedDay.objects.create(account_id=account, day=at(2).date())
    much_later = at(2) + timedelta(days=settings.METERING_USAGE_RETENTION_D) + HOUR
    assert summarise_usage(account, [at(2).date()], now=much_later) == 0
    summarise_touched_days(now=much_later)
    assert stored() == before


def test_a_bad_account_stops_only_itself(caplog: pytest.LogCaptureFixture) -> None:
    host = Host()
    bad, good = host.account("Mars/Olympus"), host.account()
    for account in (bad, good):
        host.run(host.start(account, "sbx", at(2)), at(2), at(2, 6))
    host.fold(at(2, 7))
    done = summarise_touched_days(now=at(2, 8))
    assert (done.accounts, done.failed) == (2, 1)
    assert {row["account_id"] for row in stored()} == {good}
    assert [record.message for record in caplog.records] == ["usage not summarised"]


def test_one_account_takes_the_same_number_of_queries_whatever_runs_in_it() -> None:
    host = Host()
    account = host.account()
    counts: list[int] = []
    for sandboxes in (1, 9):
        for n in range(sandboxes):
            host.run(host.start(account, f"sbx-{n}", at(2)), at(2), at(2, 1))
        host.fold(at(2, 7))
        with connection.execute_wrapper(_Counter(counts)):
            counts.append(0)
            summarise_usage(account, [at(2).date()], now=at(2, 8))
    assert counts[0] == counts[1]


class _Counter:
    def __init__(self, counts: list[int]) -> None:
        self.counts = counts

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:  # noqa: FBT001 - Django's signature
        self.counts[-1] += 1
        return execute(sql, params, many, context)


def test_the_task_summarises_what_ran(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    tasks.summarise_touched_days()
    assert [record.message for record in caplog.records] == ["days summarised"]


def test_the_command_recomputes_the_days_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            del tz
            return at(2, 8)

    monkeypatch.setattr("metering.management.commands.summarise_usage.datetime", Clock)
    host = Host()
    account = host.account()
    host.run(host.start(account, "sbx", at(2)), at(2), at(2, 6))
    host.fold(at(2, 7))
    out = StringIO()
    call_command("summarise_usage", str(account), "2026-11-01", "2026-11-03", stdout=out)
    assert out.getvalue() == "1 rows changed.\n"
    assert_summaries_are_the_sums_of_records()
    with pytest.raises(CommandError, match="is not registered"):
        call_command("summarise_usage", str(UUID(int=1)), "2026-11-01", "2026-11-03")
