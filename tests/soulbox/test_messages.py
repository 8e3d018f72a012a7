"""Messages that no worker can take."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import redis
from celery.exceptions import Reject
from django.conf import settings
from kombu import Connection, Consumer, Exchange, Queue
from kombu.exceptions import ContentDisallowed
from kombu.transport import redis as transport

from soulbox.celery import app
from soulbox.messages import LONGEST_READ_S, MOST_TRIES, Channel, CountedTask

# Of which ours is a kind.
THEIRS: Any = Channel.__base__
QUEUE = f"messages-{uuid4()}"
ENVELOPE: dict[str, Any] = {
    "body": "e30=",
    "headers": {},
    "content-type": "application/json",
    "content-encoding": "utf-8",
    "properties": {
        "body_encoding": "base64",
        "delivery_tag": "one",
        "delivery_info": {"exchange": "", "routing_key": QUEUE},
    },
}
NOWHERE = {**ENVELOPE["properties"], "delivery_info": {"exchange": "", "routing_key": ""}}
NOT_MESSAGES: list[Any] = [
    [],
    {},
    "text",
    None,
    7,
    {**ENVELOPE, "body": "x"},
    {**ENVELOPE, "properties": {"delivery_tag": "one"}},
    {**ENVELOPE, "properties": None},
    {**ENVELOPE, "properties": NOWHERE},
]


@pytest.fixture
def broker() -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        yield client
        client.delete(QUEUE)


def taken(count: int) -> list[Any]:
    """Return what a consumer of the queue is given."""
    messages: list[Any] = []
    with Connection(settings.CELERY_BROKER_URL) as connection:
        queue = Queue(QUEUE, Exchange(""), routing_key=QUEUE)
        with Consumer(
            connection, [queue], on_message=messages.append, accept=["json"], auto_declare=False
        ):
            while len(messages) < count:
                connection.drain_events(timeout=20)
            for message in messages:
                message.ack()
    return messages


@pytest.mark.parametrize("payload", NOT_MESSAGES)
def test_what_is_no_message_is_one_that_nobody_decodes(
    broker: redis.Redis, payload: object
) -> None:
    broker.lpush(QUEUE, json.dumps(payload))
    broker.lpush(QUEUE, json.dumps(ENVELOPE))
    unreadable, good = taken(2)
    with pytest.raises(ContentDisallowed):
        unreadable.decode()
    # Where it goes should its worker be killed.
    assert unreadable.delivery_info == {"exchange": "", "routing_key": "default"}
    assert good.decode() == {}


def test_what_goes_to_all_workers_is_a_message(broker: redis.Redis) -> None:
    # An operator's question: it has an exchange, and no queue.
    everywhere = {"exchange": "celery.pidbox", "routing_key": ""}
    properties = {**ENVELOPE["properties"], "delivery_info": everywhere}
    broker.lpush(QUEUE, json.dumps({**ENVELOPE, "properties": properties}))
    (question,) = taken(1)
    assert question.delivery_info == everywhere
    assert question.decode() == {}


@pytest.mark.parametrize("raw", [b'{"broken', b"\xff\xfe", b""])
def test_what_is_no_json_is_left_out(
    broker: redis.Redis, raw: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    broker.lpush(QUEUE, raw)
    broker.lpush(QUEUE, json.dumps(ENVELOPE))
    (good,) = taken(1)
    assert good.decode() == {}
    assert "it is no JSON" in caplog.text


@pytest.mark.parametrize("is_own", [True, False])
def test_a_worker_that_hears_of_nothing_goes_on_and_with_kombus_channel_waits(
    broker: redis.Redis,
    is_own: bool,  # noqa: FBT001 - a parameter
) -> None:
    """As it is where the poll saw a connection that is another one by now."""
    with Connection(settings.CELERY_BROKER_URL) as connection:
        channel: Any = (transport.Transport.Channel if is_own else THEIRS)(connection.transport)
        listener = channel.subclient
        listener.psubscribe(QUEUE)
        assert listener.parse_response()[0] == b"psubscribe"
        reading = threading.Thread(target=channel._receive, daemon=True)
        reading.start()
        reading.join(3 * LONGEST_READ_S)
        assert reading.is_alive() != is_own
        assert listener.connection.is_connected
        # No reader is left behind: it takes no more than something to hear.
        broker.publish(QUEUE, "")
        reading.join(3 * LONGEST_READ_S)
        assert not reading.is_alive()


def begin(task_id: str, *, redelivered: bool) -> None:
    app.loader.import_default_modules()
    task = app.tasks["soulbox.tasks.sing"]
    task.push_request(id=task_id, delivery_info={"redelivered": redelivered})
    try:
        task.before_start(task_id, (), {})
    finally:
        task.pop_request()


def test_a_message_is_begun_five_times_and_then_given_up(broker: redis.Redis) -> None:
    task_id = str(uuid4())
    begin(task_id, redelivered=False)
    for _ in range(MOST_TRIES - 1):
        begin(task_id, redelivered=True)
    with pytest.raises(Reject) as refused:
        begin(task_id, redelivered=True)
    # It is not given back to its queue.
    assert not getattr(refused.value, "requeue", True)
    assert 0 < broker.ttl(f"tries:{task_id}") <= 3600
    broker.delete(f"tries:{task_id}")


def test_where_the_broker_does_not_count_a_message_is_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_arguments: object, **_more: object) -> redis.Redis:
        raise redis.ConnectionError

    monkeypatch.setattr(redis.Redis, "from_url", refuse)
    for _ in range(2 * MOST_TRIES):
        begin("one", redelivered=True)
    assert isinstance(app.tasks["soulbox.tasks.sing"], CountedTask)
