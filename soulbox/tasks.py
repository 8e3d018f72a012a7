from __future__ import annotations

from datetime import UTC, datetime

from celery import shared_task

from soulbox import canaries, figures


@shared_task(name="soulbox.tasks.sing")
def sing(queue: str) -> None:
    """Note that the queue is served."""
    canaries.sing(queue, now=datetime.now(UTC))


@shared_task(name="soulbox.tasks.take_figures")
def take_figures() -> None:
    """Take what a monitor reads and takes too long for it."""
    figures.take_figures(now=datetime.now(UTC))
