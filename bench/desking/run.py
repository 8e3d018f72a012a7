"""Make a year, start gunicorn on it, ask for pages over and over, write the figures down."""

from __future__ import annotations

import platform
import time
from datetime import UTC, datetime
from pathlib import Path

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client

from bench.desking.year import make_year
from bench.harness.alone import run_alone
from bench.harness.web import time_gets, web_server
from billing import services
from soulbox.services import start_services

ACCOUNTS, QUICK_ACCOUNTS = 2_000, 200
REQUESTS, QUICK_REQUESTS = 200, 50
GOAL_MS = 300
PAGES = {
    "home": "/admin/",
    "invoices": "/admin/billing/invoice/",
    "credits": "/admin/billing/creditgrant/",
    "accounts": "/admin/billing/account/",
}


def run(*, results: Path, is_quick: bool) -> None:
    """Measure on embedded services made for it. Raises InUseError when they are in use."""
    run_alone(measure, results=results, is_quick=is_quick)


def measure(*, is_quick: bool) -> dict[str, object]:
    """Return every figure: rows, seconds of adding up, milliseconds of each page."""
    start_services()
    call_command("migrate", database="owner", verbosity=0)
    now = datetime.now(UTC)
    rows = make_year(QUICK_ACCOUNTS if is_quick else ACCOUNTS, now=now)
    began = time.perf_counter()
    slices = 0
    while services.add_up_desk(now=now):
        slices += 1
    first_s = time.perf_counter() - began
    began = time.perf_counter()
    later = now + services.desk.STALE_AFTER
    while services.add_up_desk(now=later):
        pass
    again_s = time.perf_counter() - began
    times = _time_pages(QUICK_REQUESTS if is_quick else REQUESTS)
    return {
        "python": platform.python_version(),
        "rows": rows,
        "slices": slices,
        "seconds_to_add_up_the_first_time": round(first_s, 1),
        "seconds_to_add_up_again": round(again_s, 1),
        "pages_ms": times,
        "ratios": {"home_median_of_300_ms": round(times["home"]["median"] / GOAL_MS, 3)},
    }


def _time_pages(requests: int) -> dict[str, dict[str, float]]:
    """Return the milliseconds of each page, from the first byte sent to the last one read."""
    client = Client()
    client.force_login(User.objects.create_superuser("bench"))
    cookie = f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"
    with web_server("soulbox.wsgi", workers=1) as web:
        return {
            name: time_gets(web.port, path, count=requests, headers={"Cookie": cookie})
            for name, path in PAGES.items()
        }
