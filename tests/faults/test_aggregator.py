"""The aggregator killed outright after every statement it makes, and run by many at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from uuid import UUID

import pytest
from django.db import connections, transaction

from metering import aggregator, ledger
from metering.models import LateUsage, StreamCursor, UsageRecord
from metering.samples import Records
from metering.services import freeze_account
from metering.steps import Ints
from tests.metering.fleet import MINUTE, Fleet
from tests.metering.test_pipeline import COUNTERS, assert_segments_sum_to_their_readings
from tests.processes import ROOT

# One commit makes fewer, so that the rounds reach into the next one, past the commit itself.
KILL_POINTS = range(1, int(os.environ.get("KILL_ROUNDS", "40")) + 1)


TICKS = 400
SANDBOXES = 4


def fold(fleet: Fleet, environment: dict[str, str], *kill_after: str) -> int:
    return subprocess.run(
        [
            *(sys.executable, "-m", "tests.faults.fold"),
            *(str(fleet.host_id), fleet.now.isoformat(), *kill_after),
        ],
        cwd=ROOT,
        env={**os.environ, **environment},
        check=False,
        timeout=60,
    ).returncode


def busy_fleet(*, ticks: int = TICKS) -> Fleet:
    fleet = Fleet()
    for number in range(SANDBOXES):
        fleet.add(f"sbx-{number}", cpu_ns_per_ms=1_000_003 * number)
    fleet.run_without_aggregating(ticks=ticks)
    return fleet


@pytest.mark.django_db(transaction=True)
@pytest.mark.timeout(300)
def test_killed_after_any_statement_it_loses_nothing_and_counts_nothing_twice(
    service_environment: dict[str, str],
) -> None:
    fleet = busy_fleet()
    killed = [
        fold(fleet, service_environment, str(statements)) == -signal.SIGKILL
        for statements in KILL_POINTS
    ]
    assert all(killed)
    folded_meanwhile = StreamCursor.objects.get(host=fleet.host_id).sequence
    assert 0 < folded_meanwhile < TICKS
    assert fold(fleet, service_environment) == 0
    expected, usage = fleet.closed_form(), fleet.usage()
    assert {meter: usage[meter] for meter in COUNTERS} == {m: expected[m] for m in COUNTERS}
    assert_segments_sum_to_their_readings()


@pytest.mark.django_db(transaction=True)
def test_ten_aggregators_at_once_count_everything_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregator, "SAMPLES_PER_COMMIT", 40)
    fleet = busy_fleet()

    def aggregate(_number: int) -> int:
        try:
            return fleet.aggregate()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(10) as pool:
        folded = sum(pool.map(aggregate, range(30)))
    assert folded + fleet.aggregate() == TICKS * SANDBOXES
    assert fleet.usage()[COUNTERS[0]] == fleet.closed_form()[COUNTERS[0]]
    assert_segments_sum_to_their_readings()


@pytest.mark.django_db(transaction=True)
def test_without_the_cursors_lock_two_aggregators_count_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: it shows that the test above would see a race that is lost."""
    fleet = busy_fleet(ticks=1)
    fleet.aggregate()
    first = fleet.closed_form()[COUNTERS[0]]
    fleet.run_without_aggregating(ticks=20)
    both_have_read = Barrier(2, timeout=10)
    load_lives = ledger._load_lives

    def unlocked(host_id: UUID) -> StreamCursor:
        return StreamCursor.objects.select_related("host").get(host_id=host_id)

    def load_and_wait(host_id: UUID, ids: Ints) -> tuple[Records, Records]:
        lives = load_lives(host_id, ids)
        both_have_read.wait()
        return lives

    monkeypatch.setattr(aggregator, "_lock_cursor", unlocked)
    monkeypatch.setattr(aggregator, "COMMITS_PER_RUN", 1)
    monkeypatch.setattr(ledger, "_load_lives", load_and_wait)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: _aggregate_apart(fleet), range(2)))
    rest = fleet.closed_form()[COUNTERS[0]] - first
    assert fleet.usage()[COUNTERS[0]] == first + 2 * rest


def _aggregate_apart(fleet: Fleet) -> None:
    try:
        fleet.aggregate()
    finally:
        connections.close_all()


@pytest.mark.django_db(transaction=True)
def test_a_freeze_that_races_with_aggregators_leaves_every_byte_it_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(aggregator, "SAMPLES_PER_COMMIT", 40)
    fleet = busy_fleet()
    until = fleet.now - 10 * MINUTE

    def aggregate(_number: int) -> None:
        _aggregate_apart(fleet)

    def freeze() -> list[dict[str, object]]:
        try:
            with transaction.atomic():
                freeze_account(fleet.account_id, until=until)
                return _closed_rows(until)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(11) as pool:
        aggregations = [pool.submit(aggregate, number) for number in range(10)]
        at_freeze = pool.submit(freeze).result()
        for aggregation in aggregations:
            aggregation.result()
    fleet.aggregate()
    assert _closed_rows(until) == at_freeze
    late = sum(row.quantity for row in LateUsage.objects.filter(quantity_name="cpu_ns"))
    assert fleet.usage().get(COUNTERS[0], 0) + late == fleet.closed_form()[COUNTERS[0]]


def _closed_rows(until: object) -> list[dict[str, object]]:
    rows = UsageRecord.objects.filter(window_start__lt=until).order_by("life", "window_start")
    return list(rows.values())
