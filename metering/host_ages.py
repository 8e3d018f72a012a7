"""How new what is known of each host is, as a monitor asks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Count

from metering.models import Host, Life
from metering.services import PUSHED


@dataclass(frozen=True, slots=True)
class HostAges:
    """An active host: how long ago it was heard of, and up to when its samples are folded.

    None: never so far. `is_pushed`: its samples are sent to us; none for minutes may be as it has
    to be there, and `seen` says nothing.
    """

    id: UUID
    name: str
    is_pushed: bool
    running: int
    seen: timedelta | None
    folded: timedelta | None
    lost_batches: int


def ages_of_hosts(*, now: datetime) -> list[HostAges]:
    """Return the active hosts, by name. Two queries, whatever runs on them."""
    counts = Life.objects.filter(ended_at__isnull=True).values("host").annotate(lives=Count("pk"))
    running = {row["host"]: int(row["lives"]) for row in counts}
    hosts = Host.objects.filter(is_active=True).select_related("cursor").order_by("name")
    return [
        HostAges(
            id=host.pk,
            name=host.name,
            is_pushed=host.endpoint.startswith(PUSHED),
            running=running.get(host.pk, 0),
            seen=_age(host.last_seen_at, now),
            folded=_age(host.cursor.collected_until, now),
            lost_batches=host.cursor.lost_batch_count,
        )
        for host in hosts
    ]


def _age(moment: datetime | None, now: datetime) -> timedelta | None:
    return None if moment is None else now - moment
