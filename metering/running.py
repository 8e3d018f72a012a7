"""How many sandboxes run, for whom, and of how many of them nothing is known."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import connection

from metering.models.lives import LONGEST_INTERVAL_S
from metering.period import to_ms
from metering.usage_counters import OTHER

UNSAMPLED_AFTER = timedelta(seconds=LONGEST_INTERVAL_S + 60)
"""Longer than any sandbox may go between two readings, and the time that folding takes."""

SUMMARISED_WITHIN = timedelta(hours=2)
"""An hourly run has seen what runs for longer."""
SOME = 100


def running_by_told_account() -> dict[str, int]:
    """Return how many sandboxes run, by id of the accounts that are told of, and as `other`."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT told.name, COALESCE(ran.count, 0)
            FROM (SELECT account_id::text AS name FROM metering_toldaccount
                UNION ALL SELECT %(other)s) AS told
            LEFT JOIN (
                SELECT COALESCE(told.account_id::text, %(other)s) AS name, count(*)
                FROM metering_life life
                JOIN metering_sandbox sandbox ON sandbox.id = life.sandbox_id
                LEFT JOIN metering_toldaccount told ON told.account_id = sandbox.account_id
                WHERE life.ended_at IS NULL
                GROUP BY 1
            ) AS ran ON ran.name = told.name
            ORDER BY told.name
            """,
            {"other": OTHER},
        )
        return dict(cursor.fetchall())


def summarised_at(*, now: datetime) -> datetime | None:
    """Return when days of sandboxes that run were last summarised; None: none runs for long.

    Of some of them: their day changes with every run, so a run writes it anew. Where they have no
    summary at all, since when the first is known.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH ran AS MATERIALIZED (
                SELECT sandbox_id, recorded_at FROM metering_life
                WHERE ended_at IS NULL AND recorded_at < %(since)s LIMIT %(some)s
            )
            SELECT COALESCE(
                (SELECT max(computed_at) FROM ran
                    JOIN metering_sandbox sandbox ON sandbox.id = ran.sandbox_id
                    JOIN metering_dailyusagesummary summary
                        ON summary.account_id = sandbox.account_id
                        AND summary.sandbox_id = sandbox.id AND summary.day >= %(first)s),
                (SELECT min(recorded_at) FROM ran))
            """,
            {
                "since": now - SUMMARISED_WITHIN,
                "some": SOME,
                "first": (now - timedelta(days=2)).date(),
            },
        )
        (found,) = cursor.fetchone() or (None,)
    summarised: datetime | None = found
    return summarised


def unsampled(*, now: datetime) -> int:
    """Return how many sandboxes run, for all we know, with no reading for UNSAMPLED_AFTER."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT count(*) FROM metering_life life
            LEFT JOIN metering_lifereading reading ON reading.life_id = life.id
            WHERE life.ended_at IS NULL AND life.recorded_at < %(since)s
                AND COALESCE(reading.read_ms, -1) < %(since_ms)s
            """,
            {"since": now - UNSAMPLED_AFTER, "since_ms": to_ms(now - UNSAMPLED_AFTER)},
        )
        (count,) = cursor.fetchone() or (0,)
    return int(count)
