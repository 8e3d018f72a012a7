"""Fill an installation, start gunicorn on it, ask on time, write down how soon it answers."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client

from bench.aggregating.processes import family_cpu_s
from bench.asking.installation import FULL, QUICK, Filled, fill
from bench.harness.alone import run_alone
from bench.harness.web import THREADS, Web, web_server
from bench.webhooking.load import Answers, on_time, one_by_one
from billing.caching import Kind, forget
from billing.models import Membership
from billing.services import issue_api_key
from soulbox.services import start_services

WEB_WORKERS = 2
A_SECOND = 50
SECONDS, QUICK_SECONDS = 60, 1
RATES, QUICK_RATES = (10, 25, 50, 75, 100, 150, 200, 250, 300), (50, 100)
RATE_SECONDS, QUICK_RATE_SECONDS = 10, 1
WARM_UPS, QUICK_WARM_UPS = 50, 10
ONE_BY_ONE, QUICK_ONE_BY_ONE = 100, 10
CACHED_ACCOUNTS = 20
"""So few are asked for over and over where answers are to be kept ones."""
SEED = 20261101
_forgetting = ThreadPoolExecutor(1)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked for, and in how many milliseconds 95 of 100 answers are to be there.

    `is_new`: no answer kept counts. `askers`: who asks, over and over. Without a goal it is asked
    for one by one only.
    """

    path: str
    askers: str = "all"
    goal_ms: int | None = None
    is_new: bool = False


def questions(today: datetime) -> dict[str, Question]:
    """Return what is asked for, by name."""
    year = f"start_date={today - timedelta(days=365):%Y-%m-%d}&end_date={today:%Y-%m-%d}"
    week = f"start_date={today - timedelta(days=7):%Y-%m-%d}&end_date={today:%Y-%m-%d}"
    history = "/api/v1/usage/history"
    by_day = f"{history}?{year}&granularity=day"
    current = "/api/v1/usage/current"
    return {
        "usage_current": Question(current, goal_ms=50, is_new=True),
        "usage_current_cached": Question(current, "few", goal_ms=10),
        "usage_history_year_by_day": Question(by_day, goal_ms=100),
        "invoices": Question("/api/v1/invoices", goal_ms=50),
        "usage_current_of_heavy": Question(current, "heavy", is_new=True),
        "usage_history_year_by_day_of_heavy": Question(by_day, "heavy"),
        "usage_history_year_by_month_and_sandbox": Question(
            f"{history}?{year}&granularity=month&group_by=sandbox"
        ),
        "usage_history_week_by_hour": Question(f"{history}?{week}&granularity=hour"),
        "usage_summary_current": Question("/api/v1/usage/summary/current"),
        "subscription": Question("/api/v1/subscription"),
        "page_overview": Question("/", "member"),
    }


def run(*, results: Path, is_quick: bool) -> None:
    """Measure on embedded services made for it. Raises InUseError when they are in use."""
    run_alone(measure, results=results, is_quick=is_quick)


def measure(*, is_quick: bool) -> dict[str, object]:
    """Return every figure, in milliseconds."""
    start_services()
    call_command("migrate", database="owner", verbosity=0)
    now = datetime.now(UTC)
    began = time.perf_counter()
    filled = fill(QUICK if is_quick else FULL, now=now)
    print(f"filled in {time.perf_counter() - began:.0f} s: {filled.rows}", flush=True)
    askers = _askers(filled, now=now)
    asked = questions(now)
    load = os.getloadavg()[0]
    # Each key may call as often as it likes here.
    with web_server("soulbox.wsgi", workers=WEB_WORKERS, API_CALLS_A_MINUTE="1000000") as web:
        answers = {
            name: _ask(name, question, askers[question.askers], web, is_quick=is_quick)
            for name, question in asked.items()
        }
    goals = {name: question.goal_ms for name, question in asked.items() if question.goal_ms}
    p95 = {name: answers[name]["a_second_50_ms"]["p95"] for name in goals}
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "web_workers": WEB_WORKERS,
        "threads_a_worker": THREADS,
        # Of the machine as the server started: what else ran on it slows all of this down.
        "load_before": round(load, 1),
        "rows": filled.rows,
        "answers": answers,
        "ratios": {
            **{
                f"{name}_p95_of_{goal}_ms": round(p95[name] / goal, 3)
                for name, goal in goals.items()
            },
            "current_cached_median_to_new": round(
                answers["usage_current_cached"]["one_by_one_ms"]["median"]
                / answers["usage_current"]["one_by_one_ms"]["median"],
                3,
            ),
        },
    }


