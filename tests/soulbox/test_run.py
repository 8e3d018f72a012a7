from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import pytest
from stripe import StripeClient

from soulbox import stripe_here
from soulbox.embedded import Embedded
from soulbox.run import NoFreePortError, free_port
from tests.local_stripe import LocalStripe
from tests.soulbox.processes import PROJECT, descendants, wait_for_end

WEB_PORT = 18700
FLOWER_PORT = 18800
PROCESSES = {"web", "worker", "collector", "beat", "flower", "stripe"}


@dataclass
class Run:
    """One `manage.py run`, and what it has said so far."""

    process: subprocess.Popen[str]
    said: str = field(default="")

    def read_until(self, words: str) -> None:
        assert self.process.stdout is not None
        while words not in self.said:
            line = self.process.stdout.readline()
            assert line, self.said
            self.said += line

    def find(self, pattern: str) -> str:
        found = re.search(pattern, self.said)
        assert found, self.said
        return found.group(1)

    def wait_until_it_answers(self) -> None:
        self.read_until("Ctrl-C stops everything.")
        for name in PROCESSES:
            self.read_until(f"{name} started")
        while _status(self.find(r"(http://\S+/admin/)")) != 200:
            time.sleep(0.1)


def _status(address: str, **headers: str) -> int:
    request = urllib.request.Request(address, headers=headers)  # noqa: S310 - our own address
    try:
        with urllib.request.urlopen(request) as answer:  # noqa: S310 - our own address
            return int(answer.status)
    except HTTPError as error:
        with error:
            return error.code
    except URLError:
        return 0


@pytest.fixture
def home() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="soulbox-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def start_run(home: Path) -> Iterator[Callable[[], Run]]:
    with ExitStack() as stack:

        def start_run() -> Run:
            environ = {
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "soulbox.settings",
                "SOULBOX_HOME": str(home),
                "WEB_PORT": str(WEB_PORT),
                "FLOWER_PORT": str(FLOWER_PORT),
                "DOCKER_HOST": "unix:///nowhere/docker.sock",
            }
            process = subprocess.Popen(
                [sys.executable, "manage.py", "run"],
                cwd=PROJECT,
                env=environ,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                # As a terminal does: Ctrl-C then goes to this group alone.
                start_new_session=True,
            )
            stack.callback(_end, process)
            return Run(process)

        yield start_run


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is not None:
        return
    below = descendants(process.pid)
    process.terminate()
    process.communicate()
    for pid in below:
        wait_for_end(pid)


def test_run_serves_behind_its_logins_and_stops_on_ctrl_c(start_run: Callable[[], Run]) -> None:
    run = start_run()
    run.wait_until_it_answers()
    web = run.find(r"(http://\S+)/admin/")
    key = run.find(r"Bearer (\S+)'")
    assert _status(f"{web}/api/docs/") == 200
    assert _status(f"{web}/api/v1/usage/current") == 401
    assert _status(f"{web}/api/v1/usage/current", Authorization=f"Bearer {key}") == 200
    assert "the simulator provides a small fleet" in run.said
    flower = run.find(r"Flower\s+(http://\S+)/")
    while not (status := _status(f"{flower}/workers")):
        time.sleep(0.1)
    assert status == 401
    assert _status(f"{flower}/api/workers") == 401
    below = descendants(run.process.pid)
    os.killpg(run.process.pid, signal.SIGINT)
    run.process.communicate()
    for pid in below:
        wait_for_end(pid)
    assert run.process.returncode == 0


@pytest.mark.timeout(300)
def test_a_card_added_at_the_local_stripe_is_the_accounts(
    start_run: Callable[[], Run], home: Path
) -> None:
    """Over the API, Stripe's page, its webhook and a worker, as in production."""
    run = start_run()
    run.wait_until_it_answers()
    web = run.find(r"(http://\S+)/admin/")
    methods = f"{web}/api/v1/payment-methods"
    key = run.find(r"Bearer (\S+)'")
    assert _json(methods, key) == []
    assert _json(methods, key, flow="portal")["portal_url"].startswith("http://127.0.0.1:")
    here = stripe_here.read(home)
    assert here
    sdk = StripeClient(here.api_key, base_addresses={"api": here.url})
    [customer] = sdk.v1.customers.list().data
    stripe = LocalStripe()
    stripe.url = here.url
    stripe.attach(customer.id)
    while not (found := _json(methods, key)):
        time.sleep(0.2)
    assert [(card["brand"], card["last4"], card["is_default"]) for card in found] == [
        ("visa", "4242", True)
    ]


def _json(address: str, key: str, **said: str) -> Any:
    request = urllib.request.Request(  # noqa: S310 - our own address
        address,
        data=json.dumps(said).encode() if said else None,
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:  # noqa: S310 - our own address
        return json.loads(answer.read())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_while_it_is_still_starting_is_clean_too(
    start_run: Callable[[], Run], home: Path, number: signal.Signals
) -> None:
    run = start_run()
    # The first process is there, the last is not: honcho alone would wait for ever.
    run.read_until(" started (pid=")
    run.process.send_signal(number)
    said, _ = run.process.communicate()
    assert "Traceback" not in said
    assert run.process.returncode == 0
    # Free only when neither the keeper nor a server nor, before them, a user is left.
    with Embedded(home).keeper_lock.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)


def test_nothing_is_left_after_kill_9_and_the_next_run_has_the_same_logins(
    start_run: Callable[[], Run],
) -> None:
    first = start_run()
    first.wait_until_it_answers()
    below = descendants(first.process.pid)
    first.process.kill()
    first.process.communicate()
    for pid in below:
        wait_for_end(pid)
    second = start_run()
    second.read_until("Ctrl-C stops everything.")
    for pattern in (r"Admin .* / (\S+)", r"Bearer (\S+)'", r"Portal .* / (\S+)"):
        assert second.find(pattern) == first.find(pattern)


def test_nothing_is_left_when_what_it_says_is_read_by_nobody_any_more(
    start_run: Callable[[], Run],
) -> None:
    """As in `make run | head`."""
    run = start_run()
    run.wait_until_it_answers()
    below = descendants(run.process.pid)
    assert run.process.stdout is not None
    run.process.stdout.close()
    os.killpg(run.process.pid, signal.SIGINT)
    run.process.wait()
    for pid in below:
        wait_for_end(pid)


def test_a_process_killed_with_the_fork_that_watched_it_ends_the_run(
    start_run: Callable[[], Run],
) -> None:
    """Else metering would stop while everything seems to run."""
    run = start_run()
    run.wait_until_it_answers()
    below = descendants(run.process.pid)
    beat = run.find(r"beat started \(pid=(\d+)\)")
    fork = int(Path(f"/proc/{beat}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(fork, signal.SIGKILL)
    run.process.communicate()
    assert run.process.returncode != 0
    for pid in below:
        wait_for_end(pid)


def test_a_port_that_is_taken_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("WEB_PORT", str(port))
        assert free_port("WEB_PORT") > port


def test_two_servers_that_want_one_port_get_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_PORT", str(WEB_PORT))
    monkeypatch.setenv("FLOWER_PORT", str(WEB_PORT))
    web = free_port("WEB_PORT")
    assert free_port("FLOWER_PORT", other_than=(web,)) != web


def test_no_port_at_all_is_an_error_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WEB_PORT", "70000")
    with pytest.raises(NoFreePortError, match="WEB_PORT=70000"):
        free_port("WEB_PORT")
