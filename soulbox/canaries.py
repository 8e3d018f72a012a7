"""Whether beat sends, workers take, and rows are written: a small task in each queue says so.

Queues of hosts have none: how old a host's newest pass is says the same of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from soulbox.celery import QUEUES
from soulbox.models import Canary

MISSING_AFTER = timedelta(minutes=3)
"""Longer than any task may keep a worker (two minutes), and one interval."""


def sing(queue: str, *, now: datetime) -> None:
    """Note that a worker took a task from the queue."""
    Canary.objects.update_or_create(queue=queue, defaults={"sang_at": now})


def ages(*, now: datetime) -> Mapping[str, timedelta | None]:
    """Return how long ago each queue's canary sang; None where it never did."""
    sang_at = dict(Canary.objects.values_list("queue", "sang_at"))
    return {queue: now - sang_at[queue] if queue in sang_at else None for queue in QUEUES}


def missing(*, now: datetime) -> list[str]:
    """Return the queues whose canary is silent for longer than MISSING_AFTER, or never sang."""
    return [queue for queue, age in ages(now=now).items() if age is None or age > MISSING_AFTER]
