"""Messages that no worker can take: left out and said in the log, so that those behind are taken.

A message is a hint, so nothing is lost with one: a sweep finds what there is to do.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from functools import cached_property
from queue import Empty
from typing import Any
from uuid import uuid4

import redis
from celery import Task
from celery.exceptions import Reject
from django.conf import settings
from kombu.transport import redis as transport
from kombu.transport import virtual

MOST_TRIES = 5
"""So often a message may be begun; then it is taken to be what ends its workers."""
TRIES_KEPT = timedelta(hours=1)
BROKER_TIMEOUT_S = 5
LONGEST_READ_S = 1
LONGEST_TOLD = 200
# Celery takes a content type that it does not accept for what cannot be decoded, and says so.
UNREADABLE = "application/x-unreadable"

logger = logging.getLogger(__name__)


class CountedTask(Task[Any, Any]):
    """A task whose message is given up once it was begun MOST_TRIES times and never ended.

    What ends the process that it runs in comes back at once, and would do so for ever.
    """

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Refuse a message that has ended too many workers. Raises Reject."""
        del args, kwargs
        if not (self.request.delivery_info or {}).get("redelivered"):
            return
        if _times_redelivered(task_id) >= MOST_TRIES:
            reason = f"begun {MOST_TRIES} times and never ended"
            logger.error("message given up: %s", reason, extra={"reason": reason})
            raise Reject(reason, requeue=False)


def _times_redelivered(task_id: str) -> int:
    """Count this time, and return how many there are; 0 where the broker does not say."""
    key = f"tries:{task_id}"
    try:
        with redis.Redis.from_url(
            settings.REDIS_URL,
            socket_timeout=BROKER_TIMEOUT_S,
            socket_connect_timeout=BROKER_TIMEOUT_S,
        ) as client:
            count, _ = client.pipeline().incr(key).expire(key, TRIES_KEPT).execute()
    except redis.RedisError:
        return 0
    return int(count)


class Message(virtual.Message):
    """A message out of Redis, of whatever form: one that is none comes as an unreadable one."""

    def __init__(self, payload: Any, channel: Any = None, **more: Any) -> None:
        try:
            super().__init__(payload, channel, **more)
            queue = self.delivery_info["exchange"], self.delivery_info["routing_key"]
            # What goes to all workers, as an operator's question, names its exchange alone.
            is_whole = all(isinstance(name, str) for name in queue) and any(queue)
        except (AttributeError, KeyError, TypeError, ValueError):
            is_whole = False
        if not is_whole:
            super().__init__(_unreadable(payload), channel, **more)


def _unreadable(payload: object) -> dict[str, object]:
    # Should its worker be killed right now, it comes back there: without a queue it could not, and
    # each worker that tried it would lose its connection.
    delivery = {"exchange": "", "routing_key": settings.CELERY_TASK_DEFAULT_QUEUE}
    return {
        "body": repr(payload)[:LONGEST_TOLD],
        "content-type": UNREADABLE,
        "content-encoding": "utf-8",
        "headers": {},
        "properties": {"delivery_tag": str(uuid4()), "delivery_info": delivery},
    }


class Listener(redis.client.PubSub):
    """What Redis publishes, never waited for: redis-py's own waits for ever for what is not there.

    The worker's loop reads where its poll saw something. After a connection was lost and made anew
    that may be nothing, and a loop that waits for it takes no task any more.
    """

    def parse_response(self, block: bool = True, timeout: float = 0) -> Any:  # noqa: FBT001, FBT002 - redis-py's
        """Return what is there, or None if nothing comes in time."""
        del block, timeout
        return super().parse_response(block=False, timeout=LONGEST_READ_S)  # type: ignore[no-untyped-call]


class Channel(transport.Channel):
    """Redis' channel, which what is no message does not end: kombu's own ends the worker."""

    Message = Message

    @cached_property
    def subclient(self) -> Listener:
        """The connection that hears what goes to all workers."""
        client = self._create_client(asynchronous=True)  # type: ignore[attr-defined]  # not in the stubs
        return Listener(client.connection_pool)

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]  # not in the stubs
        except (UnicodeDecodeError, ValueError) as error:
            # It is out of its queue by now.
            told = getattr(error, "doc", None) or getattr(error, "object", b"")
            excerpt = repr(told)[:LONGEST_TOLD]
            logger.error("message left out: it is no JSON: %s", excerpt)  # noqa: TRY400 - said whole
            raise Empty from error


def leave_out_what_is_no_message() -> None:
    """Have kombu read Redis by the channel above. Safe to repeat."""
    transport.Transport.Channel = Channel
