"""The control: billing that looks first and writes then, with neither locks nor constraints.

What the months show of it, they would show of the product, too.
"""

from __future__ import annotations

from typing import Any

import psycopg
from django.db import connections
from django.db.models import QuerySet

ONCE = "usage_of_an_account_is_invoiced_once_a_period"
NO_OVERLAP = "usage_invoice_periods_do_not_overlap"


def take_row_locks_away() -> None:
    """Let this process and its forks lock no rows."""

    def unlocked(rows: QuerySet[Any], **_how: object) -> QuerySet[Any]:
        return rows.all()

    setattr(QuerySet, "select_for_update", unlocked)  # noqa: B010 - the control's point


def take_locks_away() -> None:
    """Let nothing keep two workers from doing the same, in this process and its forks."""
    take_row_locks_away()
    owner = connections["owner"].get_connection_params()
    with psycopg.connect(**owner, autocommit=True) as connected:
        connected.execute(f"DROP INDEX {ONCE}")
        connected.execute(f"ALTER TABLE billing_invoice DROP CONSTRAINT {NO_OVERLAP}")
