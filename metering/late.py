"""Usage of frozen windows that became known too late for the invoice of its time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection

from metering.lateness import LateWindow
from metering.models import LateUsage
from metering.partitions import months_kept
from metering.period import Period
from metering.totals import LIFE_COLUMNS, NETWORK_COLUMNS, STORAGE_COLUMNS

# What no meter charges for, as the time that a life ran, is not among them.
_METERS = {
    column: meter
    for columns in (LIFE_COLUMNS, NETWORK_COLUMNS, STORAGE_COLUMNS)
    for meter, column in columns.items()
}


def late_usage_of_spans(spans: Sequence[tuple[UUID, Period]]) -> list[list[LateWindow]]:
    """Return, in their order, what is late in the windows that start in each account's span.

    All that is known by now, by one query however many spans there are; windows in their order.
    """
    late: list[list[LateWindow]] = [[] for _ in spans]
    if not spans:
        return late
    bounds: dict[str, Any] = {
        "accounts": [account_id for account_id, _ in spans],
        "starts": [period.start for _, period in spans],
        "ends": [period.end for _, period in spans],
        "columns": list(_METERS),
    }
    with connection.cursor() as cursor:
        # From the late rows, which are few, to their accounts, which have many lives.
        cursor.execute(
            """
            SELECT span.number, sandbox.sandbox_id, life.id, late.quantity_name, late.window_start,
                   sum(late.quantity)
              FROM metering_lateusage late
              JOIN metering_life life ON life.id = late.life_id
              JOIN metering_sandbox sandbox ON sandbox.id = life.sandbox_id
              JOIN unnest(%(accounts)s::uuid[], %(starts)s::timestamptz[], %(ends)s::timestamptz[])
                   WITH ORDINALITY AS span(account_id, span_start, span_end, number)
                ON span.account_id = sandbox.account_id
               AND late.window_start >= span.span_start AND late.window_start < span.span_end
             WHERE late.quantity_name = ANY(%(columns)s)
             GROUP BY 1, 2, 3, 4, 5
            HAVING sum(late.quantity) <> 0
             ORDER BY 1, 5, 2, 3, 4
            """,
            bounds,
        )
        for number, sandbox_id, life_id, column, window_start, quantity in cursor.fetchall():
            late[number - 1].append(
                LateWindow(sandbox_id, life_id, _METERS[column], window_start, int(quantity))
            )
    return late


def accounts_with_late_usage(*, after: UUID | None = None, limit: int) -> list[UUID]:
    """Return the first `limit` accounts, by id, that follow `after` and have usage that is late."""
    found = LateUsage.objects.filter(quantity_name__in=_METERS)
    if after is not None:
        found = found.filter(life__sandbox__account_id__gt=after)
    accounts = found.order_by("life__sandbox__account_id").distinct()
    return list(accounts.values_list("life__sandbox__account_id", flat=True)[:limit])


def remembered_since() -> datetime | None:
    """Return where the oldest usage that is kept starts; late usage is kept for longer."""
    months = months_kept()
    return months[0].start if months else None
