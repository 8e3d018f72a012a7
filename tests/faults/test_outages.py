"""A running installation whose servers are killed, stopped and filled up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID, uuid4

import pytest
import redis

from soulbox.embedded import Embedded
from tests.processes import ROOT, running, wait_until

pytestmark = pytest.mark.timeout(300)

RECOVERED_WITHIN_S = 60


@dataclass(frozen=True)
class Installation:
    """One copy of the product with services, worker and beat of its own."""

    home: Path
    account_id: UUID
    host_id: UUID
    logs: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            "DJANGO_SETTINGS_MODULE": "soulbox.settings",
            "SOULBOX_HOME": str(self.home),
            "DATABASE_URL": "",
            "REDIS_URL": "",
        }

    def python(self, *arguments: str) -> str:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**os.environ, **self.environment},
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        ).stdout

    def ask(self, what: str) -> dict[str, int | str]:
        answer: dict[str, int | str] = json.loads(
            self.python("-m", "tests.faults.ask", what, str(self.account_id), str(self.host_id))
        )
        return answer

    def wait_for_readings_after(self, ms: int) -> dict[str, int | str]:
        """Return the state once a reading later than `ms` is counted."""
        state: dict[str, int | str] = {}

        def is_later() -> bool:
            try:
                state.update(self.ask("state"))
            except subprocess.CalledProcessError:
                return False
            return int(state["newest_ms"]) > ms

        wait_until(is_later, seconds=RECOVERED_WITHIN_S, what=f"new readings; {self.logs}")
        return state

    def redis(self) -> redis.Redis:
        return redis.Redis.from_url(Embedded(self.home).redis_url(0))

    @property
    def postgresql_pid(self) -> int:
        return int((self.home / "postgresql" / "postmaster.pid").read_text().splitlines()[0])

    def log(self, name: str) -> str:
        return (self.logs / f"{name}.log").read_text()


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    logs = tmp_path_factory.mktemp("outages")
    # Not in pytest's own folder, whose path would be too long for a socket below it.
    with TemporaryDirectory(prefix="soulbox-") as folder:
        one = Installation(Path(folder), uuid4(), uuid4(), logs)
        celery = ("-m", "celery", "-A", "soulbox")
        queues = f"collect.{one.host_id},aggregate,default"
        worker = (*celery, "worker", "-Q", queues, "-c", "2", "-n", f"outages-{one.host_id}@%h")
        beat = (*celery, "beat", "-s", str(logs / "schedule"))
        # A shell holds the services up, as `make run` does, however the workers fare.
        holder = ("-c", "from soulbox import wsgi; import time; time.sleep(3600)")
        with running(*holder, env=one.environment, log=logs / "holder.log"):
            one.python("manage.py", "migrate", "-v0")
            one.ask("prepare")
            with (
                running(*worker, env=one.environment, log=logs / "worker.log"),
                running(*beat, env=one.environment, log=logs / "beat.log"),
            ):
                one.wait_for_readings_after(0)
                yield one


def now_ms() -> int:
    return time.time_ns() // 10**6


def assert_nothing_is_lost_or_counted_twice(state: dict[str, int | str]) -> None:
    assert int(state["cpu_ns"]) > 0
    assert state["cpu_ns"] == state["expected_cpu_ns"]


def test_postgresql_killed_outright_is_given_back_and_metering_goes_on(
    installation: Installation,
) -> None:
    os.kill(installation.postgresql_pid, signal.SIGKILL)
    state = installation.wait_for_readings_after(now_ms() + 4000)
    assert_nothing_is_lost_or_counted_twice(state)


def test_a_postgresql_that_hangs_for_a_while_costs_nothing(installation: Installation) -> None:
    postmaster = installation.postgresql_pid
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    stopped = [postmaster, *map(int, children)]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(8)
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    state = installation.wait_for_readings_after(now_ms() + 4000)
    assert_nothing_is_lost_or_counted_twice(state)


def test_redis_killed_outright_is_given_back_and_metering_goes_on(
    installation: Installation,
) -> None:
    with installation.redis() as client:
        os.kill(client.info()["process_id"], signal.SIGKILL)
    state = installation.wait_for_readings_after(now_ms() + 4000)
    assert_nothing_is_lost_or_counted_twice(state)


def test_a_redis_that_lost_all_its_data_costs_no_counter_and_says_so(
    installation: Installation,
) -> None:
    before = installation.wait_for_readings_after(now_ms())
    with installation.redis() as client:
        # Streams, numbers of batches, tasks and where they are sent.
        client.flushall()
    state = installation.wait_for_readings_after(now_ms() + 4000)
    assert_nothing_is_lost_or_counted_twice(state)
    assert int(state["lost"]) > int(before["lost"])


def test_a_full_redis_is_seen_and_metering_goes_on_when_there_is_room(
    installation: Installation,
) -> None:
    wait_until(
        lambda: installation.ask("state")["state"] == "metered", seconds=30, what="a good start"
    )
    with installation.redis() as client:
        client.config_set("maxmemory", "1mb")
        wait_until(
            lambda: installation.ask("state")["state"] != "metered",
            seconds=RECOVERED_WITHIN_S,
            what="the full Redis to show in the host's state",
        )
        client.config_set("maxmemory", "0")
    state = installation.wait_for_readings_after(now_ms() + 4000)
    assert state["state"] == "metered"
    assert_nothing_is_lost_or_counted_twice(state)
    assert "used memory > 'maxmemory'" in installation.log("beat") + installation.log("worker")
