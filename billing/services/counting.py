"""Counts, for a monitor, what becomes final and what fails."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from django.db import connection

from billing.models import FailureCount, Invoice

_BOUNDS = "0.1 0.5 1 5 10 50 100 500 1000 5000 10000 50000 100000 1000000"
AMOUNTS = tuple(map(Decimal, _BOUNDS.split()))
"""Where the ranges end in which invoices are counted, in units of their currency."""


def count_amounts(invoices: Sequence[Invoice]) -> None:
    """Count invoices that the caller's transaction makes final, once.

    The rows stay locked to its end, for everybody who counts: call it last.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO billing_invoicedamount AS kept (kind, currency, up_to, count, total)
            SELECT kind, currency,
                (SELECT min(bound) FROM unnest(%s::numeric[]) AS bound WHERE bound >= amount),
                count(*), sum(amount)
            FROM unnest(%s::text[], %s::text[], %s::numeric[]) AS final(kind, currency, amount)
            -- Sorted, so that two that count do not wait in a ring.
            GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
            ON CONFLICT (kind, currency, up_to) DO UPDATE
            SET count = kept.count + EXCLUDED.count, total = kept.total + EXCLUDED.total
            """,
            [
                list(AMOUNTS),
                [invoice.kind for invoice in invoices],
                [invoice.currency for invoice in invoices],
                [invoice.total_amount for invoice in invoices],
            ],
        )


def count_failure(what: FailureCount.Failed) -> None:
    """Count a failure, once a call."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO billing_failurecount AS kept (what, count) VALUES (%s, 1)
            ON CONFLICT (what) DO UPDATE SET count = kept.count + 1
            """,
            [what.value],
        )
