"""Answers that are kept, with a real Redis of the test's own that is stopped and ended."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import pytest
import redis
from django.db import transaction
from pytest_django.fixtures import Settings

from billing import caching, services
from billing.caching import CacheUnavailableError, Kind, cached, forget, forget_of, with_cache
from soulbox.keeper import redis_program
from tests.billing.usage import NOON, open_account
from tests.processes import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

KIND = Kind.SUBSCRIPTION
MINUTE_S = 60


class OwnRedis:
    """A Redis server on a socket of its own."""

    def __init__(self, folder: Path) -> None:
        self.url = f"unix://{folder}/redis.sock"
        self._options = ["--port", "0", "--unixsocket", f"{folder}/redis.sock", "--save", ""]
        self._folder = folder
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [str(redis_program()), *self._options], cwd=self._folder, stdout=subprocess.DEVNULL
        )
        wait_until(self._answers, seconds=10, what="Redis to answer")

    def stop(self) -> None:
        """Let it hang: it takes connections, and never answers."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)
        wait_until(self._answers, seconds=10, what="Redis to go on")

    def end(self) -> None:
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=1) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


@pytest.fixture
def own_redis(settings: Settings) -> Iterator[OwnRedis]:
    client = caching._client
    with TemporaryDirectory(prefix="soulbox-") as folder:
        server = OwnRedis(Path(folder))
        settings.CACHE_REDIS_URL = server.url
        client.cache_clear()
        yield server
        server.end()
    client.cache_clear()


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The breaker's clock, which stands; the breaker and what is owed are new."""
    now = [1000.0]
    monkeypatch.setattr(caching, "monotonic", lambda: now[0])
    monkeypatch.setattr(caching, "_breaker", caching._Breaker())
    monkeypatch.setattr(caching, "_owed", caching._Owed())
    return now


def numbered() -> Callable[[], Any]:
    """Return what gives 1, then 2, and so on: what is kept gives the same again."""
    numbers = count(1)
    return lambda: {"made": next(numbers)}


def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list of times the cache's client is asked for, which grows."""
    times: list[str] = []
    client = caching._client()

    def ask() -> Any:
        times.append("asked")
        return client

    monkeypatch.setattr(caching, "_client", ask)
    return times


def test_an_answer_is_given_again_until_it_is_forgotten() -> None:
    account_id, make = uuid4(), numbered()
    assert cached(account_id, KIND, MINUTE_S, make) == {"made": 1}
    assert cached(account_id, KIND, MINUTE_S, make) == {"made": 1}
    forget(account_id, KIND)
    assert cached(account_id, KIND, MINUTE_S, make) == {"made": 2}


def test_each_account_kind_and_part_is_kept_by_itself() -> None:
    account_id, other_id, make = uuid4(), uuid4(), numbered()
    asked_for = [
        (account_id, KIND, ""),
        (other_id, KIND, ""),
        (account_id, Kind.CLOSED_INVOICE, "1"),
        (account_id, Kind.CLOSED_INVOICE, "2"),
    ]

    def answers() -> list[int]:
        return [cached(a, k, MINUTE_S, make, part=part)["made"] for a, k, part in asked_for]

    assert answers() == answers() == [1, 2, 3, 4]
    forget(account_id, Kind.CLOSED_INVOICE)
    assert answers() == [1, 2, 5, 6]
    forget_of([account_id, other_id])
    assert answers() == [7, 8, 9, 10]


def test_an_answer_that_is_kept_late_counts_for_nobody() -> None:
    account_id = uuid4()

    def slow() -> str:
        # Meanwhile somebody changes what it was made from, and says so.
        forget(account_id, KIND)
        return "old"

    assert cached(account_id, KIND, MINUTE_S, slow) == "old"
    assert cached(account_id, KIND, MINUTE_S, lambda: "new") == "new"


def test_a_late_answer_does_not_replace_a_new_one_unnoticed() -> None:
    account_id = uuid4()

    def slow() -> str:
        forget(account_id, KIND)
        assert cached(account_id, KIND, MINUTE_S, lambda: "new") == "new"
        return "old"

    assert cached(account_id, KIND, MINUTE_S, slow) == "old"
    assert cached(account_id, KIND, MINUTE_S, lambda: "new") == "new"


