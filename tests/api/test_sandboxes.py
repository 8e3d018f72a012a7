from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from pytest_django import DjangoAssertNumQueries
from pytest_django.fixtures import Settings

from billing import services
from billing.models import Account
from metering import stream
from metering.models import Life
from metering.source import SourceError
from metering.stream import StreamUnavailableError
from tests.api.calling import Api
from tests.metering.batches import MORNING, Host
from tests.metering.fleet import TICK, Fleet

pytestmark = pytest.mark.django_db

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
MB = 2**20
QUERIES_OF_A_LIST = 4
"""The key, the sandboxes, their newest lives, and how many lives they had."""
QUERIES_OF_A_SANDBOX = 5
"""As many, and its newest lives."""
QUERIES_OF_USAGE = 2
"""The key, and the lives with their last readings."""


@pytest.fixture(autouse=True)
def _later(set_clock: Callable[[datetime], None]) -> None:
    set_clock(MORNING + 13 * SECOND)


@pytest.fixture
def account() -> Account:
    return services.open_account(name="Ada", now=MORNING - 30 * 24 * HOUR)


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def api(account: Account) -> Api:
    return Api.by_key(account.pk)


def labelled(life: int, **labels: str) -> None:
    Life.objects.filter(pk=life).update(labels=labels)


def ended(life: int, at: datetime) -> None:
    Life.objects.filter(pk=life).update(ended_at=at)


def test_a_sandbox_is_told_with_its_newest_start(account: Account, host: Host, api: Api) -> None:
    first = host.start(account.pk, "sbx", MORNING - HOUR)
    ended(first, MORNING)
    second = host.start(account.pk, "sbx", MORNING)
    labelled(second, team="search")
    [told] = api.get("sandboxes").json()["results"]
    newest = {
        "started_at": "2026-11-02T10:07:00Z",
        "ended_at": None,
        "oom_at": None,
        "cpu_limit": None,
        "memory_limit_bytes": None,
        "gpu_count": 0,
        "labels": {"team": "search"},
    }
    assert told == {
        "sandbox_id": "sbx",
        "state": "running",
        "starts": 2,
        "recorded_at": "2026-11-02T09:07:00Z",
        "first_started_at": "2026-11-02T09:07:00Z",
        "newest": newest,
    }
    detail = api.get("sandboxes/sbx").json()
    lives = detail.pop("lives")
    assert detail == told
    assert lives[0] == newest
    assert [life["ended_at"] for life in lives] == [None, "2026-11-02T10:07:00Z"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["a", "b", "c"]),
        ("state=running", ["b", "c"]),
        ("state=ended", ["a"]),
        ("label=team", ["b", "c"]),
        ("label=team=x", ["b"]),
        ("label=team=", []),
        ("label=team=x=y", ["c"]),
        # What an older start was labelled, the sandbox is not any more.
        ("label=old", []),
        ("label=1", []),
        ("seen_to=2026-11-02T08:07:00Z", []),
        ("seen_to=2026-11-02T08:07:01Z", ["a"]),
        ("seen_from=2026-11-02T09:07:00Z", ["b", "c"]),
        ("seen_from=2026-11-02T09:06:59Z&seen_to=2026-11-02T09:07:00Z", ["a"]),
        # `c` had ended by then, and was not started again yet.
        ("seen_from=2026-11-02T09:30:00Z&seen_to=2026-11-02T09:40:00Z", ["b"]),
        ("state=running&label=team=x&seen_from=2026-11-02T10:00:00Z", ["b"]),
    ],
)
def test_sandboxes_are_found_by_state_label_and_time(
    account: Account, host: Host, api: Api, query: str, found: list[str]
) -> None:
    ended(host.start(account.pk, "a", MORNING - 2 * HOUR), MORNING - HOUR)
    labelled(host.start(account.pk, "b", MORNING - HOUR), team="x")
    older = host.start(account.pk, "c", MORNING - HOUR)
    labelled(older, old="1")
    ended(older, MORNING - HOUR + 600 * SECOND)
    labelled(host.start(account.pk, "c", MORNING), team="x=y")
    told = api.get(f"sandboxes?{query}").json()["results"]
    assert [row["sandbox_id"] for row in told] == found


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("state=busy", "state"),
        ("label=a%20b", "label"),
        ("label==x", "label"),
        ("label=%25d", "label"),
        ("state=%25d", "state"),
        ("label=" + "a" * 64, "label"),
        ("seen_from=now", "seen_from"),
    ],
)
def test_what_no_sandbox_can_have_is_refused(api: Api, query: str, field: str) -> None:
    answer = api.get(f"sandboxes?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid"), answer.json()
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_sandboxes_come_by_pages(account: Account, host: Host, api: Api) -> None:
    for name in "cab":
        host.start(account.pk, name, MORNING)
    first = api.get("sandboxes?page_size=2").json()
    second = api.client.get(first["next"], headers=api.headers).json()
    pages = [[row["sandbox_id"] for row in page["results"]] for page in (first, second)]
    assert (pages, second["next"]) == ([["a", "b"], ["c"]], None)


