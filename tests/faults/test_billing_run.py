"""A billing run whose workers and beats are killed outright, or stand still, while it goes on.

`make faults-billing` runs it over 2,000 accounts with ten worker nodes; here it is smaller.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from random import Random

import psycopg
import pytest
from django.db import connection, connections

from billing import services
from billing.models import Invoice
from billing.models.invoices import Series
from billing.services import issuing
from tests.conftest import wipe_committed_rows
from tests.faults.billing_crew import Crew, Pace, Victim, crew
from tests.faults.billing_month import find_faults, open_customers
from tests.faults.fold import KillAfter
from tests.processes import wait_until
from tests.races.workers import run_at_once

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(1800)]

ACCOUNTS = int(os.environ.get("BILLING_RUN_ACCOUNTS", "200"))
NODES = int(os.environ.get("BILLING_RUN_NODES", "2"))
WORKERS = 10
KILL_EVERY_S = float(os.environ.get("BILLING_RUN_KILL_EVERY_S", "0.7"))
SEED = int(os.environ.get("BILLING_RUN_SEED") or time.time())
PACE = Pace(batch=5, pause_s=0.4)
MOST_KILLS = int(os.environ.get("BILLING_RUN_MOST_KILLS", "4"))
VICTIMS: tuple[Victim, ...] = ("process", "node", "process", "beat")
DONE_WITHIN_S = 1200
# Empty for what the product says.
HELD = os.environ.get("BILLING_RUN_HELD", "4s")
FEW_STATEMENTS, MANY_STATEMENTS = 10, 300
ONCE = "usage_of_an_account_is_invoiced_once_a_period"
NO_OVERLAP = "usage_invoice_periods_do_not_overlap"
INDEX = f"SELECT pg_get_indexdef('{ONCE}'::regclass)"
CONSTRAINT = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = %s"
TAKE = """
INSERT INTO billing_numberseries (series, year, last_number)
VALUES (%(series)s, %(year)s, %(count)s)
ON CONFLICT (series, year)
DO UPDATE SET last_number = billing_numberseries.last_number + %(count)s
RETURNING last_number
"""

Report = Callable[[str], None]


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Report:
    """Say a figure, past pytest's hold on what is printed."""

    def say(line: str) -> None:
        with capsys.disabled():
            print(f"\n{line}")  # noqa: T201 - figures are what the make target is for

    return say


def numbered() -> int:
    return Invoice.objects.exclude(number=None).count()


def test_killed_workers_and_beats_leave_one_right_invoice_for_each_account(
    service_environment: dict[str, str], tmp_path: Path, report: Report
) -> None:
    random = Random(SEED)  # noqa: S311 - a test's chance, to be had again
    a_node = WORKERS // NODES
    with crew(service_environment, tmp_path, PACE, nodes=NODES, processes_a_node=a_node) as workers:
        customers = open_customers(ACCOUNTS, random=random, now=datetime.now(UTC))
        workers.add_beats(2)
        began = time.monotonic()
        kill_until(lambda: numbered() == ACCOUNTS, workers, random, most=MOST_KILLS)
        took_s = time.monotonic() - began
    delays = workers.taken_up_after_s()
    report(
        f"seed {SEED}: {ACCOUNTS} accounts in {took_s:.0f} s, {len(workers.killed)} kills, "
        f"{len(delays)} batches lost; taken up by another after, in s, sorted: "
        f"{[round(delay, 1) for delay in sorted(delays)]}"
    )
    assert find_faults(customers) == []
    # Else the kills have shown nothing.
    assert len(workers.killed) >= 3
    assert delays
    assert max(delays) < 60


def kill_until(is_done: Callable[[], bool], workers: Crew, random: Random, *, most: int) -> None:
    """Kill one after the other, until it is done."""
    victims = cycle(VICTIMS)
    victim = next(victims)
    deadline = time.monotonic() + DONE_WITHIN_S
    kill_at = time.monotonic() + KILL_EVERY_S
    while not is_done():
        time.sleep(0.1)
        if time.monotonic() > deadline:
            raise TimeoutError(f"{numbered()} invoices; {workers.logs}")
        if (
            time.monotonic() > kill_at
            and len(workers.killed) < most
            and workers.kill(victim, random)
        ):
            victim = next(victims)
            kill_at = time.monotonic() + KILL_EVERY_S * random.uniform(0.5, 1.5)


