"""What many accounts used, each in spans of its own, by one query a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from django.db import connection

from metering.meters import UNITS, Meter
from metering.period import Period

LIFE_COLUMNS = {
    meter: UNITS[meter].stored
    for meter in (
        Meter.CPU,
        Meter.MEMORY,
        Meter.GPU,
        Meter.DISK_READ,
        Meter.DISK_WRITE,
        Meter.CPU_ALLOCATED,
        Meter.MEMORY_ALLOCATED,
    )
}
NETWORK_COLUMNS = {Meter.NETWORK_EGRESS: "tx_bytes", Meter.NETWORK_INGRESS: "rx_bytes"}
STORAGE_COLUMNS = {Meter.STORAGE: "storage_byte_ms"}

# The lives of a sandbox that may have windows from `first` on. OFFSET 0 has each sandbox's looked
# up by its index: else all lives of everybody may be read to find those of one account.
LIVES = """
    JOIN LATERAL (
        SELECT id FROM metering_life
        WHERE sandbox_id = sandbox.id
            -- Of a million short lives, those long gone have no windows here.
            AND (gone_at IS NULL OR gone_at >= %(first)s::timestamptz - interval '1 day')
        OFFSET 0
    ) AS life ON true"""

# A network record knows its interface, the other two their life.
_OF_A_LIFE = "record.life_id = life.id"
_OF_AN_INTERFACE = "record.interface_id = interface.interface"
_INTERFACES = "JOIN metering_interfacereading interface ON interface.life_id = life.id"
_TABLES: tuple[tuple[str, str, str, dict[Meter, str]], ...] = (
    ("metering_usagerecord", "", _OF_A_LIFE, LIFE_COLUMNS),
    ("metering_networkusagerecord", _INTERFACES, _OF_AN_INTERFACE, NETWORK_COLUMNS),
    ("metering_storageusagerecord", "", _OF_A_LIFE, STORAGE_COLUMNS),
)


def usage_of_spans(spans: Sequence[tuple[UUID, Period]]) -> list[dict[Meter, int]]:
    """Return, in their order, what each account used in the windows that start in its span.

    In base units; meters without usage are left out.
    """
    usage: list[dict[Meter, int]] = [{} for _ in spans]
    for table, join, of, columns in _TABLES:
        for number, *sums in _rows(spans, _statement(table, join, of, columns.values())):
            used = usage[number - 1]
            used.update((m, int(s)) for m, s in zip(columns, sums, strict=True) if s)
    return usage


def usage_of_spans_by_sandbox(
    spans: Sequence[tuple[UUID, Period]],
) -> list[dict[str, dict[Meter, int]]]:
    """Return what `usage_of_spans` does by sandbox id; of each span it adds up to that."""
    usage: list[dict[str, dict[Meter, int]]] = [{} for _ in spans]
    for table, join, of, columns in _TABLES:
        statement = _statement(table, join, of, columns.values(), by="sandbox.sandbox_id")
        for number, sandbox_id, *sums in _rows(spans, statement):
            if used := {m: int(s) for m, s in zip(columns, sums, strict=True) if s}:
                usage[number - 1].setdefault(sandbox_id, {}).update(used)
    return usage


def running_of_spans(spans: Sequence[tuple[UUID, Period]]) -> list[tuple[int, int]]:
    """Return for each span how long the account's sandboxes ran and were measured, in ms."""
    running = [(0, 0)] * len(spans)
    columns = ("running_ms", "measured_ms")
    for number, *sums in _rows(spans, _statement("metering_usagerecord", "", _OF_A_LIFE, columns)):
        ran, measured = sums
        running[number - 1] = int(ran), int(measured)
    return running


def _rows(spans: Sequence[tuple[UUID, Period]], statement: str) -> list[tuple[Any, ...]]:
    if not spans:
        return []
    bounds = bounds_of(spans)
    with connection.cursor() as cursor:
        cursor.execute(statement, bounds)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


def bounds_of(spans: Sequence[tuple[UUID, Period]]) -> dict[str, Any]:
    """Return what a statement over spans of accounts is told, one span or more."""
    return {
        "accounts": [account_id for account_id, _ in spans],
        "starts": [period.start for _, period in spans],
        "ends": [period.end for _, period in spans],
        # Months outside of these are not looked at; the spans' own bounds come too late for that.
        "first": min(period.start for _, period in spans),
        "last": max(period.end for _, period in spans),
    }


def _statement(table: str, join: str, of: str, columns: Iterable[str], *, by: str = "") -> str:
    sums = ", ".join(f"sum(record.{column})" for column in columns)
    keys = f"span.number, {by}" if by else "span.number"
    return f"""
        SELECT {keys}, {sums}
          FROM unnest(%(accounts)s::uuid[], %(starts)s::timestamptz[], %(ends)s::timestamptz[])
               WITH ORDINALITY AS span(account_id, span_start, span_end, number)
          JOIN metering_sandbox sandbox ON sandbox.account_id = span.account_id
          {LIVES} {join}
          JOIN {table} record ON {of}
               AND record.window_start >= span.span_start AND record.window_start < span.span_end
               AND record.window_start >= %(first)s AND record.window_start < %(last)s
         GROUP BY {keys}
    """  # noqa: S608 - only names of our own tables and columns
