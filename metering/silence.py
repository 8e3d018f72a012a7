"""What becomes of lives whose host nobody hears of: it is silent, or was set not active."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F, Max, Q, QuerySet, Value
from django.db.models.functions import Coalesce

from metering import stream
from metering.lost_ends import AROUND_A_LOSS
from metering.models import Gap, Host, Life, StreamCursor
from metering.period import MILLISECOND, from_ms

SILENT_AFTER = timedelta(minutes=10)

logger = logging.getLogger(__name__)


def close_silent_hosts(*, now: datetime) -> int:
    """Close the lives of hosts not heard of for ten minutes, or not active; return how many.

    They end when the host was last seen, and a gap says from when on nobody knows. A host that
    comes back goes on with the same lives, and their counters lose nothing. Safe to repeat.
    """
    closed = 0
    for host in _unheard(now):
        count = _close_lives(host, now)
        if count:
            logger.warning("lives of a silent host closed", extra={"host": host.pk, "lives": count})
        closed += count
        _count_as_collected(host)
    return closed


def _unheard(now: datetime) -> QuerySet[Host]:
    return Host.objects.filter(
        Q(is_active=False) | Q(last_seen_at__lt=now - SILENT_AFTER), last_seen_at__isnull=False
    )


@transaction.atomic
def _close_lives(host: Host, now: datetime) -> int:
    # A pass that ends now is waited for, and then its host is not silent any more. One that goes on
    # reopens what it sees alive.
    silent = _unheard(now).select_for_update().filter(pk=host.pk).first()
    if silent is None or silent.last_seen_at is None:
        return 0
    gaps = []
    # What began since is of a pass that goes on.
    lives = Life.objects.select_for_update().filter(
        host=host, ended_at__isnull=True, started_at__lte=now
    )
    for life in lives:
        life.ended_at = max(silent.last_seen_at, life.started_at)
        if now > life.ended_at:
            gaps.append(
                Gap(
                    life=life,
                    meter=Gap.WHOLE_LIFE,
                    start=life.ended_at,
                    end=now,
                    reason=Gap.Reason.HOST_SILENT,
                    recorded_at=now,
                )
            )
    Life.objects.bulk_update(lives, ["ended_at"], batch_size=1000)
    Gap.objects.bulk_create(gaps, ignore_conflicts=True)
    return len(lives)


def _count_as_collected(host: Host) -> None:
    """Let invoices not wait for what a silent host may still say; that would be late usage."""
    cursor = StreamCursor.objects.filter(host=host).first()
    if cursor is None or host.last_seen_at is None:
        return
    if stream.waiting_since(host.pk, cursor.entry_id) is not None:
        return
    # A life that began after the host was last seen was recorded by a pass that failed.
    ends = Life.objects.filter(host=host, gone_at__isnull=True, ended_at__gte=host.last_seen_at)
    last_end = ends.aggregate(last=Max("ended_at"))["last"]
    # Each of its lives ended before this.
    until = max(host.last_seen_at, last_end or host.last_seen_at) + MILLISECOND
    # What lies before then and was not folded may have been lost: its ends are told again, as far
    # as nobody has folded them.
    unfolded = F("collected_until") - Value(AROUND_A_LOSS)
    # A fold meanwhile has moved the cursor, and knows better.
    StreamCursor.objects.filter(
        Q(collected_until__isnull=True) | Q(collected_until__lt=until),
        pk=cursor.pk,
        entry_id=cursor.entry_id,
    ).update(
        collected_until=until,
        ends_untold_since=Coalesce(F("ends_untold_since"), unfolded, Value(from_ms(0))),
    )
