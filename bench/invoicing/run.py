"""Draft and finalise a month by one worker and by two, beside an ORM loop and a bare COPY."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from statistics import median

from django.core.management import call_command
from django.db import connection

from bench.aggregating.processes import Worker
from bench.harness.alone import run_alone
from bench.invoicing.month import AFTER, METERS, charge_six_meters, make_accounts
from bench.invoicing.yardsticks import copy_again, draft_by_orm, finalise_one_by_one
from billing import services
from billing.models import Account, Invoice, InvoiceLine
from soulbox.services import start_services

ACCOUNTS, QUICK_ACCOUNTS = 10_000, 300
ROUNDS, QUICK_ROUNDS = 3, 1
GROWTH, QUICK_GROWTH = (1_000, 100_000), (300, 1_500)
BY_ORM, QUICK_BY_ORM = 300, 40
WARM_UP = 250
STOP_LIMIT_S = 60


def run(*, results: Path, is_quick: bool) -> None:
    """Measure on embedded services made for it. Raises InUseError when they are in use."""
    run_alone(measure, results=results, is_quick=is_quick)


def measure(*, is_quick: bool) -> dict[str, object]:
    """Return every figure: invoices a second of each way and size, and how they compare."""
    start_services()
    call_command("migrate", database="owner", verbosity=0)
    charge_six_meters()
    accounts = QUICK_ACCOUNTS if is_quick else ACCOUNTS
    by_orm = QUICK_BY_ORM if is_quick else BY_ORM
    rounds = QUICK_ROUNDS if is_quick else ROUNDS
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker()) for _ in range(2)]
        make_accounts(WARM_UP, batch="warm-up")
        _month(workers, "warm-up")
        one, two, orm = [], [], []
        for number in range(rounds):
            make_accounts(by_orm, batch=f"orm{number}")
            orm.append(workers[0].call(_by_orm, f"orm{number}"))
            make_accounts(accounts, batch=f"one{number}")
            one.append(_month(workers[:1], f"one{number}"))
            make_accounts(accounts, batch=f"two{number}")
            two.append(_month(workers, f"two{number}"))
        floor = copy_again(accounts)
        sizes = QUICK_GROWTH if is_quick else GROWTH
        growth = []
        for size in sizes:
            make_accounts(size, batch=f"size{size}")
            growth.append(_month(workers[:1], f"size{size}"))
    return {
        "python": platform.python_version(),
        "postgresql": connection.cursor().execute("SHOW server_version").fetchone()[0],
        "accounts": accounts,
        "meters": METERS,
        "invoices_a_second": {
            "one_worker": one,
            "two_workers": two,
            "orm_loop": orm,
            "bare_copy": floor,
            "by_size": dict(zip(map(str, sizes), growth, strict=True)),
        },
        "ratios": {
            "vs_orm": _ratio(_rates(one, "both"), _rates(orm, "both")),
            "drafting_vs_orm": _ratio(_rates(one, "drafting"), _rates(orm, "drafting")),
            "finalising_vs_orm": _ratio(_rates(one, "finalising"), _rates(orm, "finalising")),
            "of_copy_floor": _ratio(_rates(one, "both"), [floor]),
            "two_workers_vs_one": _ratio(_rates(two, "both"), _rates(one, "both")),
            "time_an_invoice_at_the_larger_size": round(growth[0]["both"] / growth[1]["both"], 3),
        },
    }


def _month(workers: list[Worker], batch: str) -> dict[str, float]:
    """Return the invoices a second of drafting, of finalising, and of the two together."""
    count = Account.objects.filter(invoices__isnull=True).count()
    drafting_s = _timed(workers, services.draft_due_invoices)
    finalising_s = _timed(workers, services.finalise_due_invoices)
    _refuse_unless_done(count, batch)
    return _speeds(count, drafting_s, finalising_s)


def _timed(workers: list[Worker], work: Callable[[datetime], int]) -> float:
    began = time.perf_counter()
    for worker in workers:
        worker.start(_until_done, work)
    for worker in workers:
        worker.result()
    return time.perf_counter() - began


def _until_done(work: Callable[[datetime], int]) -> None:
    while work(AFTER):
        pass


def _by_orm(batch: str) -> dict[str, float]:
    """Do the same account by account; return invoices a second as `_month` does."""
    due = list(Account.objects.filter(invoices__isnull=True))
    began = time.perf_counter()
    drafts = [draft_by_orm(account) for account in due]
    drafting_s = time.perf_counter() - began
    began = time.perf_counter()
    finalise_one_by_one(drafts)
    finalising_s = time.perf_counter() - began
    _refuse_unless_done(len(due), batch)
    return _speeds(len(due), drafting_s, finalising_s)


def _speeds(count: int, drafting_s: float, finalising_s: float) -> dict[str, float]:
    return {
        "drafting": round(count / drafting_s, 1),
        "finalising": round(count / finalising_s, 1),
        "both": round(count / (drafting_s + finalising_s), 1),
    }


def _refuse_unless_done(count: int, batch: str) -> None:
    """Raise unless every account of the last batch has a final invoice of as many lines."""
    final = Invoice.objects.filter(number__isnull=False)
    left = Account.objects.exclude(parked_reason="").count() or (
        Account.objects.filter(invoices__isnull=True).count()
    )
    lines = InvoiceLine.objects.filter(kind="usage").count()
    if left or lines != METERS * final.count():
        raise RuntimeError(f"{batch}: {left} of {count} accounts are left, {lines} usage lines.")


def _rates(rounds: list[dict[str, float]], name: str) -> list[float]:
    return [speeds[name] for speeds in rounds]


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return round(median(ours) / median(theirs), 3)