@pytest.mark.parametrize("sweep", [services.draft_due_invoices, services.finalise_due_invoices])
def test_killed_after_any_statement_a_sweep_loses_nothing_and_does_nothing_twice(
    sweep: Callable[[datetime], int],
) -> None:
    now = datetime.now(UTC)
    customers = open_customers(6, random=Random(SEED), now=now)  # noqa: S311 - as above
    if sweep == services.finalise_due_invoices:
        services.draft_due_invoices(now)
    killed = kill_after_each_statement(lambda: sweep(now))
    # Past the claim and to the last statement, whatever their number comes to be.
    assert killed > FEW_STATEMENTS
    services.draft_due_invoices(now)
    services.finalise_due_invoices(now)
    assert find_faults(customers) == []


def kill_after_each_statement(work: Callable[[], object]) -> int:
    """Do the work again and again, each time killed a statement later; return how often."""

    def work_until_killed(statements: int) -> None:
        connection.execute_wrappers.append(KillAfter(statements))
        work()

    for statements in range(1, MANY_STATEMENTS):
        (status,) = run_at_once(lambda _: work_until_killed(statements), workers=1)  # noqa: B023 - called at once
        if status == 0:
            return statements - 1
        assert status == -signal.SIGKILL
    raise AssertionError(f"a sweep makes more than {MANY_STATEMENTS} statements")


def test_a_worker_that_stands_still_loses_its_batch_to_another(
    service_environment: dict[str, str], tmp_path: Path, report: Report
) -> None:
    pace = Pace(batch=5, pause_s=0.5, held=HELD)
    with crew(service_environment, tmp_path, pace, nodes=1, processes_a_node=2) as workers:
        customers = open_customers(20, random=Random(SEED), now=datetime.now(UTC))  # noqa: S311 - as above
        workers.add_beats(1)
        stopped = workers.stop_one()
        wait_until(lambda: numbered() == len(customers), seconds=60, what=f"the rest; {tmp_path}")
        (delay,) = workers.taken_up_after_s()
        # It goes on where it stood, and finds that its transaction is over.
        os.kill(stopped, signal.SIGCONT)
        wait_until(lambda: not workers.at_work(), seconds=20, what=f"it to give up; {tmp_path}")
    report(
        f"stood still, and loses its batch after {HELD or '45s'}: taken up by another after "
        f"{delay:.1f} s"
    )
    assert delay < 60
    assert find_faults(customers) == []


def test_control_without_locks_and_constraints_there_are_duplicates(
    service_environment: dict[str, str], tmp_path: Path
) -> None:
    random = Random(SEED)  # noqa: S311 - as above
    customers = open_customers(20, random=random, now=datetime.now(UTC))
    pace = Pace(batch=5, pause_s=0.4, unsafe=True)
    with without_uniqueness():
        with crew(service_environment, tmp_path, pace, nodes=1, processes_a_node=4) as workers:
            workers.add_beats(2)
            kill_until(lambda: numbered() >= len(customers), workers, random, most=1)
        faults = " and ".join(find_faults(customers))
    assert re.search("has ([2-9]|[1-9][0-9]) invoices", faults), faults


def test_control_with_numbers_from_a_sequence_there_are_gaps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = datetime.now(UTC)
    customers = open_customers(2, random=Random(SEED), now=now)  # noqa: S311 - as above
    services.draft_due_invoices(now)
    monkeypatch.setattr(issuing, "take_numbers", take_numbers_for_good)
    kill_after_each_statement(lambda: services.finalise_due_invoices(now))
    assert any("is a gap" in fault for fault in find_faults(customers))


def take_numbers_for_good(series: Series, count: int, *, now: datetime) -> list[str]:
    """Give numbers as a sequence does: they are gone, whatever becomes of the transaction."""
    with psycopg.connect(**connections["owner"].get_connection_params()) as own:
        row = own.execute(TAKE, {"series": series.value, "year": now.year, "count": count})
        (last,) = row.fetchone() or (0,)
    return [f"{now.year}-{number:06d}" for number in range(last - count + 1, last + 1)]


@contextmanager
def without_uniqueness() -> Iterator[None]:
    """Take away what keeps a period from being invoiced twice; give it back over empty tables."""
    owner = connections["owner"].get_connection_params()
    with psycopg.connect(**owner, autocommit=True) as connected:
        (index,) = connected.execute(INDEX).fetchone() or ("",)
        (constraint,) = connected.execute(CONSTRAINT, [NO_OVERLAP]).fetchone() or ("",)
        connected.execute(f"DROP INDEX {ONCE}")
        connected.execute(f"ALTER TABLE billing_invoice DROP CONSTRAINT {NO_OVERLAP}")
        try:
            yield
        finally:
            wipe_committed_rows()
            connected.execute(index)
            connected.execute(
                f"ALTER TABLE billing_invoice ADD CONSTRAINT {NO_OVERLAP} {constraint}"
            )
