"""What accounts used day by day, all sandboxes together, kept beside the summaries of each."""

from __future__ import annotations

from datetime import date
from uuid import UUID

from django.db import connection

from metering.day_sums import FIGURES

_COLUMNS = ", ".join((*FIGURES, "sandbox_count"))
_REPLACE = f"""
    WITH gone AS (
        DELETE FROM metering_dailyusagetotal kept
        WHERE account_id = %(account)s AND day BETWEEN %(first)s AND %(last)s
            AND NOT EXISTS (
                SELECT FROM metering_dailyusagesummary summary
                WHERE summary.account_id = kept.account_id AND summary.day = kept.day)
    )
    INSERT INTO metering_dailyusagetotal AS kept (account_id, day, {_COLUMNS})
    SELECT account_id, day, {", ".join(f"sum({figure})" for figure in FIGURES)}, count(*)
    FROM metering_dailyusagesummary
    WHERE account_id = %(account)s AND day BETWEEN %(first)s AND %(last)s
    GROUP BY account_id, day
    ON CONFLICT (account_id, day) DO UPDATE
    SET ({_COLUMNS}) = ({", ".join(f"EXCLUDED.{name}" for name in (*FIGURES, "sandbox_count"))})
    -- A row that is right already is not written again.
    WHERE ({", ".join(f"kept.{name}" for name in (*FIGURES, "sandbox_count"))})
        IS DISTINCT FROM ({", ".join(f"EXCLUDED.{name}" for name in (*FIGURES, "sandbox_count"))})
    """  # noqa: S608 - names of our own columns
_SETTLE = """
    INSERT INTO metering_settleddays AS kept (account_id, since, until)
    VALUES (%(account)s, %(since)s, %(until)s)
    ON CONFLICT (account_id) DO UPDATE
    SET since = CASE WHEN EXCLUDED.since <= kept.until THEN kept.since ELSE EXCLUDED.since END,
        until = greatest(kept.until, EXCLUDED.until)
    """


def replace_totals(account_id: UUID, first: date, last: date) -> None:
    """Have the account's totals of these days, both included, be the sums of its summaries.

    Safe to repeat; to be called by whoever changes summaries, in the same transaction.
    """
    with connection.cursor() as cursor:
        cursor.execute(_REPLACE, {"account": account_id, "first": first, "last": last})


def settle_days(account_id: UUID, *, since: date, until: date) -> None:
    """Note that the totals from `since` to before `until` are done for good, but for marked days.

    Where days are left out between those that were settled before and these, only these count.
    """
    if since < until:
        with connection.cursor() as cursor:
            cursor.execute(_SETTLE, {"account": account_id, "since": since, "until": until})
