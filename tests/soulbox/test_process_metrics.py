"""What web processes count of themselves is right with two workers, and bounded."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from http.client import HTTPConnection
from pathlib import Path

import pytest
from django.core.cache import cache, caches
from django.core.cache.backends.redis import RedisCache
from django.db import connection
from django.test import Client
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.parser import text_string_to_metric_families
from redis.exceptions import RedisError

from soulbox.process_metrics import CountedCache
from soulbox.serving import COUNTS
from tests.processes import ROOT, running, wait_until

ASKED = "django_http_responses_total_by_status_view_method_total"
REQUESTS = 60


def counts(text: str, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def scrape(name: str) -> dict[tuple[str, ...], float]:
    return counts(Client().get("/metrics").content.decode(), name)


def ask(port: int, method: str, path: str) -> tuple[int, str]:
    """Ask on a connection of its own, so that any worker may take it."""
    asking = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        asking.request(method, path)
        answer = asking.getresponse()
        return answer.status, answer.read().decode()
    finally:
        asking.close()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def serving(port: int) -> list[str]:
    """Return the web process' command as the Procfile has it: two workers, and their settings."""
    (line,) = [
        line for line in (ROOT / "Procfile").read_text().splitlines() if line.startswith("web: ")
    ]
    command = line.removeprefix("web: ").replace("$WEB_PORT", str(port)).split()
    assert command[command.index("--workers") + 1] == "2"
    return command


def workers_that_counted(folder: Path) -> int:
    return sum(
        any(value for key, value, *_ in read(file) if ASKED in key)
        for file in folder.glob("counter_*.db")
    )


def read(file: Path) -> list[tuple[str, float]]:
    values = MmapedDict.read_all_values_from_file(str(file))  # type: ignore[no-untyped-call] # theirs
    return [(key, value) for key, value, *_ in values]


def test_two_workers_count_together_and_begin_at_zero(
    service_environment: Mapping[str, str], tmp_path: Path
) -> None:
    port, folder = free_port(), tmp_path / "counts"
    folder.mkdir()
    # What a process left that was killed.
    (folder / "counter_1.db").write_bytes(b"broken")
    env = {**service_environment, COUNTS: str(folder)}

    def is_up() -> bool:
        try:
            return ask(port, "GET", "/health")[0] == 200
        except OSError:
            return False

    log = tmp_path / "log"
    with running("-m", *serving(port), env=env, log=log):
        wait_until(is_up, seconds=60, what=f"gunicorn: {log}")
        asked = 0

        def both_counted() -> bool:
            nonlocal asked
            for _ in range(REQUESTS):
                assert ask(port, "GET", "/api/problems")[0] == 200
            asked += REQUESTS
            return workers_that_counted(folder) == 2

        wait_until(both_counted, seconds=60, what="requests that both workers took")
        # Anybody may make up methods.
        for number in range(3):
            ask(port, f"FOO{number}", "/api/problems")
        for _ in range(6):
            status, text = ask(port, "GET", "/metrics")
            assert status == 200
            told = counts(text, ASKED)
            assert sum(count for key, count in told.items() if "GET" in key) == asked
            assert sum(count for key, count in told.items() if "other" in key) == 3
            assert not any("FOO" in label for key in told for label in key)
            assert counts(text, "django_db_execute_total")
    assert not folder.exists()


@pytest.mark.django_db
def test_statements_are_counted_and_run_as_before() -> None:
    before = scrape("django_db_execute_total")
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)
    (labels,) = [labels for labels in before if "default" in labels]
    assert scrape("django_db_execute_total")[labels] > before[labels]
    # Its own options are kept.
    with connection.cursor() as cursor:
        cursor.execute("SHOW lock_timeout")
        assert cursor.fetchone() == ("30s",)


@pytest.mark.django_db
def test_looks_into_the_cache_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(caches["default"], CountedCache)
    name = "django_cache_get_total"
    hits, misses = "django_cache_get_hits_total", "django_cache_get_misses_total"
    cache.set("counted", None)
    before = {one: sum(scrape(one).values()) for one in (name, hits, misses)}
    # What is kept as nothing is kept.
    assert cache.get("counted", "default") is None
    assert cache.get("not-there", "default") == "default"
    after = {one: sum(scrape(one).values()) for one in (name, hits, misses)}
    assert {one: after[one] - before[one] for one in after} == {name: 2, hits: 1, misses: 1}

    def fail(*_arguments: object, **_more: object) -> None:
        raise RedisError

    monkeypatch.setattr(RedisCache, "get", fail)
    failed = sum(scrape("django_cache_get_fail_total").values())
    with pytest.raises(RedisError):
        cache.get("counted")
    assert sum(scrape("django_cache_get_fail_total").values()) == failed + 1
