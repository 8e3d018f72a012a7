"""A dump under load is restored: it adds up, forgets nothing silently, and charges nobody twice.

`make drill` does it with more accounts, and prints what it found.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import redis
from django.conf import settings
from psycopg import sql

from soulbox.embedded import APPLICATION_ROLE, OWNER_ROLE
from tests.local_stripe import API_KEY, SECRET, LocalStripe
from tests.processes import running, wait_until
from tests.soulbox.processes import PROJECT

ACCOUNTS = int(os.environ.get("DRILL_ACCOUNTS", "8"))
pytestmark = pytest.mark.timeout(300 + 3 * ACCOUNTS)
SOURCE, RESTORED = "drill_source", "drill_restored"
STREAMS = 5
ENDED_WITHIN_S = 240 + 2 * ACCOUNTS
TRIGGERS = """
SELECT tgrelid::regclass::text, tgname, tgenabled, tgtype, tgfoid::regproc::text, tgqual IS NULL
  FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1, 2
"""
RIGHTS = """
SELECT table_name, privilege_type FROM information_schema.role_table_grants
 WHERE grantee = %s ORDER BY 1, 2
"""


@dataclass
class Place:
    """A database with its Redis, and the Stripe that all of them share."""

    database: str
    streams: int
    stripe: LocalStripe

    @property
    def environment(self) -> dict[str, str]:
        embedded = settings.EMBEDDED
        assert embedded is not None
        return {
            "DJANGO_SETTINGS_MODULE": "soulbox.settings",
            "DATABASE_URL": url(APPLICATION_ROLE, self.database),
            "DATABASE_OWNER_URL": url(OWNER_ROLE, self.database),
            "REDIS_URL": embedded.redis_url(self.streams),
            "SECRET_KEY": "of the drill",
            "HTTPS_ONLY": "no",
            "STRIPE_API_KEY": API_KEY,
            "STRIPE_API_BASE": self.stripe.url,
            "STRIPE_WEBHOOK_SECRET": SECRET,
        }

    def run(self, *arguments: str, fails: bool = False) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=PROJECT,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=ENDED_WITHIN_S,
        )
        assert bool(done.returncode) == fails, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout + (done.stderr if fails else "")

    def manage(self, *arguments: str) -> str:
        return self.run("manage.py", *arguments)

    def drill(self, *arguments: str) -> Any:
        said = self.run("-m", "tests.soulbox.drill", *arguments)
        return json.loads(said) if said else None

    def rows(self, query: str, *parameters: object) -> list[tuple[object, ...]]:
        with psycopg.connect(url(OWNER_ROLE, self.database)) as connection:
            return connection.execute(query, parameters).fetchall()


def wrong_in(place: Place) -> list[str]:
    """Return what the doctor finds wrong, but that no worker runs and no file is collected."""
    said = place.run("manage.py", "doctor", "--json", fails=True)
    findings = json.loads(said[: said.rindex("}") + 1])["findings"]
    wrong = [one["text"] for one in findings if one["level"] == "wrong"]
    return [text for text in wrong if "No worker took" not in text and "collectstatic" not in text]


def url(role: str, database: str) -> str:
    embedded = settings.EMBEDDED
    assert embedded is not None
    return embedded.database_url(role).rsplit("/", 1)[0] + f"/{database}"


@pytest.fixture
def places() -> Iterator[tuple[Place, Place]]:
    """A database that is used and an empty one, on one server, whose streams are the same."""
    embedded = settings.EMBEDDED
    assert embedded is not None
    names = (SOURCE, RESTORED)
    with (
        psycopg.connect(url(OWNER_ROLE, "postgres"), autocommit=True) as server,
        LocalStripe() as stripe,
        ExitStack() as stack,
    ):
        for name in names:
            drop = sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name))
            server.execute(drop)
            server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            stack.callback(server.execute, drop)
        client = stack.enter_context(redis.Redis.from_url(embedded.redis_url(STREAMS)))
        client.flushdb()
        stack.callback(client.flushdb)
        yield Place(SOURCE, STREAMS, stripe), Place(RESTORED, STREAMS, stripe)


def test_a_dump_under_load_is_restored_and_goes_on(
    places: tuple[Place, Place], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, restored = places
    host, dump = str(uuid4()), tmp_path / "soulbox.dump"
    source.manage("migrate", "--verbosity=0")
    for customer in source.drill("prepare", host, str(ACCOUNTS)):
        source.stripe.attach(customer)
    ended, dumped = tmp_path / "ended", tmp_path / "dumped"
    stripe = source.stripe
    work = ("-m", "tests.soulbox.drill")
    with (
        running(*work, "meter", host, str(ended), env=source.environment, log=tmp_path / "meter"),
        running(
            *work, "bill", str(ended), str(dumped), env=source.environment, log=tmp_path / "bill"
        ),
    ):
        third = ACCOUNTS // 3
        wait_until(lambda: len(stripe.charges()) >= third, seconds=ENDED_WITHIN_S, what="a third")
        source.manage("dump", str(dump))
        dumped.touch()
        wait_until(ended.exists, seconds=ENDED_WITHIN_S, what=(tmp_path / "bill").read_text())
    source.drill("close", host)
    before = source.drill("facts")
    assert len(before["invoices"]) == len(stripe.charges()) == ACCOUNTS

    restored.manage("restore", str(dump))
    at_dump = restored.drill("facts")
    billed_since = ACCOUNTS - len(at_dump["invoices"])
    assert 0 < billed_since < ACCOUNTS, "the dump was made under load"
    numbers = sorted(one["number"][-6:] for one in at_dump["invoices"].values())
    assert numbers == [f"{number:06d}" for number in range(1, len(numbers) + 1)]
    assert at_dump["last_number"] == len(numbers)
    for name, invoice in at_dump["invoices"].items():
        assert invoice["number"] == before["invoices"][name]["number"]
    for query, parameters in ((TRIGGERS, ()), (RIGHTS, (APPLICATION_ROLE,))):
        assert source.rows(query, *parameters)
        assert restored.rows(query, *parameters) == source.rows(query, *parameters)
    restored.manage("audit_usage")
    month = before["month"]
    restored.manage("conservation", "--month", month)

    # Numbers that went out after the dump are not given to others.
    said = restored.manage("after_restore")
    assert said.count(" was given to account ") == billed_since
    # Streams have what was read since: it is folded, and nothing of it twice.
    restored.drill("close", host)
    restored.manage("audit_usage")
    # Billing goes on, and what was paid after the dump is found, not asked for again.
    restored.drill("bill", str(tmp_path / "again"), str(dumped))
    restored.manage("reconcile_stripe")
    after = restored.drill("facts")
    assert (len(stripe.charges()), stripe.violations()) == (ACCOUNTS, [])
    assert {one["status"] for one in after["invoices"].values()} == {"paid"}
    assert len({one["number"] for one in after["invoices"].values()}) == ACCOUNTS
    for name, invoice in after["invoices"].items():
        assert invoice["paid"] == invoice["due"] == before["invoices"][name]["due"]
    assert after["differences"] == []
    lasting = [key for key in before["readings"] if key.startswith("drill-")]
    assert len(lasting) == ACCOUNTS
    for key in lasting:
        assert after["used"][key] == after["readings"][key] >= before["readings"][key]
    restored.manage("audit_usage")
    assert wrong_in(restored) == []
    restored.manage("conservation", "--month", month)
    lost = before["readings"].keys() - after["readings"].keys()
    with capsys.disabled():
        sys.stdout.write(
            f"\n{ACCOUNTS} accounts; {len(numbers)} invoices in the dump, {billed_since} billed "
            f"after it; charged at Stripe: {len(stripe.charges())}; lives known before: "
            f"{len(before['readings'])}, not any more: {len(lost)}; differences: 0\n"
        )