@pytest.mark.parametrize("cursor", ["cD0A", "cD3Dg8Oo"])
def test_a_cursor_of_no_page_is_refused(api: Api, cursor: str) -> None:
    answer = api.get(f"sandboxes?cursor={cursor}")
    assert answer.json()["code"] == "cursor_invalid"


@pytest.mark.parametrize("count", [1, 20])
def test_queries_are_as_many_for_many_sandboxes(
    account: Account,
    host: Host,
    api: Api,
    count: int,
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    for number in range(count):
        for at in (MORNING - HOUR, MORNING):
            host.start(account.pk, f"sbx-{number}", at)
    api.get("sandboxes")
    with django_assert_num_queries(QUERIES_OF_A_LIST):
        assert len(api.get("sandboxes").json()["results"]) == count
    with django_assert_num_queries(QUERIES_OF_A_SANDBOX):
        api.get("sandboxes/sbx-0")
    with django_assert_num_queries(QUERIES_OF_USAGE):
        api.get("sandboxes/sbx-0/usage")


def test_the_live_view_is_of_the_newest_readings(account: Account, host: Host, api: Api) -> None:
    busy(account, host)
    assert api.get("sandboxes/sbx/usage").json() == {
        "sandbox_id": "sbx",
        "is_live": True,
        "read_at": "2026-11-02T10:07:12Z",
        "state": "running",
        "lives": 1,
        "cpu_percent": "66.67",
        "cpu_limit": "2",
        "memory_bytes": 7 * MB,
        "memory_limit_bytes": 2**30,
        "network_ingress_bytes_per_second": "10",
        "network_egress_bytes_per_second": "0.67",
        "disk_read_bytes_per_second": "100",
        "disk_write_bytes_per_second": "200",
        "rates_over_ms": 3000,
    }


def busy(account: Account, host: Host) -> None:
    life = host.start(account.pk, "sbx", MORNING)
    host.read(life, MORNING + 9 * SECOND, cpu_ns=0, network={"eth0": (0, 0)})
    host.read(
        life,
        MORNING + 12 * SECOND,
        cpu_ns=2 * 10**9,
        memory_bytes=7 * MB,
        disk_bytes=300,
        network={"eth0": (30, 2)},
    )


def test_without_the_stream_the_live_view_is_what_was_folded(
    account: Account, host: Host, api: Api, settings: Settings
) -> None:
    busy(account, host)
    host.fold(MORNING + 13 * SECOND)
    settings.STREAM_REDIS_URL = "unix:///nowhere/redis.sock"
    stream._looking.cache_clear()
    try:
        answer = api.get("sandboxes/sbx/usage")
    finally:
        stream._looking.cache_clear()
    told = answer.json()
    assert (answer.status_code, told["is_live"]) == (200, False)
    assert (told["read_at"], told["memory_bytes"]) == ("2026-11-02T10:07:12Z", 7 * MB)
    assert (told["cpu_percent"], told["rates_over_ms"]) == (None, None)


def test_collecting_makes_the_live_view_new(
    account: Account,
    api: Api,
    set_clock: Callable[[datetime], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fleet = Fleet()
    fleet.account_id = account.pk
    fleet.add("sbx")
    fleet.run(TICK)
    fleet.now += 30 * TICK
    set_clock(fleet.now)
    monkeypatch.setattr("metering.collector.open_source", lambda _host: fleet.source)
    assert api.get("sandboxes/sbx/usage").json()["is_live"] is False
    key = {"Idempotency-Key": "before-the-stop"}
    assert api.post("sandboxes/sbx/collect", **key).json() == {"read": 1}
    assert api.get("sandboxes/sbx/usage").json()["is_live"] is True
    assert api.post("sandboxes/sbx/collect", **key)["Idempotency-Replayed"] == "true"


@pytest.mark.parametrize("error", [SourceError, StreamUnavailableError])
def test_an_engine_that_does_not_answer_is_not_told_of(
    account: Account, host: Host, api: Api, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(*_: Any, **__: Any) -> int:
        raise error("unix:///secret is silent")

    host.start(account.pk, "sbx", MORNING)
    monkeypatch.setattr("metering.collector.collect_sandbox", fail)
    answer = api.post("sandboxes/sbx/collect")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert answer["Retry-After"] == "5"
    assert "secret" not in answer.content.decode()


@pytest.mark.parametrize("path", ["sandboxes/sbx", "sandboxes/sbx/usage"])
def test_another_accounts_sandbox_is_not_found(host: Host, account: Account, path: str) -> None:
    host.start(account.pk, "sbx", MORNING)
    eve = Api.by_key(services.open_account(name="Eve", now=MORNING).pk)
    assert eve.get(path).status_code == 404
    assert eve.post("sandboxes/sbx/collect").status_code == 404
    assert eve.get("sandboxes").json()["results"] == []
