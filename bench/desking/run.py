"""Make a year, start gunicorn on it, ask for pages over and over, write the figures down."""

from __future__ import annotations

import http.client
import json
import platform
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client

from bench.aggregating.processes import Worker
from bench.desking.year import make_year
from billing import services
from soulbox.embedded import POLL_INTERVAL_S, Embedded, is_locked
from soulbox.reset import remove_home
from soulbox.services import start_services

ACCOUNTS, QUICK_ACCOUNTS = 2_000, 200
REQUESTS, QUICK_REQUESTS, WARM_UPS = 200, 50, 5
GOAL_MS = 300
PAGES = {
    "home": "/admin/",
    "invoices": "/admin/billing/invoice/",
    "credits": "/admin/billing/creditgrant/",
    "accounts": "/admin/billing/account/",
}
START_LIMIT_S = 60
STOP_LIMIT_S = 60


def run(*, results: Path, is_quick: bool) -> None:
    """Measure on embedded services made for it. Raises InUseError when they are in use."""
    embedded = settings.EMBEDDED
    if not isinstance(embedded, Embedded):
        raise TypeError("the benchmark runs on embedded services only")
    remove_home(embedded)
    try:
        # The servers stop with the last process that uses them: this one does not.
        with Worker() as worker:
            figures = worker.call(measure, is_quick=is_quick)
    finally:
        deadline = time.monotonic() + STOP_LIMIT_S
        while is_locked(embedded.keeper_lock) and time.monotonic() < deadline:
            time.sleep(POLL_INTERVAL_S)
        remove_home(embedded)
    results.parent.mkdir(exist_ok=True)
    results.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))
    print(f"Every figure is in {results}.")


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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    server = subprocess.Popen(  # noqa: S603 -- our own program, and no word of others'
        [
            sys.executable,
            "-m",
            "gunicorn",
            "--workers=1",
            f"--bind=127.0.0.1:{port}",
            "--log-level=warning",
            "soulbox.wsgi",
        ]
    )
    try:
        _wait_for(port)
        return {name: _time_page(port, path, cookie, requests) for name, path in PAGES.items()}
    finally:
        server.terminate()
        server.wait(STOP_LIMIT_S)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_INTERVAL_S)
        else:
            return


def _time_page(port: int, path: str, cookie: str, requests: int) -> dict[str, float]:
    taken: list[float] = []
    size = 0
    for number in range(WARM_UPS + requests):
        began = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", path, headers={"Cookie": cookie})
        response = connection.getresponse()
        size = len(response.read())
        connection.close()
        if response.status != http.client.OK:
            raise RuntimeError(f"{path} answers {response.status}.")
        if number >= WARM_UPS:
            taken.append((time.perf_counter() - began) * 1000)
    percentiles = quantiles(taken, n=100)
    return {
        "requests": requests,
        "median": round(percentiles[49], 1),
        "p95": round(percentiles[94], 1),
        "bytes": size,
    }
