"""What whoever starts and routes to web processes asks them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings as now_set
from django.db import DatabaseError, connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client
from pytest_django import DjangoAssertNumQueries
from pytest_django.fixtures import Settings

from soulbox import health

pytestmark = pytest.mark.django_db

ELSEWHERE = {"Host": "10.1.2.3:8000"}


@pytest.fixture(autouse=True)
def _looked_at_anew() -> Iterator[None]:
    health.migrated.clear()
    health.kept.forget()
    yield
    health.kept.forget()


@pytest.fixture
def nowhere() -> Iterator[str]:
    """A Redis that refuses: a port that is taken, and listens to nobody."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"redis://127.0.0.1:{taken.getsockname()[1]}/0"


@pytest.fixture
def silent() -> Iterator[str]:
    """A Redis that takes connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"redis://127.0.0.1:{listening.getsockname()[1]}/0"


def ready(status: int) -> dict[str, Any]:
    answer = Client().get("/ready", headers=ELSEWHERE)
    assert answer.status_code == status, answer.content
    told = answer.json()
    assert told["ready"] == (status == 200)
    parts: dict[str, Any] = told["parts"]
    return parts


def test_a_process_lives_by_itself(
    settings: Settings, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    settings.SECURE_SSL_REDIRECT = True
    with django_assert_num_queries(0):
        answer = Client().get("/health", headers=ELSEWHERE)
    assert (answer.status_code, answer.content) == (200, b"ok")
    assert answer["Cache-Control"] == "no-store"
    assert Client().head("/health", headers=ELSEWHERE).status_code == 200


def test_nobody_posts_to_it() -> None:
    assert Client().post("/health").status_code == 404
    assert Client().post("/ready").status_code == 404


def test_it_is_ready_when_all_its_parts_answer(settings: Settings) -> None:
    settings.SECURE_SSL_REDIRECT = True
    parts = ready(200)
    assert list(parts) == ["database", "migrations", "broker", "streams", "cache"]
    for name, part in parts.items():
        assert part["ok"]
        assert part["ms"] >= 0
        assert part["needed"] == (name != "cache")
        assert "problem" not in part


@pytest.mark.parametrize(
    ("setting", "part"), [("REDIS_URL", "broker"), ("STREAM_REDIS_URL", "streams")]
)
def test_without_a_redis_that_it_needs_it_is_not(
    settings: Settings, nowhere: str, setting: str, part: str
) -> None:
    setattr(settings, setting, nowhere)
    parts = ready(503)
    assert [name for name, told in parts.items() if not told["ok"]] == [part]
    # Where it is, is nobody's business here.
    assert parts[part]["problem"] == "It does not answer."


def test_without_the_cache_it_serves_all_the_same(settings: Settings, silent: str) -> None:
    settings.CACHE_REDIS_URL = silent
    parts = ready(200)
    assert not parts["cache"]["ok"]
    assert parts["cache"]["ms"] < 5 * health.PART_TIMEOUT_S * 1000


def test_without_the_database_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> None:
        raise DatabaseError("at db.internal: password wrong")

    monkeypatch.setattr(connection, "cursor", away)
    parts = ready(503)
    assert not parts["database"]["ok"]
    assert "db.internal" not in str(parts)


def test_while_a_migration_waits_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = "django.db.migrations.recorder.MigrationRecorder.applied_migrations"
    applied = _applied()
    last = max(name for app, name in applied if app == "billing")
    without = {key: value for key, value in applied.items() if key != ("billing", last)}
    with monkeypatch.context() as patch:
        patch.setattr(recorder, lambda _self: without)
        assert ready(503)["migrations"]["problem"] == "1 migrations wait: manage.py migrate"
    health.kept.forget()
    assert ready(200)["migrations"]["ok"]


def test_asking_often_looks_once(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    ready(200)
    with django_assert_num_queries(0):
        ready(200)
    health.kept.forget()
    # Migrations that are applied stay so.
    with django_assert_num_queries(1):
        ready(200)


def test_it_stands_before_everything_else() -> None:
    assert now_set.MIDDLEWARE[0] == "soulbox.health.probes"


def _applied() -> dict[tuple[str, str], Any]:
    return dict(MigrationRecorder(connection).applied_migrations())
