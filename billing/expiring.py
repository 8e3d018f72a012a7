"""How much credit lapses soon, for a monitor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from django.db import connection


@dataclass(frozen=True, slots=True)
class Expiring:
    """What of a currency's credit is left and lapses within so many days, and for how many."""

    currency: str
    days: int
    left: Decimal
    accounts: int


def expiring_sums(days: Sequence[int], *, now: datetime) -> list[Expiring]:
    """Return the credit that lapses within each of these numbers of days, by currency, in order.

    Every currency that accounts have is there, and is zero where nothing lapses. Adds up all
    grants that lapse: take it in the background.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT currency, wanted.days, COALESCE(sum(lapsing.left_over), 0),
                count(DISTINCT lapsing.account_id)
            FROM (SELECT DISTINCT currency FROM billing_account) AS used
            CROSS JOIN unnest(%(days)s::integer[]) AS wanted(days)
            LEFT JOIN (
                SELECT given.account_id, account.currency AS of_currency, given.expires_at,
                    sum(entry.amount) AS left_over
                FROM billing_creditgrant given
                JOIN billing_account account ON account.id = given.account_id
                JOIN billing_creditentry entry ON entry.grant_id = given.id
                WHERE given.expires_at >= %(now)s AND given.expires_at < %(last)s
                GROUP BY given.id, account.currency
                HAVING sum(entry.amount) > 0
            ) AS lapsing ON lapsing.of_currency = used.currency
                AND lapsing.expires_at < %(now)s + make_interval(days => wanted.days)
            GROUP BY 1, 2 ORDER BY 1, 2
            """,
            {"days": list(days), "now": now, "last": now + timedelta(days=max(days))},
        )
        return [Expiring(*row) for row in cursor.fetchall()]
