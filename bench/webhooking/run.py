"""Start gunicorn with one worker process, send it webhooks, write down how soon it answers."""

from __future__ import annotations

import asyncio
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path

from django.conf import settings
from django.core.management import call_command

from bench.harness.alone import run_alone
from bench.harness.web import HOST, STOP_LIMIT_S, THREADS, web_server
from bench.webhooking.load import Answers, on_time, one_by_one, request_about
from billing.services import open_account
from payments.models import WebhookEvent
from payments.services.customers import ensure_customer
from soulbox.embedded import APPLICATION_ROLE, OWNER_ROLE, Embedded
from soulbox.services import start_services

A_SECOND = 200
SECONDS, QUICK_SECONDS = 30, 5
WARM_UPS = 100
ONE_BY_ONE, QUICK_ONE_BY_ONE = 1_000, 100
CUSTOMERS = 20
GOAL_P99_MS, GOAL_ANSWER_MS = 100, 50


def run(*, results: Path, is_quick: bool) -> None:
    """Measure on embedded services made for it. Raises InUseError when they are in use."""
    with _local_stripe() as address:
        os.environ["STRIPE_API_BASE"] = address
        run_alone(measure, results=results, is_quick=is_quick)


def measure(*, is_quick: bool) -> dict[str, object]:
    """Return every figure, in milliseconds. Raises RuntimeError when an event is lost."""
    start_services()
    call_command("migrate", database="owner", verbosity=0)
    customers = cycle(_make_customers())
    due = A_SECOND * (QUICK_SECONDS if is_quick else SECONDS)
    single = QUICK_ONE_BY_ONE if is_quick else ONE_BY_ONE

    def requests(count: int) -> list[bytes]:
        return [request_about(customer) for customer in islice(customers, count)]

    def sustained(port: int) -> Answers:
        # So that each thread has its connections.
        asyncio.run(on_time(port, requests(WARM_UPS), a_second=A_SECOND))
        return _noted("200 a second", asyncio.run(on_time(port, requests(due), a_second=A_SECOND)))

    def closed(port: int) -> Answers:
        asyncio.run(one_by_one(port, requests(WARM_UPS)))
        return _noted("one by one", asyncio.run(one_by_one(port, requests(single))))

    with web_server("soulbox.wsgi", workers=1) as web:
        alone, with_redis = closed(web.port), sustained(web.port)
    with _mute_server() as url, web_server("soulbox.wsgi", workers=1, **_other_redis(url)) as web:
        without_redis = sustained(web.port)
    with web_server("bench.webhooking.inline_wsgi", workers=1) as web:
        inline = closed(web.port)
    sent = 4 * WARM_UPS + 2 * single + 2 * due
    if (stored := WebhookEvent.objects.count()) != sent:
        raise RuntimeError(f"Of {sent} events {stored} are stored.")
    applied = WebhookEvent.objects.filter(status="applied").count()
    if applied != WARM_UPS + single:
        raise RuntimeError(f"Of {WARM_UPS + single} events inline {applied} are applied.")
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "web_workers": 1,
        "threads_a_worker": THREADS,
        "one_by_one_ms": alone.told(),
        "sustained_ms": with_redis.told(),
        "sustained_while_redis_is_mute_ms": without_redis.told(),
        "applied_inline_one_by_one_ms": inline.told(),
        "ratios": {
            "p99_of_100_ms": round(with_redis.told()["p99"] / GOAL_P99_MS, 3),
            "p99_of_100_ms_while_redis_is_mute": round(
                without_redis.told()["p99"] / GOAL_P99_MS, 3
            ),
            "median_of_50_ms": round(with_redis.told()["median"] / GOAL_ANSWER_MS, 3),
            "inline_median_to_stored_median": round(
                inline.told()["median"] / alone.told()["median"], 1
            ),
        },
    }


def _noted(name: str, answers: Answers) -> Answers:
    print(name, answers.told(), flush=True)
    return answers


def _make_customers() -> list[str]:
    """Return customers that the local Stripe knows and that are accounts of ours."""
    now = datetime.now(UTC)
    accounts = [
        open_account(name=f"Bench {number}", currency="USD", time_zone="UTC", now=now)
        for number in range(CUSTOMERS)
    ]
    return [ensure_customer(account.pk, now=now) for account in accounts]


@contextmanager
def _local_stripe() -> Iterator[str]:
    """Run the local Stripe, and give its address."""
    server = subprocess.Popen(
        [sys.executable, "-m", "soulbox.local_stripe", "--announce-port-on-stdout"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        if server.stdout is None:
            raise TypeError("the local Stripe has no output")
        yield server.stdout.readline().strip()
    finally:
        server.terminate()
        server.wait(STOP_LIMIT_S)
        if server.stdout is not None:
            server.stdout.close()


@contextmanager
def _mute_server() -> Iterator[str]:
    """Give the address of something that takes connections and never says a word."""
    with socket.create_server((HOST, 0), backlog=1024) as mute:
        yield f"redis://{HOST}:{mute.getsockname()[1]}/0"


def _other_redis(url: str) -> Mapping[str, str]:
    """Return an environment with the same PostgreSQL and another broker."""
    embedded = settings.EMBEDDED
    if not isinstance(embedded, Embedded):
        raise TypeError("the benchmark runs on embedded services only")
    return {
        "HTTPS_ONLY": "no",
        "DATABASE_URL": embedded.database_url(APPLICATION_ROLE),
        "DATABASE_OWNER_URL": embedded.database_url(OWNER_ROLE),
        "REDIS_URL": url,
        "STREAM_REDIS_URL": embedded.redis_url(1),
        "CACHE_REDIS_URL": embedded.redis_url(2),
        "SECRET_KEY": settings.SECRET_KEY,
    }
