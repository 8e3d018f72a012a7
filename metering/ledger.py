"""What a fold reads and writes in PostgreSQL, as whole arrays, inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from django.db import connection
from django.db.backends.utils import CursorWrapper

from metering.copying import copy_rows, fetch_rows, timestamps
from metering.models import CounterReset, Gap, InterfaceReading
from metering.period import from_ms
from metering.readings import (
    INTERFACE_COUNTERS,
    INTERFACE_READING,
    LIFE_COUNTERS,
    LIFE_READING,
    NEVER,
    Fold,
)
from metering.samples import Records
from metering.steps import Bools, Ints

NOT_FROZEN = 0
ROWS_AN_INSERT = 2000


@dataclass(frozen=True, slots=True)
class _Table:
    """How rows of a fold are added to those of a table.

    `added` columns are summed, `closing` ones replaced, `opening` ones kept; `billed` are the
    quantities that a frozen window hands on as late usage.
    """

    name: str
    key: str
    series: str
    added: tuple[str, ...]
    closing: tuple[str, ...]
    opening: tuple[str, ...]
    billed: tuple[str, ...]
    times: tuple[str, ...] = ()


_USAGE = _Table(
    name="metering_usagerecord",
    key="life_id",
    series="life",
    added=(
        *LIFE_COUNTERS,
        "memory_byte_ms",
        "running_ms",
        "measured_ms",
        "sample_count",
    ),
    closing=tuple(f"closing_{name}" for name in LIFE_COUNTERS),
    opening=tuple(f"opening_{name}" for name in LIFE_COUNTERS),
    billed=(*LIFE_COUNTERS, "memory_byte_ms"),
    times=("first_sample_at", "last_sample_at"),
)
_NETWORK = _Table(
    name="metering_networkusagerecord",
    key="interface_id",
    series="interface",
    added=(*INTERFACE_COUNTERS, "sample_count"),
    closing=tuple(f"closing_{name}" for name in INTERFACE_COUNTERS),
    opening=tuple(f"opening_{name}" for name in INTERFACE_COUNTERS),
    billed=tuple(INTERFACE_COUNTERS),
)


@dataclass(frozen=True, slots=True)
class Lives:
    """Lives as they stand, sorted by number, and up to when each one's account is frozen."""

    readings: Records
    frozen_until_ms: Ints


def load_lives(ids: Ints) -> Lives:
    """Return the lives of these numbers that are recorded, their accounts locked for sharing.

    A freeze waits for the lock, and growth that comes after it sees the frozen time.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT account_id FROM metering_accountregistration
            WHERE account_id IN (
                SELECT sandbox.account_id FROM metering_life life
                JOIN metering_sandbox sandbox ON sandbox.id = life.sandbox_id
                WHERE life.id = ANY(%s))
            ORDER BY account_id FOR SHARE
            """,
            [ids.tolist()],
        )
    columns = [name for name in LIFE_READING.names or () if name != "life"]
    dtype = np.dtype([(name, "<i8") for name in ("life", *columns, "frozen_until_ms")])
    rows = fetch_rows(
        f"""
        SELECT reading.life_id, {", ".join("reading." + name for name in columns)},
            COALESCE((EXTRACT(epoch FROM account.frozen_until) * 1000)::bigint, {NOT_FROZEN})
        FROM metering_lifereading reading
        JOIN metering_life life ON life.id = reading.life_id
        JOIN metering_sandbox sandbox ON sandbox.id = life.sandbox_id
        JOIN metering_accountregistration account ON account.account_id = sandbox.account_id
        WHERE reading.life_id = ANY(%s)
        ORDER BY reading.life_id
        """,  # noqa: S608 - column names from the dtype above, no input
        [ids.tolist()],
        dtype,
    )
    readings = np.empty(len(rows), LIFE_READING)
    for name in LIFE_READING.names or ():
        readings[name] = rows[name]
    return Lives(readings, rows["frozen_until_ms"])


def load_interfaces(ids: Ints) -> Records:
    """Return the interfaces of these numbers that are recorded, sorted by number."""
    columns = ", ".join(
        "life_id" if name == "life" else name for name in INTERFACE_READING.names or ()
    )
    return fetch_rows(
        f"SELECT {columns} FROM metering_interfacereading "  # noqa: S608 - as above
        "WHERE interface = ANY(%s) ORDER BY interface",
        [ids.tolist()],
        INTERFACE_READING,
    )


def record_interfaces(readings: Records, names: Sequence[str]) -> None:
    """Record interfaces that were not met before, with their names."""
    columns = readings.dtype.names or ()
    rows = []
    for reading, name in zip(readings.tolist(), names, strict=True):
        values = dict(zip(columns, reading, strict=True))
        rows.append(InterfaceReading(life_id=values.pop("life"), name=name, **values))
    InterfaceReading.objects.bulk_create(rows, batch_size=ROWS_AN_INSERT)


