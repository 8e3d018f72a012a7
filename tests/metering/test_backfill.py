"""Windows recomputed from samples: what changes, and what never does."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest
from django.core.management import CommandError, call_command
from django.db.models import Sum
from pyarrow import parquet

from metering.backfill import recorded
from metering.backfill.request import Report, Request
from metering.backfill.run import backfill, fill
from metering.backfill.series import INTERFACES, LIVES, STORAGE, with_holds
from metering.backfill.spool import Spool
from metering.models import (
    CounterReset,
    InterfaceReading,
    LateUsage,
    Life,
    LifeReading,
    UsageRecord,
)
from metering.period import Period, to_ms, window_start
from metering.readings import HELD_INTERVALS
from metering.samples import Records
from metering.services import freeze_account
from tests.metering.history import (
    MINUTE_MS,
    START,
    WINDOW_MS,
    History,
    Taken,
    batch_of,
    dice,
    random_samples,
    without,
)

pytestmark = pytest.mark.django_db

HOURS = 3
LASTING_MS = HOURS * 60 * MINUTE_MS
SEEDS = range(4)


def at(ms: int) -> datetime:
    return START + timedelta(milliseconds=ms)


def windows(first: int, last: int) -> Period:
    """The windows from one to before another, numbered from START."""
    return Period(at(first * WINDOW_MS), at(last * WINDOW_MS))


EVERYTHING = windows(0, HOURS * 4)


def chunks_of(
    host_id: UUID, samples: dict[int, list[Taken]]
) -> Iterator[tuple[UUID, dict[str, Records]]]:
    for life, taken in samples.items():
        for sample in taken:
            batch = batch_of(life, sample)
            hold_ms = batch.interval_ms * HELD_INTERVALS
            storage_hold_ms = batch.storage_interval_ms * HELD_INTERVALS
            why = int(batch.missed)
            yield (
                host_id,
                {
                    "lives": with_holds(LIVES, batch.samples, hold_ms=hold_ms, missed=why),
                    "interfaces": with_holds(
                        INTERFACES, batch.interfaces, hold_ms=hold_ms, missed=why
                    ),
                    "storage": with_holds(
                        STORAGE, batch.storage, hold_ms=storage_hold_ms, missed=why
                    ),
                },
            )


def recompute(
    folder: Path,
    history: History,
    samples: dict[int, list[Taken]],
    period: Period = EVERYTHING,
    **request: Any,
) -> Report:
    spool = Spool(folder / f"{len(list(folder.iterdir()))}")
    spool.folder.mkdir()
    asked = Request(period, **request)
    for _ in fill(spool, chunks_of(history.host_id, samples), asked):
        pass
    return list(backfill(spool, asked, now=at(LASTING_MS)))[-1]


def folded(samples: Iterable[Taken], *, registered_at: datetime = START) -> tuple[History, int]:
    one = History(registered_at=registered_at)
    life = one.begin("sbx")
    one.send(life, samples)
    one.fold()
    return one, life


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("known_late", [False, True])
def test_the_samples_that_made_windows_make_them_again_to_the_byte(
    seed: int, *, known_late: bool, tmp_path: Path
) -> None:
    random = dice(seed)
    samples = random_samples(random, count=40, lasting_ms=LASTING_MS)
    registered_at = START + timedelta(days=-80 if not known_late else 0, seconds=1)
    history, life = folded(samples, registered_at=registered_at)
    before = history.stored()
    first, last = sorted(random.sample(range(HOURS * 4 + 1), 2))
    recompute(tmp_path, history, {life: samples}, windows(first, last))
    assert history.stored() == before


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("known_late", [False, True])
def test_samples_that_were_lost_make_what_folding_them_all_would_have(
    seed: int, *, known_late: bool, tmp_path: Path
) -> None:
    random = dice(seed)
    samples = random_samples(random, count=60, lasting_ms=LASTING_MS)
    registered_at = START + timedelta(days=-80 if not known_late else 0, seconds=1)
    whole, _ = folded(samples, registered_at=registered_at)
    history, life = folded(without(random, samples, 0.5), registered_at=registered_at)
    recompute(tmp_path, history, {life: samples})
    expected = whole.stored()
    assert history.stored() == expected
    recompute(tmp_path, history, {life: samples})
    assert history.stored() == expected


def counters(history: History) -> dict[str, int]:
    """What each counter of the one life is billed, late usage included."""
    life = Life.objects.get(host=history.host_id)
    used = recorded.totals([life.pk], [0], to_ms(at(10 * LASTING_MS)))[life.pk]
    return {name: used[name] for name in ("cpu_ns", "disk_read_bytes", "rx_bytes", "tx_bytes")}


def assert_windows_sum_to_their_readings(history: History) -> None:
    used = counters(history)
    reading = LifeReading.objects.get(life__host=history.host_id)
    fallen: Counter[str] = Counter()
    for reset in CounterReset.objects.filter(life__host=history.host_id):
        fallen[reset.counter] += reset.before - reset.after
    for name in ("cpu_ns", "disk_read_bytes"):
        grown = getattr(reading, name) - getattr(reading, f"base_{name}")
        assert used[name] == grown + fallen[name]
    for interface in InterfaceReading.objects.filter(life__host=history.host_id):
        assert used["rx_bytes"] == interface.rx_bytes - interface.base_rx_bytes + fallen["rx_bytes"]


@pytest.mark.parametrize("seed", SEEDS)
def test_lost_samples_in_a_part_change_nothing_outside_it_and_bill_nothing_twice(
    seed: int, tmp_path: Path
) -> None:
    random = dice(seed)
    samples = random_samples(random, count=80, lasting_ms=LASTING_MS)
    whole, _ = folded(samples)
    history, life = folded(without(random, samples, 0.6))
    before, billed = history.stored(), counters(history)
    first, last = sorted(random.sample(range(HOURS * 4 + 1), 2))
    period = windows(first, last)
    recompute(tmp_path, history, {life: samples}, period)
    after = history.stored()
    # What was never folded, as storage here, reaches back to where its life began.
    for table in ("usage", "network"):
        outside = [row for row in before[table] if dict(row)["window_start"] not in period]
        assert outside == [row for row in after[table] if dict(row)["window_start"] not in period]
    now_billed, at_most = counters(history), counters(whole)
    for name in billed:
        assert billed[name] <= now_billed[name] <= at_most[name], name
    assert_windows_sum_to_their_readings(history)
    recompute(tmp_path, history, {life: samples}, period)
    assert history.stored() == after


@pytest.mark.parametrize("seed", SEEDS)
def test_neighbouring_ranges_of_a_history_give_what_one_range_gives(
    seed: int, tmp_path: Path
) -> None:
    random = dice(seed)
    samples = random_samples(random, count=60, lasting_ms=LASTING_MS)
    whole, _ = folded(samples)
    edges = [0, *sorted(random.sample(range(1, HOURS * 4), 3)), HOURS * 4]
    history = History()
    life = history.begin("sbx")
    for first, last in pairwise(edges):
        recompute(tmp_path, history, {life: samples}, windows(first, last))
    expected, stored = whole.stored(), history.stored()
    # Storage that was never read goes on from the life's start in whichever range is first.
    for table in ("usage", "network", "resets", "late", "interface readings"):
        assert stored[table] == expected[table], table


@pytest.mark.parametrize("seed", SEEDS)
def test_a_frozen_window_keeps_every_byte_and_late_usage_makes_it_true(
    seed: int, tmp_path: Path
) -> None:
    random = dice(seed)
    samples = random_samples(random, count=60, lasting_ms=LASTING_MS)
    _, whole_life = folded(samples)
    history, life = folded(without(random, samples, 0.5))
    until = at(random.randrange(1, HOURS * 4) * WINDOW_MS)
    freeze_account(history.account_id, until=until)
    before = history.stored()
    recompute(tmp_path, history, {life: samples})
    after = history.stored()
    for table in ("usage", "network", "storage"):
        frozen = [row for row in before[table] if dict(row)["window_start"] < until]
        assert frozen == [row for row in after[table] if dict(row)["window_start"] < until]
    ends = [0], to_ms(at(LASTING_MS))
    assert recorded.totals([life], *ends)[life] == recorded.totals([whole_life], *ends)[whole_life]
    assert not LateUsage.objects.filter(quantity=0).exists()
    recompute(tmp_path, history, {life: samples})
    assert history.stored() == after


def test_late_usage_of_a_window_that_held_too_much_is_negative(tmp_path: Path) -> None:
    every = [Taken(n * MINUTE_MS, cpu_ns=n, memory_bytes=10, interval_s=60) for n in range(1, 15)]
    history, life = folded(every)
    freeze_account(history.account_id, until=at(WINDOW_MS))
    less = [replace(taken, memory_bytes=9) for taken in every]
    recompute(tmp_path, history, {life: less})
    late = LateUsage.objects.get()
    assert (late.quantity_name, int(late.quantity)) == ("memory_byte_ms", -13 * MINUTE_MS)
    recompute(tmp_path, history, {life: every})
    assert not LateUsage.objects.exists()


def test_windows_with_fewer_samples_than_were_counted_are_kept_unless_asked_for(
    tmp_path: Path,
) -> None:
    every = [Taken(n * MINUTE_MS, cpu_ns=n, memory_bytes=10) for n in range(1, 60)]
    history, life = folded(every)
    before = history.stored()
    some = [taken for taken in every if taken.at_ms % (2 * MINUTE_MS)]
    assert recompute(tmp_path, history, {life: some}).kept_windows == 4
    assert history.stored() == before
    recompute(tmp_path, history, {life: some}, fewer_samples=True)
    sums = UsageRecord.objects.aggregate(cpu=Sum("cpu_ns"), samples=Sum("sample_count"))
    assert sums == {"cpu": 59, "samples": 30}


def test_a_dry_run_tells_the_difference_and_writes_nothing(tmp_path: Path) -> None:
    every = [Taken(n * MINUTE_MS, cpu_ns=n, memory_bytes=10) for n in range(1, 60)]
    history, life = folded([every[0], every[-1]])
    before = history.stored()
    report = recompute(tmp_path, history, {life: every}, is_dry=True)
    was, is_now = report.usage[history.account_id]["memory_byte_ms"]
    assert (was, is_now) == (10 * 10_000, 10 * 58 * 10_000)
    assert report.usage[history.account_id]["cpu_ns"] == (59, 59)
    assert history.stored() == before


def test_only_the_accounts_asked_for_are_recomputed(tmp_path: Path) -> None:
    every = [Taken(n * MINUTE_MS, cpu_ns=n, memory_bytes=10) for n in range(1, 60)]
    history, life = folded([every[0], every[-1]])
    before = history.stored()
    assert recompute(tmp_path, history, {life: every}, accounts=frozenset([UUID(int=1)])).lives == 0
    assert history.stored() == before
    accounts = frozenset([history.account_id])
    assert recompute(tmp_path, history, {life: every}, accounts=accounts).lives == 1


def command(*arguments: str) -> str:
    out = StringIO()
    call_command("backfill_usage", *arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


def range_of(history_start: datetime, hours: int = 1) -> tuple[str, ...]:
    end = history_start + timedelta(hours=hours)
    return "--from", history_start.isoformat(), "--to", end.isoformat()


@pytest.fixture
def recent() -> datetime:
    """A window's edge some hours ago: commands read the clock."""
    return window_start(datetime.now(UTC) - timedelta(hours=8))


