from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
import redis
from django.conf import settings

from payments import hurrying
from payments.hurrying import QUEUE, SILENCE_S, hurry
from payments.tasks import apply_event
from soulbox.celery import app


@pytest.fixture(autouse=True)
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    """The broker, with no message waiting before or after, and no connection to it yet."""
    monkeypatch.setattr(hurrying, "_broker", hurrying._Broker())
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.delete(QUEUE)
        yield client
        hurrying._broker.connections.forget()
        client.delete(QUEUE)


def point_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = app.connection_for_write
    monkeypatch.setattr(app, "connection_for_write", lambda **more: connect(url, **more))


def test_a_hint_gets_to_the_workers(broker: redis.Redis) -> None:
    for number in range(3):
        assert hurry(apply_event, f"evt_{number}")
    assert broker.llen(QUEUE) == 3
    assert b"payments.tasks.apply_event" in (broker.lpop(QUEUE) or "")


def test_no_more_hints_are_sent_than_workers_can_follow(
    broker: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send_at(seconds: float) -> list[bool]:
        monkeypatch.setattr("payments.hurrying.time.monotonic", lambda: 1000 + seconds)
        return [hurry(apply_event, "evt_1") for _ in range(50)]

    assert send_at(0) == [True] * 20 + [False] * 30
    assert send_at(0.25) == [True] * 5 + [False] * 45
    assert send_at(60) == [True] * 20 + [False] * 30
    assert broker.llen(QUEUE) == 45


def test_a_broker_that_is_not_there_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    point_at("redis+socket:///nowhere/redis.sock?virtual_host=0", monkeypatch)
    began = time.monotonic()
    assert [hurry(apply_event, "evt_1") for _ in range(100)] == [False] * 100
    assert time.monotonic() - began < 0.5


def test_a_broker_that_does_not_answer_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        point_at(f"redis://127.0.0.1:{mute.getsockname()[1]}/0", monkeypatch)
        began = time.monotonic()
        assert [hurry(apply_event, "evt_1") for _ in range(100)] == [False] * 100
        assert time.monotonic() - began < 0.5


def test_a_broker_that_is_back_gets_hints_again(
    broker: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as away:
        point_at("redis+socket:///nowhere/redis.sock?virtual_host=0", away)
        assert not hurry(apply_event, "evt_1")
    assert not hurry(apply_event, "evt_2")
    later = time.monotonic() + SILENCE_S
    monkeypatch.setattr("payments.hurrying.time.monotonic", lambda: later)
    assert hurry(apply_event, "evt_3")
    assert broker.llen(QUEUE) == 1


def test_a_connection_that_was_cut_is_made_anew(broker: redis.Redis) -> None:
    assert hurry(apply_event, "evt_1")
    broker.client_kill_filter(_type="normal", skipme=True)
    assert hurry(apply_event, "evt_2") or hurrying._broker.connections.connection is None
    hurrying._broker.silent_until = 0
    assert hurry(apply_event, "evt_3")
