"""What must add up in an account's days: records to summaries, summaries to totals."""

from __future__ import annotations

from metering.day_sums import DAY_SUMS, FIGURES

_ROWS = "account_id, sandbox, life, interface, figure, at, expected, found"
# A day that waits to be recomputed is not yet what its records say.
_IS_DONE = """NOT EXISTS (
            SELECT FROM metering_touchedday touched
            WHERE touched.account_id = joined.account_id
                AND touched.day BETWEEN joined.day - 1 AND joined.day + 1)"""


def _figures(expected: str, found: str, *more: str) -> str:
    return ", ".join(
        f"('{figure}', COALESCE({expected}.{figure}, 0), COALESCE({found}.{figure}, 0))"
        for figure in (*FIGURES, *more)
    )


_KEPT = """SELECT * FROM metering_dailyusagesummary
        WHERE account_id = ANY(%(accounts)s) AND day BETWEEN %(first)s AND %(last)s"""
_SUMMARIES = f"""{DAY_SUMS}, kept AS (
        {_KEPT}
    ), joined AS (
        SELECT account_id, sandbox_id, day, figure.*
        FROM day_sum FULL JOIN kept USING (account_id, sandbox_id, day)
        CROSS JOIN LATERAL (VALUES {_figures("day_sum", "kept")}) figure (name, summed, kept)
    ), compared ({_ROWS}) AS (
        SELECT joined.account_id, sandbox.sandbox_id, NULL::bigint, '', name, day::text,
            summed, kept
        FROM joined JOIN metering_sandbox sandbox ON sandbox.id = joined.sandbox_id
        WHERE {_IS_DONE}
    )"""  # noqa: S608 - names of our own columns
_TOTALS = f"""WITH kept AS (
        {_KEPT}
    ), summed AS (
        SELECT account_id, day, {", ".join(f"sum({figure}) AS {figure}" for figure in FIGURES)},
            count(*) AS sandbox_count
        FROM kept GROUP BY account_id, day
    ), total AS (
        SELECT * FROM metering_dailyusagetotal
        WHERE account_id = ANY(%(accounts)s) AND day BETWEEN %(first)s AND %(last)s
    ), joined AS (
        SELECT account_id, day, figure.*
        FROM summed FULL JOIN total USING (account_id, day)
        CROSS JOIN LATERAL (VALUES {_figures("summed", "total", "sandbox_count")})
            figure (name, summed, kept)
    ), compared ({_ROWS}) AS (
        SELECT account_id, '', NULL::bigint, '', name, day::text, summed, kept FROM joined
        WHERE {_IS_DONE}
    )"""  # noqa: S608 - names of our own columns
CHECKS_OF_DAYS = {"day summaries": _SUMMARIES, "day totals": _TOTALS}
"""Statements whose `compared` has what was expected and what was found, by name."""
