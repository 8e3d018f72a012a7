"""What usage rests on: for each life, the counters it was measured between and its samples.

Usage records are dropped after their retention. Whoever has to show them for longer keeps these.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection

from metering.meters import Meter
from metering.period import Period
from metering.totals import LIFE_COLUMNS, NETWORK_COLUMNS, STORAGE_COLUMNS, bounds_of


@dataclass(frozen=True, slots=True)
class LifeEvidence:
    """What one life used of one meter in a span, in base units, and what that rests on.

    `record_count` records, of the windows from `first_window` to `last_window`. `opening` and
    `closing` are the counter before the first and after the last of them, over all interfaces;
    None for what is no counter. `quantity` is their difference, but where the counter was reset.
    `applied_ms` is the time in which the meter applied, of which `measured_ms` were measured;
    0 for network, whose records have no time of their own. `records_hash` is SHA-256 over the
    records, in hexadecimal, by `_HASHED`.
    """

    sandbox_id: str
    life_id: int
    container_id: str
    started_at: datetime
    record_count: int
    first_window: datetime
    last_window: datetime
    sample_count: int
    quantity: int
    opening: int | None
    closing: int | None
    applied_ms: int
    measured_ms: int
    records_hash: str


# The meters whose quantity is the growth of a counter, and the counter.
_COUNTERS = {
    Meter.CPU: "cpu_ns",
    Meter.DISK_READ: "disk_read_bytes",
    Meter.DISK_WRITE: "disk_write_bytes",
    Meter.NETWORK_EGRESS: "tx_bytes",
    Meter.NETWORK_INGRESS: "rx_bytes",
}
_SPANS = """
    unnest(%(accounts)s::uuid[], %(starts)s::timestamptz[], %(ends)s::timestamptz[])
    WITH ORDINALITY AS span(account_id, span_start, span_end, number)
    JOIN metering_sandbox sandbox ON sandbox.account_id = span.account_id
    JOIN metering_life life ON life.sandbox_id = sandbox.id
"""
_IN_SPAN = """
    record.window_start >= span.span_start AND record.window_start < span.span_end
    AND record.window_start >= %(first)s AND record.window_start < %(last)s
"""
_LIFE = "life.id, sandbox.sandbox_id, life.container_id, life.started_at"
_RECORDS = "count(*), min(record.window_start), max(record.window_start), sum(record.sample_count)"
_HASHED = """
    encode(sha256(convert_to(string_agg(
        concat_ws(' ', extract(epoch FROM record.window_start)::bigint, {columns}),
        E'\\n' ORDER BY record.window_start), 'UTF8')), 'hex')
