"""Ticks that come twice, a thousand at once, too late or not at all, and workers that are replaced.

`make rolling-restarts` restarts all workers every 20 s for ten minutes.
"""

from __future__ import annotations

import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest
import redis
from django.conf import settings

from billing.models import Invoice
from soulbox.celery import app
from tests.faults.billing_crew import Crew, Pace, crew
from tests.faults.billing_month import Customer, find_faults, open_customers
from tests.processes import end_group, wait_until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(1800)]

STORM = 1000
CUSTOMERS = 12
RESTARTS = int(os.environ.get("RESTARTS", "3"))
RESTART_EVERY_S = float(os.environ.get("RESTART_EVERY_S", "0"))
NO_TICK_S = 3
DONE_WITHIN_S = 120
QUICK, SLOW = Pace(batch=4, pause_s=0), Pace(batch=2, pause_s=0.4)


def customers(count: int = CUSTOMERS, *, called: int = 1) -> list[Customer]:
    return open_customers(count, random=Random(called), now=datetime.now(UTC))  # noqa: S311 - the same each time


def wait_for_invoices(count: int, logs: Path) -> None:
    wait_until(
        lambda: Invoice.objects.exclude(number=None).count() >= count,
        seconds=DONE_WITHIN_S,
        what=f"{count} invoices; {logs}",
    )


def send_tick(workers: Crew) -> None:
    app.send_task("billing.tasks.sweep_billing", queue=workers.environment["BILLING_QUEUE"])


def waiting(workers: Crew) -> int:
    with redis.Redis.from_url(settings.REDIS_URL) as broker:
        return int(broker.llen(workers.environment["BILLING_QUEUE"]))


def test_a_thousand_ticks_at_once_and_two_beats_bill_each_account_once(
    service_environment: dict[str, str], tmp_path: Path
) -> None:
    with crew(service_environment, tmp_path, QUICK, nodes=2, processes_a_node=2) as workers:
        billed = customers()
        for _ in range(STORM):
            send_tick(workers)
        workers.add_beats(2)
        wait_for_invoices(len(billed), tmp_path)
        wait_until(
            lambda: waiting(workers) < CUSTOMERS,
            seconds=DONE_WITHIN_S,
            what=f"the storm to be over; {tmp_path}",
        )
    assert find_faults(billed) == []


def test_what_was_due_while_no_beat_was_there_is_made_up_by_the_next(
    service_environment: dict[str, str], tmp_path: Path
) -> None:
    with crew(service_environment, tmp_path, QUICK, nodes=1, processes_a_node=2) as workers:
        workers.add_beats(1)
        (beat,) = workers.beats
        end_group(beat, signal.SIGKILL)
        # Their months ended days ago.
        billed = customers()
        time.sleep(NO_TICK_S)
        assert not Invoice.objects.exists()
        workers.add_beats(1)
        wait_for_invoices(len(billed), tmp_path)
    assert find_faults(billed) == []


def test_workers_that_are_replaced_under_load_lose_nothing_and_do_nothing_twice(
    service_environment: dict[str, str], tmp_path: Path
) -> None:
    billed: list[Customer] = []
    with crew(service_environment, tmp_path, SLOW, nodes=2, processes_a_node=2) as workers:
        workers.add_beats(1)
        for round_ in range(RESTARTS):
            until = time.monotonic() + RESTART_EVERY_S
            billed += customers(called=round_)
            wait_until(
                lambda: bool(workers.in_batch()), seconds=DONE_WITHIN_S, what=f"work; {tmp_path}"
            )
            workers.replace_nodes()
            time.sleep(max(until - time.monotonic(), 0))
        wait_for_invoices(len(billed), tmp_path)
    assert find_faults(billed) == []
    # Else there was no load.
    assert {claim.what for claim in workers.claims()} == {"draft", "finalise"}
    assert len({claim.pid for claim in workers.claims()}) >= RESTARTS
