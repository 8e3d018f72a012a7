"""When a collection's next step is due."""

from __future__ import annotations

from datetime import datetime, timedelta

from payments.models import Collection

FIRST_PAUSE = timedelta(seconds=10)
LONGEST_PAUSE = timedelta(hours=1)
_MOST_DOUBLINGS = 16


def wait(collection: Collection, pause: timedelta, *, now: datetime) -> None:
    """Let the next step be due after a pause."""
    Collection.objects.filter(pk=collection.pk).update(try_at=now + pause)


def pause_after(failures: int) -> timedelta:
    """Return how long to wait after so many failures in a row, twice as long each time."""
    doubled: timedelta = FIRST_PAUSE * (1 << min(failures, _MOST_DOUBLINGS))
    return min(doubled, LONGEST_PAUSE)