def rows_of(history: History, started: datetime) -> list[dict[str, Any]]:
    return [
        {
            "host": str(history.host_id),
            "account_id": str(history.account_id),
            "sandbox_id": "imported",
            "started_at": started.isoformat(),
            "read_at": (started + timedelta(minutes=minute)).isoformat(),
            "interval_s": 60,
            "cpu_ns": minute * 10**9,
            "memory_bytes": 2**20,
            "interface": "eth0",
            "rx_bytes": minute * 100,
            "tx_bytes": minute * 50,
            "storage_layer_bytes": 1000,
        }
        for minute in range(1, 31)
    ]


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_json_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    parquet.write_table(pa.Table.from_pylist(rows), path)


@pytest.mark.django_db(databases=["default", "owner"])
@pytest.mark.parametrize(
    ("name", "write"),
    [("a.csv", write_csv), ("a.jsonl", write_json_lines), ("a.parquet", write_parquet)],
)
def test_a_history_comes_in_from_a_file_and_only_once(
    name: str,
    write: Callable[[Path, list[dict[str, Any]]], None],
    recent: datetime,
    tmp_path: Path,
) -> None:
    history = History(registered_at=recent - timedelta(days=1))
    write(tmp_path / name, rows_of(history, recent))
    source = ("--source", str(tmp_path / name))
    assert "+30,000,000,000" in command(*range_of(recent), *source, "--dry-run")
    assert not Life.objects.exists()
    command(*range_of(recent), *source)
    life = Life.objects.get()
    assert (life.sandbox.sandbox_id, life.counts_from_zero) == ("imported", True)
    used = recorded.totals([life.pk], [0], to_ms(recent) + 10 * WINDOW_MS)[life.pk]
    assert used["cpu_ns"] == 30 * 10**9
    assert (used["rx_bytes"], used["tx_bytes"]) == (3000, 1500)
    # The first reading came a minute after the start; what was held until then nobody knows.
    assert used["memory_byte_ms"] == 2**20 * 29 * MINUTE_MS
    assert used["storage_byte_ms"] == 1000 * 29 * MINUTE_MS
    stored = history.stored()
    again = command(*range_of(recent), *source)
    assert "+30,000,000,000" not in again
    assert "+0" in again
    assert history.stored() == stored


