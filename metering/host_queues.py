"""Which hosts' queues are taken from: one that nobody serves must not fill the broker."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from uuid import UUID

import redis
from django.conf import settings

MOST_WAITING = 5
"""Of passes and readings of storage; a worker that comes back finds no more of them."""


def queue_of(host_id: UUID) -> str:
    """Return the queue whose worker reads the host."""
    return f"collect.{host_id}"


def with_room(host_ids: Sequence[UUID]) -> list[UUID]:
    """Return those of the hosts in whose queue little waits. Raises redis.RedisError.

    A host whose worker is down, or that `manage.py collect` reads, has nobody who takes from its
    queue, and Redis keeps what has expired, too.
    """
    pipeline = _broker().pipeline(transaction=False)
    for host_id in host_ids:
        pipeline.llen(queue_of(host_id))
    waiting = pipeline.execute()
    return [
        host_id for host_id, count in zip(host_ids, waiting, strict=True) if count < MOST_WAITING
    ]


@cache
def _broker() -> redis.Redis:
    return redis.Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=settings.STREAM_TIMEOUT_S,
        socket_connect_timeout=settings.STREAM_TIMEOUT_S,
    )
