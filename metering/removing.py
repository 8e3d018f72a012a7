"""Taking a host out of service: what it has is read and folded once more, then it is left alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from metering import stream
from metering.aggregator import aggregate_host
from metering.collector import collect_host
from metering.models import Host, Life, StreamCursor
from metering.services import PUSHED
from metering.silence import close_silent_hosts
from metering.source import SourceError

FOLDS: Final = 1000
"""At most; each takes many batches."""


@dataclass(frozen=True, slots=True)
class Removal:
    """What removing a host does: who runs there, what was folded, what is left."""

    running: tuple[str, ...]
    # Samples.
    folded: int
    # Batches that wait still.
    left: int
    # Why it could not be read once more; empty when it was.
    problem: str


def plan_removal(host_id: UUID) -> Removal:
    """Return what would be removed; nothing is. Raises Host.DoesNotExist, StreamUnavailableError.

    Its batches that wait would be folded.
    """
    host = Host.objects.get(pk=host_id)
    return Removal(_running(host), folded=0, left=_left(host), problem="")


def remove_host(host_id: UUID, *, now: datetime) -> Removal:
    """Read a host a last time, fold what it has, and meter it no more. Safe to repeat.

    Lives that run there end with the last pass that reached it, and no later time of them is
    charged. Its rows stay, and `register_host` takes it back with the same lives. Raises
    Host.DoesNotExist, StreamUnavailableError.
    """
    host = Host.objects.get(pk=host_id)
    running, problem = _running(host), ""
    if host.is_active and not host.endpoint.startswith(PUSHED):
        try:
            collect_host(host_id, now=now)
        except SourceError as error:
            problem = str(error)
    Host.objects.filter(pk=host_id).update(is_active=False)
    folded = 0
    for _ in range(FOLDS):
        before = _left(host)
        if not before:
            break
        folded += aggregate_host(host_id, now=now)
        if _left(host) >= before:
            # A worker has the cursor, or the batch is no good.
            break
    close_silent_hosts(now=now)
    return Removal(running, folded=folded, left=_left(host), problem=problem)


def _running(host: Host) -> tuple[str, ...]:
    lives = Life.objects.filter(host=host, ended_at__isnull=True).select_related("sandbox")
    return tuple(
        f"{life.sandbox.sandbox_id} of {life.sandbox.account_id}" for life in lives.order_by("pk")
    )


def _left(host: Host) -> int:
    cursor = StreamCursor.objects.get(host=host)
    return stream.waiting(host.pk, folded=cursor.entry_id, sequence=cursor.sequence).entries
