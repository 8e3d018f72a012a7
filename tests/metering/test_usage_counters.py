"""What a monitor is told was used never falls, whoever is told of."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

import numpy as np
import pytest
from django.db.models import F

from metering import usage_counters
from metering.ledger import Book
from metering.meters import Meter
from metering.models import DailyUsageTotal, Life, ToldAccount, UsageCounter, UsageRecord
from metering.readings import LIFE_READING
from metering.running import (
    SUMMARISED_WITHIN,
    UNSAMPLED_AFTER,
    running_by_told_account,
    summarised_at,
    unsampled,
)
from metering.services import register_account
from metering.summaries import summarise_touched_days
from metering.tasks import choose_told_accounts as choose_task
from metering.totals import LIFE_COLUMNS
from metering.usage_counters import OTHER, choose_told_accounts, count_usage, told_usage
from tests.metering.fleet import MINUTE, START, Fleet

pytestmark = pytest.mark.django_db

COLUMNS = LIFE_COLUMNS.values()
ANY_DAY_AHEAD = START.date().replace(year=2999)


def account_with_usage(cpu_ns: int) -> UUID:
    account_id = uuid4()
    register_account(account_id=account_id, time_zone="UTC", registered_at=START)
    DailyUsageTotal.objects.create(account_id=account_id, day=START.date(), cpu_ns=cpu_ns)
    return account_id


def added_up() -> dict[Meter, int]:
    told = told_usage().values()
    return {meter: sum(usage[meter] for usage in told) for meter in Meter}


def used(fleet: Fleet) -> dict[Meter, int]:
    return {meter: fleet.usage().get(meter, 0) for meter in Meter}


def test_what_is_folded_is_counted_once_as_others_until_the_account_is_told_of() -> None:
    fleet = Fleet()
    fleet.add("sbx-1")
    fleet.run(3 * MINUTE)
    assert set(told_usage()) == {OTHER}
    assert told_usage()[OTHER] == used(fleet)
    assert used(fleet)[Meter.CPU]
    # Nothing waits: the counters stay.
    fleet.aggregate()
    assert told_usage()[OTHER] == used(fleet)

    summarise_touched_days(now=fleet.now)
    before = told_usage()[OTHER]
    assert choose_told_accounts(now=fleet.now) == [fleet.account_id]
    assert choose_told_accounts(now=fleet.now) == []
    told = str(fleet.account_id)
    # Being told of moves nothing: what others had stays theirs, and its own begins at zero.
    assert told_usage() == {OTHER: before, told: dict.fromkeys(Meter, 0)}
    fleet.run(3 * MINUTE)
    assert told_usage()[OTHER] == before
    assert told_usage()[told][Meter.CPU] == used(fleet)[Meter.CPU] - before[Meter.CPU] > 0
    assert added_up() == used(fleet)


def test_records_that_are_dropped_or_corrected_move_nothing() -> None:
    fleet = Fleet()
    fleet.add("sbx-1")
    fleet.run(3 * MINUTE)
    counted = told_usage()
    UsageRecord.objects.update(cpu_ns=F("cpu_ns") - 1)
    UsageRecord.objects.all().delete()
    assert told_usage() == counted


def test_two_hosts_of_an_account_are_one_series() -> None:
    one, two = Fleet(), Fleet()
    two.account_id = one.account_id
    ToldAccount.objects.create(account_id=one.account_id, since=START)
    for fleet in (one, two):
        fleet.add("sbx-1" if fleet is one else "sbx-2")
        fleet.run(MINUTE)
    assert UsageCounter.objects.count() == 2
    assert set(told_usage()) == {OTHER, str(one.account_id)}
    assert told_usage()[str(one.account_id)] == used(one)


def test_who_is_not_among_the_heaviest_any_more_leaves_and_moves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(usage_counters, "MOST_NEW", 1)
    monkeypatch.setattr(usage_counters, "MOST_TOLD", 2)
    accounts = [account_with_usage(cpu_ns) for cpu_ns in (300, 200, 100)]

    def told() -> set[UUID]:
        choose_told_accounts(now=START)
        return set(ToldAccount.objects.values_list("account_id", flat=True))

    assert told() == {accounts[0]}
    # Second now: it stays, and the new first comes.
    DailyUsageTotal.objects.filter(account=accounts[1]).update(cpu_ns=400)
    assert told() == {accounts[0], accounts[1]}
    fleet = Fleet()
    UsageCounter.objects.create(host=fleet.host, told_as=str(accounts[0]), cpu_ns=7)
    UsageCounter.objects.create(host=fleet.host, told_as=OTHER, cpu_ns=9)
    # Third: it leaves, with its counters; what all others have is as it was.
    DailyUsageTotal.objects.filter(account=accounts[2]).update(cpu_ns=500)
    assert told() == {accounts[1], accounts[2]}
    assert set(told_usage()) == {OTHER, *map(str, (accounts[1], accounts[2]))}
    assert told_usage()[OTHER][Meter.CPU] == 9
    # What is days ago does not count.
    DailyUsageTotal.objects.update(day=START.date() - timedelta(days=3))
    assert told() == set()


def test_growth_of_an_account_that_left_meanwhile_is_of_others() -> None:
    fleet = Fleet()
    fleet.add("sbx-1")
    ToldAccount.objects.create(account_id=fleet.account_id, since=START)
    book = Book(fleet.host_id)
    fleet.run_without_aggregating(ticks=3)
    original = usage_counters._add

    def leave_first(host_id: UUID, sums: dict[int, dict[Meter, int]]) -> None:
        ToldAccount.objects.all().delete()
        original(host_id, sums)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(usage_counters, "_add", leave_first)
        fleet.aggregate()
    assert told_usage() == {OTHER: used(fleet)}
    # A run of batches without usage counts nothing.
    count_usage(book)
    assert told_usage() == {OTHER: used(fleet)}


def test_sums_that_pass_64_bits_are_counted() -> None:
    fleet = Fleet()
    for number in range(3):
        fleet.add(f"sbx-{number}")
    fleet.run(MINUTE)
    before = told_usage()[OTHER][Meter.MEMORY]
    book = Book(fleet.host_id)
    lives = UsageRecord.objects.values_list("life_id", flat=True)
    book.meet_lives(np.unique(np.array(list(lives), np.int64)))
    assert book.lives.readings.dtype == LIFE_READING
    largest = 2**63 - 1
    usage = np.zeros(3, [("life", "<i8"), *((name, "<i8") for name in COLUMNS)])
    usage["life"] = book.owners["life"]
    usage["memory_byte_ms"] = largest
    book.lives.usage.append(usage)
    count_usage(book)
    assert told_usage()[OTHER][Meter.MEMORY] == before + 3 * largest


def test_what_runs_is_counted_by_account_and_what_is_not_read() -> None:
    assert running_by_told_account() == {OTHER: 0}
    one, two = Fleet(), Fleet()
    ToldAccount.objects.create(account_id=one.account_id, since=START)
    for fleet, count in ((one, 2), (two, 1)):
        for number in range(count):
            fleet.add(f"sbx-{number}")
        fleet.run(MINUTE)
    assert running_by_told_account() == {str(one.account_id): 2, OTHER: 1}
    assert unsampled(now=one.now + UNSAMPLED_AFTER) == 0
    two.run(MINUTE)
    assert unsampled(now=two.now + UNSAMPLED_AFTER) == 2


def test_when_days_of_what_runs_were_summarised_is_known() -> None:
    fleet = Fleet()
    fleet.add("sbx-1")
    fleet.run(MINUTE)
    # It began a moment ago.
    assert summarised_at(now=fleet.now) is None
    later = fleet.now + SUMMARISED_WITHIN
    assert summarised_at(now=later) == Life.objects.get().recorded_at
    summarise_touched_days(now=later)
    assert summarised_at(now=later) == later
    assert summarised_at(now=later + timedelta(days=1)) == later
    Life.objects.update(ended_at=later)
    assert summarised_at(now=later) is None


def test_the_task_chooses() -> None:
    account_id = account_with_usage(1)
    choose_task()
    assert not ToldAccount.objects.exists()  # Its usage is days ago by the true clock.
    DailyUsageTotal.objects.update(day=ANY_DAY_AHEAD)
    choose_task()
    assert [told.account_id for told in ToldAccount.objects.all()] == [account_id]
