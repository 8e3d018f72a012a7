"""What usage records add up to, by sandbox and local day of its account."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any
from uuid import UUID

from metering.days import Calendar

_DAY = timedelta(days=1)

# For each table of records: what it is keyed by, and which of its columns go to which figure.
_SOURCES: tuple[tuple[str, dict[str, str]], ...] = (
    (
        "metering_usagerecord record ON record.life_id = life.id",
        {
            "cpu_ns": "cpu_ns",
            "memory_byte_ms": "memory_byte_ms",
            "disk_read_bytes": "disk_read_bytes",
            "disk_write_bytes": "disk_write_bytes",
            "gpu_ms": "gpu_ms",
            "cpu_allocated_ns": "cpu_allocated_ns",
            "memory_allocated_byte_ms": "memory_allocated_byte_ms",
            "running_ms": "running_ms",
            "measured_ms": "measured_ms",
        },
    ),
    (
        """metering_interfacereading interface ON interface.life_id = life.id
        JOIN metering_networkusagerecord record ON record.interface_id = interface.interface""",
        {"network_tx_bytes": "tx_bytes", "network_rx_bytes": "rx_bytes"},
    ),
    (
        "metering_storageusagerecord record ON record.life_id = life.id",
        {"storage_byte_ms": "storage_byte_ms"},
    ),
)
FIGURES = (*(figure for _, columns in _SOURCES for figure in columns), "life_count")


def _sums_of(source: str, columns: dict[str, str], *, counts_lives: bool) -> str:
    sums = {figure: f"sum(record.{column})" for figure, column in columns.items()}
    if counts_lives:
        sums["life_count"] = "count(DISTINCT life.id)"
    figures = [f"{sums.get(figure, '0')} AS {figure}" for figure in FIGURES]
    return f"""
        SELECT sandbox.account_id, life.sandbox_id,
            calendar.days[width_bucket(record.window_start, calendar.starts)] AS day,
            {", ".join(figures)}
        FROM unnest(%(accounts)s::uuid[], %(calendar_of)s::integer[])
            AS account(account_id, calendar)
        JOIN calendar ON calendar.number = account.calendar
        JOIN metering_sandbox sandbox ON sandbox.account_id = account.account_id
        JOIN metering_life life ON life.sandbox_id = sandbox.id
        JOIN {source}
        WHERE record.window_start >= %(start)s AND record.window_start < %(end)s
            -- Accounts may have had a million short lives; those long gone have no windows here.
            AND (life.gone_at IS NULL OR life.gone_at >= %(start)s - interval '1 day')
        GROUP BY 1, 2, 3"""  # noqa: S608 - names of our own columns


DAY_SUMS = f"""
    WITH calendar AS (
        -- Of days that start at once, those left out come first and get nothing.
        SELECT number, array_agg(day ORDER BY start, day) AS days,
            array_agg(start ORDER BY start, day) AS starts
        FROM unnest(%(calendars)s::integer[], %(days)s::date[], %(starts)s::timestamptz[])
            AS given(number, day, start)
        GROUP BY number
    ), part AS (
        {" UNION ALL ".join(_sums_of(*s, counts_lives=not n) for n, s in enumerate(_SOURCES))}
    ), day_sum (account_id, sandbox_id, day, {", ".join(FIGURES)}) AS MATERIALIZED (
        SELECT account_id, sandbox_id, day, {", ".join(f"sum({figure})" for figure in FIGURES)}
        FROM part WHERE day IS NOT NULL GROUP BY 1, 2, 3
    )"""  # noqa: S608 - names of our own columns
"""`day_sum`: what the records of some accounts add up to, by sandbox and local day.

Its parameters are those that `day_parameters` gives.
"""


def day_parameters(
    calendars: Mapping[UUID, Calendar], *, first: date, last: date
) -> dict[str, Any]:
    """Return DAY_SUMS' parameters for these accounts, `first` and `last` included.

    Days come from the time zones of Python, as the periods of invoices do: the database may
    have other rules of them.
    """
    days = [first + n * _DAY for n in range((last - first).days + 1)]
    numbers = {calendar: number for number, calendar in enumerate(set(calendars.values()))}
    rows = [
        (number, day, calendar.start_of(day or last + _DAY))
        for calendar, number in numbers.items()
        # What starts with the day after belongs to no day.
        for day in (*days, None)
    ]
    return {
        "accounts": list(calendars),
        "calendar_of": [numbers[calendar] for calendar in calendars.values()],
        "calendars": [number for number, _, _ in rows],
        "days": [day for _, day, _ in rows],
        "starts": [start for _, _, start in rows],
        "start": min(start for _, _, start in rows),
        "end": max(start for _, _, start in rows),
    }