def save(lives: Lives, fold: Fold, network: Fold, *, now: datetime) -> None:
    """Add the folds to the usage records, and move every reading to where they end."""
    frozen = dict(zip(lives.readings["life"].tolist(), lives.frozen_until_ms.tolist(), strict=True))
    names = dict(
        InterfaceReading.objects.filter(pk__in=network.readings["interface"].tolist()).values_list(
            "pk", "name"
        )
    )
    owners = {int(row["interface"]): int(row["life"]) for row in network.readings}

    is_late = _late(fold.usage, fold.usage["life"].tolist(), frozen)
    _add(_USAGE, fold.usage[~is_late])
    late = [(int(row["life"]), "", row, _USAGE) for row in fold.usage[is_late]]
    is_late = _late(
        network.usage, [owners[key] for key in network.usage["interface"].tolist()], frozen
    )
    _add(_NETWORK, network.usage[~is_late])
    late += [
        (owners[int(row["interface"])], names[int(row["interface"])], row, _NETWORK)
        for row in network.usage[is_late]
    ]
    _add_late(late, now)

    _replace("metering_lifereading", "life", "life_id", fold.readings)
    _replace("metering_interfacereading", "interface", "interface", network.readings)
    _record_evidence(fold, network, now)


def _late(usage: Records, lives: list[int], frozen: Mapping[int, int]) -> Bools:
    until_ms = np.array([frozen[life] for life in lives], np.int64)
    late: Bools = usage["window_ms"] < until_ms
    return late


def _add(table: _Table, usage: Records) -> None:
    """Add rows to a table of usage: summed where the window has a row, else new."""
    if not len(usage):
        return
    integers = (*table.added, *table.opening, *table.closing)
    fields = (table.key, "window_start", *integers, *table.times)
    rows = np.empty(len(usage), np.dtype([(name, "<i8") for name in fields]))
    rows[table.key] = usage[table.series]
    rows["window_start"] = timestamps(usage["window_ms"], never=NEVER)
    for name in integers:
        rows[name] = usage[name]
    for name in table.times:
        rows[name] = timestamps(usage[name.replace("_at", "_ms")], never=NEVER)

    updates = [f"{name} = kept.{name} + EXCLUDED.{name}" for name in table.added]
    updates += [f"{name} = EXCLUDED.{name}" for name in table.closing]
    if table.times:
        first, last = table.times
        updates += [
            f"{first} = COALESCE(kept.{first}, EXCLUDED.{first})",
            f"{last} = COALESCE(EXCLUDED.{last}, kept.{last})",
        ]
    selected = [f"NULLIF({name}, '-infinity')" if name in table.times else name for name in fields]
    with connection.cursor() as cursor:
        fresh = _fresh_table(cursor, table.name)
        copy_rows(fresh, rows)
        cursor.execute(
            f"INSERT INTO {table.name} AS kept ({', '.join(fields)}) "  # noqa: S608 - names above
            f"SELECT {', '.join(selected)} FROM {fresh} "
            f"ON CONFLICT ({table.key}, window_start) DO UPDATE SET {', '.join(updates)}"
        )


def _replace(table: str, field: str, key: str, readings: Records) -> None:
    """Move readings that are recorded already to their new place."""
    if not len(readings):
        return
    columns = [name for name in readings.dtype.names or () if name not in {field, "life"}]
    rows = np.empty(len(readings), np.dtype([(name, "<i8") for name in (key, *columns)]))
    rows[key] = readings[field]
    for name in columns:
        rows[name] = readings[name]
    with connection.cursor() as cursor:
        fresh = _fresh_table(cursor, table)
        copy_rows(fresh, rows)
        cursor.execute(
            f"UPDATE {table} AS kept SET "  # noqa: S608 - names of our own columns
            f"{', '.join(f'{name} = fresh.{name}' for name in columns)} "
            f"FROM {fresh} AS fresh WHERE kept.{key} = fresh.{key}"
        )


def _fresh_table(cursor: CursorWrapper, table: str) -> str:
    """Return the name of an empty table like `table`, without its rules, for this transaction."""
    name = f"fresh_{table}"
    cursor.execute(
        f"CREATE TEMPORARY TABLE IF NOT EXISTS {name} "  # noqa: S608 - names of our own tables
        f"AS SELECT * FROM {table} WITH NO DATA"
    )
    cursor.execute(f"TRUNCATE {name}")
    return name


def _add_late(rows: list[tuple[int, str, np.void, _Table]], now: datetime) -> None:
    """Add growth in frozen windows to what is late already."""
    late = [
        (life, interface, quantity, from_ms(int(row["window_ms"])), int(row[quantity]), now)
        for life, interface, row, table in rows
        for quantity in table.billed
        if row[quantity]
    ]
    with connection.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO metering_lateusage AS kept
                (life_id, interface, quantity_name, window_start, quantity, recorded_at)
            VALUES (%s, %s, %s, %s, %s, %s)
            ON CONFLICT (life_id, interface, quantity_name, window_start)
            DO UPDATE SET quantity = kept.quantity + EXCLUDED.quantity,
                recorded_at = EXCLUDED.recorded_at
            """,
            late,
        )


def _record_evidence(fold: Fold, network: Fold, now: datetime) -> None:
    Gap.objects.bulk_create(
        [
            Gap(
                life_id=gap.life,
                meter=gap.meter,
                start=from_ms(gap.start_ms),
                end=from_ms(gap.end_ms),
                reason=gap.reason,
                recorded_at=now,
            )
            for gap in (*fold.gaps, *network.gaps)
        ],
        ignore_conflicts=True,
    )
    CounterReset.objects.bulk_create(
        [
            CounterReset(
                life_id=reset.life,
                series=reset.series,
                counter=reset.counter,
                at=from_ms(reset.at_ms),
                before=reset.before,
                after=reset.after,
            )
            for reset in (*fold.resets, *network.resets)
        ]
    )
