"""Ends database sessions of workers that stand still in the middle of sending rows."""

from __future__ import annotations

import logging

from django.db import connection

STALLED_AFTER_S = 45
"""A COPY of a batch takes a second; as long as a session may be idle inside a transaction."""

logger = logging.getLogger(__name__)


def end_stalled_sessions() -> int:
    """End our own role's sessions that have waited so long for rows of a COPY; return how many.

    Of a worker that stands still inside a COPY, PostgreSQL's own limits do not take the locks:
    to them the session is at work. Safe to repeat.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE usename = current_user AND datname = current_database()
               AND backend_type = 'client backend'
               AND state = 'active' AND wait_event = 'ClientRead'
               AND query_start < clock_timestamp() - %s * interval '1 s'
               AND pid <> pg_backend_pid()
            """,
            [STALLED_AFTER_S],
        )
        ended = [pid for pid, is_ended in cursor.fetchall() if is_ended]
    if ended:
        logger.warning("sessions that stood still inside a COPY were ended: %s", ended)
    return len(ended)