@pytest.mark.django_db(databases=["default", "owner"])
def test_bad_rows_are_refused_by_line_and_field_and_cost_no_other(
    recent: datetime, tmp_path: Path
) -> None:
    history = History(registered_at=recent - timedelta(days=1))
    rows = rows_of(history, recent)
    rows[3]["cpu_ns"] = "many"
    rows[5]["host"] = "nowhere"
    rows[7]["read_at"] = "yesterday"
    rows[9]["account_id"] = str(UUID(int=7))
    rows[11]["memory_bytes"] = -1
    rows[13]["interface"] = ""
    write_csv(tmp_path / "a.csv", rows)
    err = StringIO()
    with pytest.raises(CommandError, match="6 rows were refused"):
        call_command(
            "backfill_usage",
            *range_of(recent),
            *("--source", str(tmp_path / "a.csv")),
            stdout=StringIO(),
            stderr=err,
        )
    assert [line.split(": ")[:2] for line in err.getvalue().splitlines()] == [
        ["line 5", "cpu_ns"],
        ["line 7", "host"],
        ["line 9", "read_at"],
        ["line 11", "account_id"],
        ["line 13", "memory_bytes"],
        ["line 15", "interface"],
    ]
    assert UsageRecord.objects.aggregate(n=Sum("sample_count"))["n"] == 24
    assert UsageRecord.objects.aggregate(n=Sum("cpu_ns"))["n"] == 30 * 10**9


def test_a_time_before_what_retention_keeps_is_refused_with_the_date() -> None:
    with pytest.raises(CommandError, match=r"usage is kept from \d{4}-\d\d-01T00:00Z"):
        command(*range_of(datetime.now(UTC) - timedelta(days=130)))


@pytest.mark.django_db(databases=["default", "owner"])
def test_the_streams_are_read_again_up_to_where_they_are_folded(recent: datetime) -> None:
    history = History(registered_at=recent - timedelta(days=1))
    offset = to_ms(recent) - to_ms(START)
    life = history.begin("sbx", offset)
    samples = [
        Taken(offset + n * 1000, cpu_ns=n * 10**6, memory_bytes=10) for n in range(2, 600, 2)
    ]
    history.send(life, samples[:200])
    history.fold(offset + 4 * 60 * MINUTE_MS)
    stored = history.stored()
    history.send(life, samples[200:])
    command(*range_of(recent))
    assert history.stored() == stored
    UsageRecord.objects.update(memory_byte_ms=0)
    command(*range_of(recent))
    assert history.stored() == stored