"""
_HASH_OF_HASHES = (
    "encode(sha256(convert_to(string_agg(hash, E'\\n' ORDER BY name), 'UTF8')), 'hex')"
)


def evidence_of_spans(
    spans: Sequence[tuple[UUID, Period]],
) -> list[Mapping[Meter, list[LifeEvidence]]]:
    """Return, in their order, what each account's usage in the windows of its span rests on.

    By meter, a row for each life that used something of it, by sandbox and start. The quantities
    sum to what `totals.usage_of_spans` returns.
    """
    found: list[dict[Meter, list[LifeEvidence]]] = [defaultdict(list) for _ in spans]
    if spans:
        bounds = bounds_of(spans)
        with connection.cursor() as cursor:
            for statement, meters in _STATEMENTS:
                cursor.execute(statement, bounds)
                for number, *row in cursor.fetchall():
                    for meter, evidence in _by_meter(row, meters):
                        found[number - 1][meter].append(evidence)
    return list(found)


def _by_meter(row: Sequence[Any], meters: Sequence[Meter]) -> Iterator[tuple[Meter, LifeEvidence]]:
    life_id, sandbox_id, container_id, started_at, count, first, last, samples = row[:8]
    applied, measured, records_hash = row[8:11]
    for position, meter in enumerate(meters):
        quantity, opening, closing = row[11 + 3 * position : 14 + 3 * position]
        if quantity:
            yield (
                meter,
                LifeEvidence(
                    sandbox_id=sandbox_id,
                    life_id=life_id,
                    container_id=container_id,
                    started_at=started_at,
                    record_count=int(count),
                    first_window=first,
                    last_window=last,
                    sample_count=int(samples),
                    quantity=int(quantity),
                    opening=None if opening is None else int(opening),
                    closing=None if closing is None else int(closing),
                    applied_ms=int(applied),
                    measured_ms=int(measured),
                    records_hash=records_hash,
                ),
            )


def _sums(meter: Meter, column: str) -> str:
    counter = _COUNTERS.get(meter)
    if counter is None:
        return f"sum(record.{column}), NULL, NULL"
    first = f"(array_agg(record.opening_{counter} ORDER BY record.window_start))[1]"
    last = f"(array_agg(record.closing_{counter} ORDER BY record.window_start))[count(*)]"
    return f"sum(record.{column}), {first}, {last}"


def _hashed(columns: Mapping[Meter, str]) -> str:
    counters = [_COUNTERS[meter] for meter in columns if meter in _COUNTERS]
    names = [
        *columns.values(),
        *(f"{end}_{counter}" for counter in counters for end in ("opening", "closing")),
        "sample_count",
    ]
    return _HASHED.format(columns=", ".join(f"record.{name}" for name in names))


def _of_lives(table: str, applied: str, columns: Mapping[Meter, str]) -> str:
    sums = ", ".join(_sums(meter, column) for meter, column in columns.items())
    return f"""
        SELECT span.number, {_LIFE}, {_RECORDS},
               sum(record.{applied}), sum(record.measured_ms), {_hashed(columns)}, {sums}
          FROM {_SPANS}
          JOIN {table} record ON record.life_id = life.id AND {_IN_SPAN}
         GROUP BY span.number, {_LIFE}
         ORDER BY span.number, sandbox.sandbox_id, life.started_at, life.id
    """  # noqa: S608 - only names of our own tables and columns


def _of_interfaces(table: str, columns: Mapping[Meter, str]) -> str:
    """Return the statement that sums each interface's records first, for its own two ends."""
    named = {meter: f"m{number}" for number, meter in enumerate(columns)}
    inner = ", ".join(
        f"sum(record.{column}) AS {named[meter]}, "
        f"(array_agg(record.opening_{column} ORDER BY record.window_start))[1] AS {named[meter]}o, "
        f"(array_agg(record.closing_{column} ORDER BY record.window_start))[count(*)] "
        f"AS {named[meter]}c"
        for meter, column in columns.items()
    )
    outer = ", ".join(f"sum({name}), sum({name}o), sum({name}c)" for name in named.values())
    return f"""
        SELECT number, id, sandbox_id, container_id, started_at,
               sum(records), min(first_window), max(last_window), sum(samples),
               0, 0, {_HASH_OF_HASHES}, {outer}
          FROM (
            SELECT span.number, {_LIFE}, interface.name, count(*) AS records,
                   min(record.window_start) AS first_window,
                   max(record.window_start) AS last_window,
                   sum(record.sample_count) AS samples, {_hashed(columns)} AS hash, {inner}
              FROM {_SPANS}
              JOIN metering_interfacereading interface ON interface.life_id = life.id
              JOIN {table} record ON record.interface_id = interface.interface AND {_IN_SPAN}
             GROUP BY span.number, {_LIFE}, interface.name
          ) of_interface
         GROUP BY number, id, sandbox_id, container_id, started_at
         ORDER BY number, sandbox_id, started_at, id
    """  # noqa: S608 - only names of our own tables and columns


_STATEMENTS: tuple[tuple[str, tuple[Meter, ...]], ...] = (
    (_of_lives("metering_usagerecord", "running_ms", LIFE_COLUMNS), tuple(LIFE_COLUMNS)),
    (_of_interfaces("metering_networkusagerecord", NETWORK_COLUMNS), tuple(NETWORK_COLUMNS)),
    (
        _of_lives("metering_storageusagerecord", "existing_ms", STORAGE_COLUMNS),
        tuple(STORAGE_COLUMNS),
    ),
)
