"""Hints to workers that something waits. The sweep finds it anyway: a hint may be lost."""

from __future__ import annotations

import logging
import threading
import time

from celery import Task, current_app
from kombu import Connection, Producer
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

QUEUE = "payments"
TIMEOUT_S = 0.05
"""So long a hint may take where Redis does not answer."""
SILENCE_S = 15.0
"""After a hint that did not get through none is tried for so long: the sweep is as quick then."""
HINTS_A_SECOND = 20.0
"""More would wait in the queue: whoever is hinted at goes on with what else is due."""
MOST_HINTS_AT_ONCE = 20.0
GOOD_FOR_S = 60
"""What nobody took by then the sweep has found."""

logger = logging.getLogger(__name__)


class _Connections(threading.local):
    """A thread's own connection: Celery's waits for a broker as long as it takes."""

    connection: Connection | None = None

    def producer(self) -> Producer:
        if self.connection is None:
            options = current_app.conf.broker_transport_options
            self.connection = current_app.connection_for_write(
                transport_options={
                    **options,
                    "socket_timeout": TIMEOUT_S,
                    "socket_connect_timeout": TIMEOUT_S,
                    "retry_on_timeout": False,
                    "max_retries": 0,
                }
            )
        return current_app.amqp.Producer(self.connection, auto_declare=False)

    def forget(self) -> None:
        if self.connection is not None:
            self.connection.release()
        self.connection = None


class _Broker:
    """How the broker is, as all threads know it; a race between them costs a hint or two."""

    def __init__(self) -> None:
        self.connections = _Connections()
        self.silent_until = 0.0
        self.hints_left = MOST_HINTS_AT_ONCE
        self.counted_at = 0.0

    def may_hint(self, now: float) -> bool:
        """Return whether the broker is to be bothered, and count it."""
        if now < self.silent_until:
            return False
        regained = (now - self.counted_at) * HINTS_A_SECOND
        self.hints_left = min(MOST_HINTS_AT_ONCE, self.hints_left + regained)
        self.counted_at = now
        if self.hints_left < 1:
            return False
        self.hints_left -= 1
        return True


_broker = _Broker()


def hurry(task: Task[..., None], *arguments: str) -> bool:
    """Have some worker run the task soon; return whether the hint got through.

    Never raises for a broker that is away, and waits 0.1 s for it at most, once in 15 s.
    """
    if not _broker.may_hint(time.monotonic()):
        return False
    try:
        task.apply_async(
            arguments,
            queue=QUEUE,
            producer=_broker.connections.producer(),
            retry=False,
            expires=GOOD_FOR_S,
        )
    except (KombuError, RedisError, OSError) as error:
        logger.warning("no hint to the workers, the sweep will find it: %s", error)
        _broker.silent_until = time.monotonic() + SILENCE_S
        _broker.connections.forget()
        return False
    return True
