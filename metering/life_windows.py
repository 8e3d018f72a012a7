"""One life's usage window by window, for who wants to see what a sum rests on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from metering.meters import Meter
from metering.models import NetworkUsageRecord, StorageUsageRecord, UsageRecord
from metering.period import Period
from metering.totals import LIFE_COLUMNS, NETWORK_COLUMNS, STORAGE_COLUMNS

MOST_WINDOWS = 1000
"""So many rows come at once: some ten days of one life."""
_TIMELESS = 0


@dataclass(frozen=True, slots=True)
class LifeWindow:
    """What one life used of one meter in one window, in base units, and what it was read from.

    `opening` and `closing` are None where the meter is no counter; `interface` is empty but for
    network, whose windows have no time of their own.
    """

    window_start: datetime
    interface: str
    quantity: int
    opening: int | None
    closing: int | None
    sample_count: int
    applied_ms: int
    measured_ms: int


def life_windows(
    life_id: int, meter: Meter, period: Period, *, after: datetime | None = None
) -> list[LifeWindow]:
    """Return the life's windows that start in `period` and after `after`, in order.

    At most MOST_WINDOWS; ask again after the last one. None at all where the records were dropped.
    """
    if meter in NETWORK_COLUMNS:
        records: Any = NetworkUsageRecord.objects.filter(interface__life=life_id)
        records = records.select_related("interface").order_by("window_start", "interface_id")
        column, applied = NETWORK_COLUMNS[meter], ""
    elif meter in STORAGE_COLUMNS:
        records = StorageUsageRecord.objects.filter(life=life_id).order_by("window_start")
        column, applied = STORAGE_COLUMNS[meter], "existing_ms"
    else:
        records = UsageRecord.objects.filter(life=life_id).order_by("window_start")
        column, applied = LIFE_COLUMNS[meter], "running_ms"
    records = records.filter(window_start__gte=period.start, window_start__lt=period.end)
    if after:
        records = records.filter(window_start__gt=after)
    return [_window(record, column, applied) for record in records[:MOST_WINDOWS]]


def _window(record: Any, column: str, applied: str) -> LifeWindow:
    return LifeWindow(
        window_start=record.window_start,
        interface="" if applied else record.interface.name,
        quantity=getattr(record, column),
        opening=getattr(record, f"opening_{column}", None),
        closing=getattr(record, f"closing_{column}", None),
        sample_count=record.sample_count,
        applied_ms=getattr(record, applied) if applied else _TIMELESS,
        measured_ms=record.measured_ms if applied else _TIMELESS,
    )
