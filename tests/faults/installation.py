"""One copy of the product with services, worker and beat of its own, for tests that break them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID, uuid4

import psycopg
import redis
from kombu import Connection

from soulbox.celery import app
from soulbox.embedded import APPLICATION_ROLE, Embedded
from tests.faults.giver import CENT
from tests.processes import ROOT, running, wait_until

RECOVERED_WITHIN_S = 60
# To migrate an empty database, on a machine that is busy.
START_TIMEOUT_S = 400
CELERY = ("-m", "celery", "-A", "tests.faults.outage_app")
# Roots mount their data on a disk of its own, to fill it up.
DISK = "1g"

GIVEN = """
SELECT gift.reference, count(entry.id), sum(entry.amount)
  FROM billing_creditgrant AS gift LEFT JOIN billing_creditentry AS entry ON grant_id = gift.id
 WHERE gift.account_id = %s AND gift.reference LIKE 'given %%' GROUP BY gift.reference
"""
NEWEST = "SELECT coalesce(max(read_ms), 0) FROM metering_lifereading"
SANG = "SELECT coalesce(max(extract(epoch FROM sang_at)), 0)::float FROM soulbox_canary"

State = Mapping[str, Any]


def now_ms() -> int:
    return time.time_ns() // 10**6


@dataclass(frozen=True)
class Installation:
    """One copy of the product. Its simulator's fleet is metered, and one account gets credit."""

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
            timeout=START_TIMEOUT_S,
        ).stdout

    def running(self, *arguments: str, log: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
        return running(*arguments, env=self.environment, log=self.logs / f"{log}.log")

    def worker(self, name: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
        queues = f"collect.{self.host_id},aggregate,default"
        called = f"{name}-{self.host_id}@%h"
        return self.running(*CELERY, "worker", "-Q", queues, "-c", "2", "-n", called, log=name)

    def beat(self, name: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
        return self.running(*CELERY, "beat", "-s", str(self.logs / f"{name}.schedule"), log=name)

    def ask(self, what: str) -> State:
        answer: State = json.loads(
            self.python("-m", "tests.faults.ask", what, str(self.account_id), str(self.host_id))
        )
        return answer

    def sql(self, statement: str, *values: object, role: str = APPLICATION_ROLE) -> list[Any]:
        url = Embedded(self.home).database_url(role)
        with psycopg.connect(url, connect_timeout=5, autocommit=True) as connection:
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def redis(self, database: int = 0) -> redis.Redis:
        return redis.Redis.from_url(Embedded(self.home).redis_url(database))

    def send(self, task: str, *arguments: object, queue: str = "default") -> None:
        url = Embedded(self.home).redis_url(0)
        broker = url.replace("unix://", "redis+socket://").replace("?db=", "?virtual_host=")
        with Connection(broker) as connection:
            app.send_task(task, arguments, queue=queue, connection=connection)

    def log(self, name: str) -> str:
        return (self.logs / f"{name}.log").read_text()

    @property
    def given(self) -> Path:
        return self.logs / "given"

    @property
    def postgresql_pid(self) -> int:
        return int((self.home / "postgresql" / "postmaster.pid").read_text().splitlines()[0])

    def wait_for_readings_after(self, ms: int, *, seconds: float = RECOVERED_WITHIN_S) -> State:
        """Return the state once a reading later than `ms` is counted."""
        self.wait_for(NEWEST, ms, seconds=seconds)
        return self.ask("state")

    def wait_for_a_song(self) -> None:
        """Return when the queue `default` has been taken from."""
        sent_at = time.time()
        self.send("soulbox.tasks.sing", "default")
        self.wait_for(SANG, sent_at, seconds=RECOVERED_WITHIN_S)

    def wait_for(self, statement: str, more_than: float, *, seconds: float) -> None:
        def is_more() -> bool:
            try:
                ((value,),) = self.sql(statement)
            except psycopg.Error:
                return False
            return bool(value > more_than)

        wait_until(is_more, seconds=seconds, what=f"{statement} > {more_than}; {self.logs}")

    def told(self) -> int:
        """Return how many gifts were told to be committed."""
        return len(self.given.read_text().split())

    def assert_nothing_is_lost_or_counted_twice(self, state: State) -> None:
        """Hold usage to the simulator's rates, and the ledger to what was told to be in it."""
        assert state["cpu_ns"] > 0
        assert state["cpu_ns"] == state["expected_cpu_ns"]
        told = self.told()
        wait_until(
            lambda: self.told() > told, seconds=RECOVERED_WITHIN_S, what="credit to be given again"
        )
        said = {f"given {number}" for number in self.given.read_text().split()}
        found = self.sql(GIVEN, self.account_id)
        assert said <= {reference for reference, _, _ in found}
        assert {(entries, amount) for _, entries, amount in found} == {(1, CENT)}


@contextmanager
def installed(logs: Path) -> Iterator[Installation]:
    """Install it, meter something, and take it all away afterwards."""
    # Not in pytest's own folder, whose path would be too long for a socket below it.
    with TemporaryDirectory(prefix="soulbox-") as folder, disk(Path(folder)):
        one = Installation(Path(folder) / "home", uuid4(), uuid4(), logs)
        # A shell holds the services up, as `make run` does, however the workers fare.
        holder = ("-c", "from soulbox import wsgi; import time; time.sleep(3600)")
        with one.running(*holder, log="holder"):
            one.python("manage.py", "migrate", "-v0")
            one.ask("prepare")
            giver = ("-m", "tests.faults.giver", str(one.account_id), str(one.given))
            with one.worker("worker"), one.beat("beat"), one.running(*giver, log="giver"):
                one.wait_for_readings_after(0)
                yield one


def can_mount() -> bool:
    return os.geteuid() == 0


@contextmanager
def disk(folder: Path) -> Iterator[None]:
    """Give a folder a disk of its own, for root."""
    if not can_mount():
        yield
        return
    mount("-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True, timeout=30)


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, timeout=30)
