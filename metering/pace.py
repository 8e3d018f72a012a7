"""How fast to collect: as planned, or slower while what is collected is not folded.

Counters lose nothing by it, and gauges are held for longer, since a batch says its interval.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings

from metering import stream
from metering.models import StreamCursor

SLOW_INTERVAL = timedelta(seconds=10)
# A batch is folded within 15 s; one that waits this long means that folding does not keep up.
LAG_LIMIT = timedelta(minutes=1)
# Of what Redis may use. Beyond it a full Redis is a question of time.
MEMORY_LIMIT = 0.7


def interval_of(cursor: StreamCursor, *, now: datetime) -> timedelta:
    """Return the time between two passes that the host's stream can take now.

    Raises StreamUnavailableError.
    """
    planned = timedelta(seconds=settings.METERING_INTERVAL_S)
    waiting_since = stream.waiting_since(cursor.host_id, cursor.entry_id)
    is_behind = waiting_since is not None and now - waiting_since > LAG_LIMIT
    if is_behind or stream.memory_share() > MEMORY_LIMIT:
        return max(planned, SLOW_INTERVAL)
    return planned


def is_due(last_pass: datetime | None, interval: timedelta, *, now: datetime) -> bool:
    """Return whether a pass is due. Ticks come a little early or late; half of one is allowed."""
    allowance = timedelta(seconds=settings.METERING_INTERVAL_S) / 2
    return last_pass is None or now - last_pass >= interval - allowance