@dataclass(frozen=True, slots=True)
class Asker:
    """Somebody who asks about an account, and the header that says who it is."""

    account_id: UUID
    header: str


def _askers(filled: Filled, *, now: datetime) -> dict[str, list[Asker]]:
    """Return who asks, in an order that tells nothing; and the same every time."""
    every = [
        Asker(
            account_id,
            f"Authorization: Bearer {issue_api_key(account_id, name='bench', now=now).key}",
        )
        for account_id in filled.account_ids
    ]
    heavy = every[: len(filled.heavy_ids)]
    random.Random(SEED).shuffle(every)  # noqa: S311 -- nothing secret
    user = User.objects.create_user("bench", email="bench@example.com")
    member = every[0].account_id
    Membership.objects.create(user=user, account_id=member, role=Membership.Role.OWNER)
    client = Client()
    client.force_login(user)
    session = client.cookies[settings.SESSION_COOKIE_NAME].value
    cookie = f"Cookie: {settings.SESSION_COOKIE_NAME}={session}"
    return {
        "all": every,
        "few": every[:CACHED_ACCOUNTS],
        "heavy": heavy,
        "member": [Asker(member, cookie)],
    }


def _ask(
    name: str, question: Question, askers: list[Asker], web: Web, *, is_quick: bool
) -> dict[str, Any]:
    """Return the figures of one question: one by one, on time, and the highest rate that holds."""
    requests, port = _requests(question, cycle(askers)), web.port
    single = QUICK_ONE_BY_ONE if is_quick else ONE_BY_ONE
    warm_ups = QUICK_WARM_UPS if is_quick else WARM_UPS
    asyncio.run(on_time(port, islice(requests, warm_ups), a_second=A_SECOND // 2))
    before = _cpu_s(web)
    alone = _checked(name, asyncio.run(one_by_one(port, islice(requests, single))))
    took = [after - so_far for after, so_far in zip(_cpu_s(web), before, strict=True)]
    figures: dict[str, Any] = {
        "one_by_one_ms": alone.told(),
        # What else runs on the machine makes answers late; these hardly.
        "cpu_ms_an_answer": {
            server: round(seconds * 1000 / single, 1)
            for server, seconds in zip(("web", "postgresql"), took, strict=True)
        },
    }
    if question.goal_ms:
        figures["goal_p95_ms"] = question.goal_ms
        highest = 0
        for rate in QUICK_RATES if is_quick else RATES:
            due = rate * (QUICK_RATE_SECONDS if is_quick else RATE_SECONDS)
            answers = asyncio.run(on_time(port, islice(requests, due), a_second=rate))
            if _checked(name, answers).told()["p95"] >= question.goal_ms:
                break
            highest = rate
        figures["highest_rate_a_second_that_holds"] = highest
        # What falls behind falls behind the more, the longer it lasts.
        seconds = SECONDS if highest >= A_SECOND else RATE_SECONDS
        due = A_SECOND * (QUICK_SECONDS if is_quick else seconds)
        on_rate = asyncio.run(on_time(port, islice(requests, due), a_second=A_SECOND))
        figures["a_second_50_ms"] = _checked(name, on_rate).told()
    print(name, json.dumps(figures), flush=True)
    return figures


def _cpu_s(web: Web) -> tuple[float, float]:
    """Return the cpu seconds that the web server and PostgreSQL took so far."""
    pid_file = settings.HOME / "postgresql" / "postmaster.pid"
    postmaster = int(pid_file.read_text().splitlines()[0])
    return family_cpu_s(web.pid), family_cpu_s(postmaster)


def _requests(question: Question, askers: Iterator[Asker]) -> Iterator[bytes]:
    for asker in askers:
        if question.is_new:
            # It is drawn where an event loop runs, in which Django forgets nothing.
            _forgetting.submit(forget, asker.account_id, Kind.CURRENT_USAGE).result()
        lines = (
            f"GET {question.path} HTTP/1.1",
            "Host: localhost",
            "Accept: */*",
            asker.header,
            "Connection: close",
        )
        yield "\r\n".join((*lines, "", "")).encode()


def _checked(name: str, answers: Answers) -> Answers:
    """Return the answers. Raises RuntimeError when one of them is a refusal."""
    if set(answers.statuses) != {"200"}:
        raise RuntimeError(f"{name} answers {dict(answers.statuses)}.")
    return answers
