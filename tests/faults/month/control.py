"""The control: billing that looks first and writes then, with neither locks nor constraints.

What the months show of it, they would show of the product, too.
"""

from __future__ import annotations

import time
from typing import Any

import psycopg
from django.db import connections
from django.db.models import QuerySet

# Between looking and writing, so that two that begin together both look first on any machine.
THINKS_FOR_S = 0.3
ONCE = "usage_of_an_account_is_invoiced_once_a_period"
NO_OVERLAP = "usage_invoice_periods_do_not_overlap"
# Written with each draft, so it would keep a second one out, too.
NOTED_ONCE = "unpriced_usage_of_a_meter_is_noted_once_a_span"


def take_row_locks_away() -> None:
    """Let this process and its forks lock no rows."""

    def unlocked(rows: QuerySet[Any], **_how: object) -> QuerySet[Any]:
        return rows.all()

    setattr(QuerySet, "select_for_update", unlocked)  # noqa: B010 - the control's point


def take_locks_away() -> None:
    """Let nothing keep two workers from doing the same, in this process and its forks."""
    take_row_locks_away()
    _think_before_writing()
    owner = connections["owner"].get_connection_params()
    with psycopg.connect(**owner, autocommit=True) as connected:
        connected.execute(f"DROP INDEX {ONCE}")
        connected.execute(f"ALTER TABLE billing_invoice DROP CONSTRAINT {NO_OVERLAP}")
        connected.execute(f"ALTER TABLE billing_unpricedusage DROP CONSTRAINT {NOTED_ONCE}")


def _think_before_writing() -> None:
    # Workers of the rounds import this file before Django is set up.
    from billing.services import billing_run  # noqa: PLC0415

    write = getattr(billing_run, "write_new_statements")  # noqa: B009 - as it is set

    def thoughtful(*arguments: Any, **more: Any) -> None:
        time.sleep(THINKS_FOR_S)
        write(*arguments, **more)

    setattr(billing_run, "write_new_statements", thoughtful)  # noqa: B010 - the control's point
