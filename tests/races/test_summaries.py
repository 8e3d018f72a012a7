"""A fold that changes a day long past, while that day is being summarised."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from django.db import connection, transaction

from metering.models import DailyUsageSummary, TouchedDay, UsageRecord
from metering.period import to_ms
from metering.summaries import summarise_touched_days, touch_days
from tests.metering.batches import Host

pytestmark = pytest.mark.django_db(transaction=True)

START = datetime(2026, 11, 2, tzinfo=UTC)
NOW = START + timedelta(days=9)
SUMMARISED_WITHIN_S = 30


def change_while_summarising(touch: Callable[[int], None]) -> int:
    """Change a record of a day that is marked, let a summary run, commit; return its figure."""
    host = Host()
    account = host.account()
    life = host.start(account, "sbx", START)
    host.run(life, START, START + timedelta(minutes=10))
    # With a newer summary there is no reason to look at the old day again.
    late = NOW - timedelta(minutes=10)
    host.run(host.start(account, "sbx", late), late, NOW)
    host.fold(NOW)
    assert TouchedDay.objects.count() == 1
    with transaction.atomic():
        UsageRecord.objects.filter(life=life).update(cpu_ns=5)
        touch(life)
        thread = threading.Thread(target=summarise)
        thread.start()
        # It either waits for this transaction, or is done without its change.
        thread.join(1)
    thread.join(SUMMARISED_WITHIN_S)
    assert not thread.is_alive()
    # What was not seen is still marked, or lost.
    summarise_touched_days(now=NOW)
    return int(DailyUsageSummary.objects.earliest("day").cpu_ns)


def summarise() -> None:
    try:
        summarise_touched_days(now=NOW)
    finally:
        connection.close()


def test_a_change_that_commits_during_a_summary_is_in_it_or_leaves_a_mark() -> None:
    windows = np.array([to_ms(START)])
    assert (
        change_while_summarising(lambda life: touch_days([(np.array([life]), windows)], now=NOW))
        == 5
    )


def test_a_mark_that_is_only_left_where_there_is_none_loses_the_change() -> None:
    def touch(life: int) -> None:
        del life
        TouchedDay.objects.bulk_create(
            [
                TouchedDay(account_id=row.account_id, day=row.day)
                for row in TouchedDay.objects.all()
            ],
            ignore_conflicts=True,
        )

    assert change_while_summarising(touch) == 600 * 10**9
