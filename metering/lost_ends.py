"""Ends of lives whose batch was lost: the tables know them, the stream tells them again."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from metering import numbering
from metering.endings import was_closed_in_silence
from metering.models import Host, Life
from metering.period import to_ms
from metering.samples import Batch, Event, State
from metering.sampling import Gone, Turn, life_samples, storage_samples

# Before the last pass that was folded: the ends a batch tells are that much older at most.
AROUND_A_LOSS: Final = timedelta(minutes=1)


def send_again(host_id: UUID, *, since: datetime) -> int:
    """Append the ends since then of a host's lives that no fold has seen; return how many.

    An end is sent once by collecting, so one that was in a lost batch would leave the life's
    last running time, or all of a short life, without usage and without a gap. Safe to repeat:
    an end that was folded changes nothing. Raises StreamUnavailableError.
    """
    # Of a life that was closed because its host is silent nobody knows the end.
    unfolded = Life.objects.filter(
        ~was_closed_in_silence(), host_id=host_id, ended_at__gte=since
    ).exclude(reading__state=State.STOPPED)
    turns = [
        Turn(life, to_ms(ended_at), State.STOPPED, Event.STOPPED)
        for life, ended_at in unfolded.values_list("pk", "ended_at")
        if ended_at is not None
    ]
    removed = Life.objects.filter(host_id=host_id, gone_at__gte=since)
    gone = [
        Gone(life, to_ms(gone_at))
        for life, gone_at in removed.exclude(storage__is_gone=1).values_list("pk", "gone_at")
        if gone_at is not None
    ]
    if turns or gone:
        batch = Batch(
            collected_ms=0,
            interval_ms=0,
            samples=life_samples((), {}, turns),
            storage=storage_samples((), {}, gone),
        )
        host = Host.objects.get(pk=host_id)
        numbering.append(host, batch)
        Host.objects.filter(pk=host_id).update(**numbering.appended(host))
    return len(turns) + len(gone)
