"""Fill an installation, start gunicorn on it, scrape over and over, write the figures down."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from bench.harness.alone import run_alone
from bench.harness.web import time_gets, web_server
from bench.scraping.installation import HOSTS, fill, fill_counters
from metering.usage_counters import choose_told_accounts
from soulbox.figures import take_figures
from soulbox.metrics import FromTables
from soulbox.services import start_services

ACCOUNTS, QUICK_ACCOUNTS = 100_000, 2_000
SCRAPES, QUICK_SCRAPES = 60, 20
SLOWEST_SHOWN = 5
GOAL_MS = 500


def run(*, results: Path, is_quick: bool) -> None:
    """Measure on embedded services made for it. Raises InUseError when they are in use."""
    run_alone(measure, results=results, is_quick=is_quick)


def measure(*, is_quick: bool) -> dict[str, Any]:
    """Return every figure: rows, seconds of what is taken beforehand, milliseconds of a scrape."""
    start_services()
    call_command("migrate", database="owner", verbosity=0)
    now = datetime.now(UTC)
    accounts = QUICK_ACCOUNTS if is_quick else ACCOUNTS
    rows = fill(accounts, now=now)
    beforehand = {
        "choose_told_accounts": _seconds(lambda: choose_told_accounts(now=now)),
        "take_figures": _seconds(lambda: take_figures(now=now)),
    }
    fill_counters()
    queries = _slowest_queries()
    with web_server("soulbox.wsgi", workers=2) as web:
        scrapes = time_gets(web.port, "/metrics", count=QUICK_SCRAPES if is_quick else SCRAPES)
    return {
        "python": platform.python_version(),
        "accounts": accounts,
        "hosts": HOSTS,
        "rows": rows,
        "seconds_in_the_background": beforehand,
        **queries,
        "scrape_ms": scrapes,
        "ratios": {"scrape_median_of_500_ms": round(scrapes["median"] / GOAL_MS, 3)},
    }


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return round(time.perf_counter() - began, 2)


def _slowest_queries() -> dict[str, Any]:
    """Return how many statements a scrape has, and which take longest, in ms."""
    list(FromTables().collect())
    with CaptureQueriesContext(connection) as captured:
        list(FromTables().collect())
    slowest = sorted(captured.captured_queries, key=lambda one: -float(one["time"]))
    return {
        "statements": len(captured),
        "slowest_statements_ms": [
            [round(float(one["time"]) * 1000), " ".join(one["sql"].split())[:300]]
            for one in slowest[:SLOWEST_SHOWN]
        ],
    }