def test_forgetting_waits_for_the_commit_and_a_rollback_forgets_nothing() -> None:
    account_id, make = uuid4(), numbered()
    cached(account_id, KIND, MINUTE_S, make)
    with transaction.atomic():
        forget(account_id, KIND)
        transaction.set_rollback(True)
    assert cached(account_id, KIND, MINUTE_S, make) == {"made": 1}
    with transaction.atomic():
        forget(account_id, KIND)
    assert cached(account_id, KIND, MINUTE_S, make) == {"made": 2}


def test_inside_a_transaction_nothing_is_read_or_kept() -> None:
    account_id, make = uuid4(), numbered()
    with transaction.atomic():
        assert cached(account_id, KIND, MINUTE_S, make) == {"made": 1}
        assert cached(account_id, KIND, MINUTE_S, make) == {"made": 2}
    assert cached(account_id, KIND, MINUTE_S, make) == {"made": 3}


def test_whoever_locks_an_account_makes_its_answers_be_forgotten() -> None:
    account = open_account()
    make = numbered()
    for kind in Kind:
        cached(account.pk, kind, MINUTE_S, make)
    services.subscribe(account.pk, plan_code="professional", now=NOON)
    assert [cached(account.pk, kind, MINUTE_S, make)["made"] for kind in Kind] == [4, 5, 6]


@pytest.mark.parametrize("fail", [OwnRedis.stop, OwnRedis.end], ids=["hangs", "gone"])
def test_a_cache_that_fails_is_asked_once_and_then_left_alone(
    own_redis: OwnRedis,
    now: list[float],
    fail: Callable[[OwnRedis], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    account_id, make = uuid4(), numbered()
    assert cached(account_id, KIND, MINUTE_S, make) == {"made": 1}
    fail(own_redis)
    times = asked(monkeypatch)
    assert cached(account_id, KIND, MINUTE_S, make) == {"made": 2}
    assert cached(account_id, KIND, MINUTE_S, make) == {"made": 3}
    forget(account_id, KIND)
    with pytest.raises(CacheUnavailableError):
        with_cache(lambda client: client.ping())
    assert len(times) == 1
    now[0] += caching.LEFT_ALONE_S
    assert cached(account_id, KIND, MINUTE_S, make) == {"made": 4}
    assert cached(account_id, KIND, MINUTE_S, make) == {"made": 5}
    assert len(times) == 2


def test_a_cache_that_answers_again_is_used_again_and_told_what_to_forget(
    own_redis: OwnRedis, now: list[float]
) -> None:
    account_id, other_id, make = uuid4(), uuid4(), numbered()
    cached(account_id, KIND, MINUTE_S, make)
    cached(other_id, KIND, MINUTE_S, make)
    own_redis.stop()
    forget(account_id, KIND)
    own_redis.go_on()
    # Still left alone: what it would give is not to be given.
    assert cached(account_id, KIND, MINUTE_S, make) == {"made": 3}
    now[0] += caching.LEFT_ALONE_S
    assert cached(account_id, KIND, MINUTE_S, make) == {"made": 4}
    assert cached(account_id, KIND, MINUTE_S, make) == {"made": 4}
    assert cached(other_id, KIND, MINUTE_S, make) == {"made": 2}


def test_a_cache_that_lost_everything_is_filled_anew(own_redis: OwnRedis, now: list[float]) -> None:
    account_id, make = uuid4(), numbered()
    cached(account_id, KIND, MINUTE_S, make)
    own_redis.end()
    own_redis.start()
    now[0] += caching.LEFT_ALONE_S
    assert cached(account_id, KIND, MINUTE_S, make) == {"made": 2}
    assert cached(account_id, KIND, MINUTE_S, make) == {"made": 2}


def test_waiting_for_the_cache_is_bounded_and_never_repeated() -> None:
    options = caching._client().connection_pool.connection_kwargs
    assert options["socket_timeout"] == options["socket_connect_timeout"] == 0.1
    assert options["retry"].get_retries() == 0
