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
TIMEOUT_S = 0.1
"""So long a hint may take where Redis does not answer."""
SILENCE_S = 5.0
"""After a hint that did not get through none is tried for so long."""

GOOD_FOR_S = 60
"""What nobody took by then the sweep has found."""

logger = logging.getLogger(__name__)


class _Broker(threading.local):
    """A thread's own connection: Celery's waits for a broker as long as it takes."""

    connection: Connection | None = None
    silent_until = 0.0

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


_broker = _Broker()


def hurry(task: Task[..., None], *arguments: str) -> bool:
    """Have some worker run the task soon; return whether the hint got through.

    Never raises for a broker that is away, and takes 0.1 s at most, once in 5 s.
    """
    if time.monotonic() < _broker.silent_until:
        return False
    try:
        task.apply_async(
            arguments,
            queue=QUEUE,
            producer=_broker.producer(),
            retry=False,
            expires=GOOD_FOR_S,
        )
    except (KombuError, RedisError, OSError) as error:
        logger.warning("no hint to the workers, the sweep will find it: %s", error)
        _broker.silent_until = time.monotonic() + SILENCE_S
        _broker.forget()
        return False
    return True
