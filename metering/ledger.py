"""What a fold reads and writes in PostgreSQL, as whole arrays, inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import numpy as np
from django.db import connection
from django.db.backends.utils import CursorWrapper

from metering.copying import bigints, copy_rows, fetch_rows, timestamps
from metering.period import from_ms
from metering.readings import (
    INTERFACE_COUNTERS,
    INTERFACE_READING,
    LIFE_COUNTERS,
    LIFE_READING,
    NEVER,
    STORAGE_READING,
    Gap,
    Reset,
)
from metering.samples import Records
from metering.steps import Bools, Ints
from metering.summaries import touch_days
from metering.tally import Tally

NOT_FROZEN = 0

# Up to when a life's account is frozen, from when the life counts, or NEVER: from its first sample,
# and the number by which a monitor is told of the account; 0: it is not.
_OWNER = np.dtype(
    [("life", "<i8"), ("frozen_until_ms", "<i8"), ("from_ms", "<i8"), ("told_number", "<i8")]
)


@dataclass(frozen=True, slots=True)
class Table:
    """How rows of a fold are added to those of a table.

    `added` columns are summed, `closing` ones replaced, `opening` ones kept; `late` are the
    quantities that a frozen window hands on as late usage.
    """

    name: str
    key: str
    series: str
    added: tuple[str, ...]
    late: tuple[str, ...]
    closing: tuple[str, ...] = ()
    opening: tuple[str, ...] = ()
    times: tuple[str, ...] = ()


_LIFE_QUANTITIES = (
    *LIFE_COUNTERS,
    "memory_byte_ms",
    "cpu_allocated_ns",
    "memory_allocated_byte_ms",
    "gpu_ms",
    "running_ms",
    "measured_ms",
)
USAGE = Table(
    name="metering_usagerecord",
    key="life_id",
    series="life",
    added=(*_LIFE_QUANTITIES, "sample_count"),
    late=_LIFE_QUANTITIES,
    closing=tuple(f"closing_{name}" for name in LIFE_COUNTERS),
    opening=tuple(f"opening_{name}" for name in LIFE_COUNTERS),
    times=("first_sample_at", "last_sample_at"),
)
NETWORK = Table(
    name="metering_networkusagerecord",
    key="interface_id",
    series="interface",
    added=(*INTERFACE_COUNTERS, "sample_count"),
    late=tuple(INTERFACE_COUNTERS),
    closing=tuple(f"closing_{name}" for name in INTERFACE_COUNTERS),
    opening=tuple(f"opening_{name}" for name in INTERFACE_COUNTERS),
)
STORAGE = Table(
    name="metering_storageusagerecord",
    key="life_id",
    series="life",
    added=("storage_byte_ms", "existing_ms", "measured_ms", "sample_count"),
    late=("storage_byte_ms", "existing_ms", "storage_measured_ms"),
)
# Late usage names a quantity apart from its table; this one would be two.
LATE_COLUMNS = {"storage_measured_ms": "measured_ms"}


@dataclass(slots=True)
class Book:
    """Everything a run of folds goes on from and adds up, from one commit to the next."""

    host_id: UUID
    lives: Tally = field(default_factory=lambda: Tally("life", np.empty(0, LIFE_READING)))
    interfaces: Tally = field(
        default_factory=lambda: Tally("interface", np.empty(0, INTERFACE_READING))
    )
    storage: Tally = field(default_factory=lambda: Tally("life", np.empty(0, STORAGE_READING)))
    # Sorted by life, as long as the readings of the lives.
    owners: Records = field(default_factory=lambda: np.empty(0, _OWNER))
    new_interfaces: list[tuple[int, str]] = field(default_factory=list)
    new_storage: list[int] = field(default_factory=list)

    def meet_lives(self, ids: Ints) -> None:
        """Load the lives among `ids` that are recorded on the host and were not met before.

        Their accounts are locked for sharing: a freeze waits, and growth that comes after it
        sees the frozen time.
        """
        if len(ids := ids[~self.lives.has(ids)]):
            readings, owners = _load_lives(self.host_id, ids)
            self.lives.learn(readings)
            owners = np.concatenate([self.owners, owners])
            self.owners = owners[np.argsort(owners["life"], kind="stable")]

    def owner_of(self, lives: Ints) -> Records:
        """Return what is known of the owners of lives, a row for each."""
        found: Records = self.owners[np.searchsorted(self.owners["life"], lives)]
        return found


def _load_lives(host_id: UUID, ids: Ints) -> tuple[Records, Records]:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT account_id FROM metering_accountregistration
            WHERE account_id IN (
                SELECT sandbox.account_id FROM metering_life life
                JOIN metering_sandbox sandbox ON sandbox.id = life.sandbox_id
                WHERE life.id = ANY(%s::bigint[]))
            ORDER BY account_id FOR SHARE
            """,
            [bigints(ids)],
        )
    columns = [name for name in LIFE_READING.names or () if name != "life"]
    owner = [name for name in _OWNER.names or () if name != "life"]
    dtype = np.dtype([(name, "<i8") for name in ("life", *columns, *owner)])
    rows = fetch_rows(
        f"""
        SELECT reading.life_id, {", ".join("reading." + name for name in columns)},
            COALESCE((EXTRACT(epoch FROM account.frozen_until) * 1000)::bigint, {NOT_FROZEN}),
            CASE WHEN life.counts_from_zero THEN life.started_ns / 1000000 ELSE {NEVER} END,
            COALESCE(told.number, 0)::bigint
        FROM metering_lifereading reading
        JOIN metering_life life ON life.id = reading.life_id
        JOIN metering_sandbox sandbox ON sandbox.id = life.sandbox_id
        JOIN metering_accountregistration account ON account.account_id = sandbox.account_id
        LEFT JOIN metering_toldaccount told ON told.account_id = account.account_id
        WHERE reading.life_id = ANY(%s::bigint[]) AND life.host_id = %s
        ORDER BY reading.life_id
        """,  # noqa: S608 - column names from the dtypes above, no input
        [bigints(ids), host_id],
        dtype,
    )
    return _fields(rows, LIFE_READING), _fields(rows, _OWNER)


def _fields(rows: Records, dtype: np.dtype[np.void]) -> Records:
    taken = np.empty(len(rows), dtype)
    for name in dtype.names or ():
        taken[name] = rows[name]
    return taken


def load_interfaces(ids: Ints) -> Records:
    """Return the interfaces of these numbers that are recorded, sorted by number."""
    return _load("metering_interfacereading", "interface", ids, INTERFACE_READING)


def load_storage(lives: Ints) -> Records:
    """Return the storage readings that these lives have, sorted by life."""
    return _load("metering_storagereading", "life_id", lives, STORAGE_READING)


def _load(table: str, key: str, ids: Ints, dtype: np.dtype[np.void]) -> Records:
    columns = ", ".join("life_id" if name == "life" else name for name in dtype.names or ())
    return fetch_rows(
        f"SELECT {columns} FROM {table} WHERE {key} = ANY(%s::bigint[]) ORDER BY {key}",  # noqa: S608
        [bigints(ids)],
        dtype,
    )


def save(book: Book, *, now: datetime) -> None:
    """Add the folds to the usage records, and move every reading to where they end."""
    _insert_new_readings(book)
    lives, interfaces, storage = (
        tally.total() if tally.usage else None
        for tally in (book.lives, book.interfaces, book.storage)
    )
    late = []
    changed = [
        (usage["life"], usage["window_ms"]) for usage in (lives, storage) if usage is not None
    ]
    if lives is not None:
        late += _add_unless_frozen(USAGE, lives, lives["life"], book)
    if interfaces is not None:
        readings = book.interfaces.readings
        rows = np.searchsorted(readings["interface"], interfaces["interface"])
        changed.append((readings["life"][rows], interfaces["window_ms"]))
        late += _add_unless_frozen(NETWORK, interfaces, readings["life"][rows], book)
    if storage is not None:
        late += _add_unless_frozen(STORAGE, storage, storage["life"], book)
    _add_late(late, now)
    touch_days(changed, now=now)

    _replace("metering_lifereading", "life", "life_id", book.lives.readings)
    _replace("metering_interfacereading", "interface", "interface", book.interfaces.readings)
    _replace("metering_storagereading", "life", "life_id", book.storage.readings)
    tallies = (book.lives, book.interfaces, book.storage)
    _record_gaps([gap for tally in tallies for gap in tally.gaps], now)
    _record_resets([reset for tally in tallies for reset in tally.resets])


def _insert_new_readings(book: Book) -> None:
    """Record interfaces and storage met for the first time; their figures follow."""
    if book.new_interfaces:
        numbers, names = zip(*book.new_interfaces, strict=True)
        readings = book.interfaces.readings
        rows = readings[np.searchsorted(readings["interface"], numbers)]
        with connection.cursor() as cursor:
            cursor.execute(
                """
                INSERT INTO metering_interfacereading
                    (interface, life_id, name, read_ms, rx_bytes, base_rx_bytes, tx_bytes,
                    base_tx_bytes, known)
                SELECT interface, life, name, -1, 0, 0, 0, 0, 0
                FROM unnest(%s::bigint[], %s::bigint[], %s::text[]) new(interface, life, name)
                """,
                [list(numbers), rows["life"].tolist(), list(names)],
            )
    if book.new_storage:
        with connection.cursor() as cursor:
            cursor.execute(
                """
                INSERT INTO metering_storagereading
                    (life_id, read_ms, storage_bytes, storage_held_until_ms, is_gone,
                    out_of_order_count)
                SELECT life, -1, 0, -1, 0, 0 FROM unnest(%s::bigint[]) new(life)
                """,
                [book.new_storage],
            )


@dataclass(frozen=True, slots=True)
class _Late:
    """Growth in frozen windows: rows of a table's usage, and the life of each."""

    table: Table
    usage: Records
    lives: Ints


def _add_unless_frozen(table: Table, usage: Records, lives: Ints, book: Book) -> list[_Late]:
    """Add usage to its table but for what lies in frozen windows; return that."""
    is_late: Bools = usage["window_ms"] < book.owner_of(lives)["frozen_until_ms"]
    if not is_late.any():
        add(table, usage)
        return []
    add(table, usage[~is_late])
    return [_Late(table, usage[is_late], lives[is_late])]


def add(table: Table, usage: Records) -> None:
    """Add rows to a table of usage: summed where the window has a row, else new."""
    updates = [f"{name} = kept.{name} + EXCLUDED.{name}" for name in table.added]
    updates += [f"{name} = EXCLUDED.{name}" for name in table.closing]
    if table.times:
        first, last = table.times
        updates += [
            f"{first} = COALESCE(kept.{first}, EXCLUDED.{first})",
            f"{last} = COALESCE(EXCLUDED.{last}, kept.{last})",
        ]
    _upsert(table, usage, updates)


def replace(table: Table, usage: Records) -> None:
    """Put rows in a table of usage, in the place of those that the windows have."""
    columns = (*table.added, *table.opening, *table.closing, *table.times)
    _upsert(table, usage, [f"{name} = EXCLUDED.{name}" for name in columns])


def _upsert(table: Table, usage: Records, updates: Sequence[str]) -> None:
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
        f"CREATE TEMPORARY TABLE IF NOT EXISTS {name} ON COMMIT DELETE ROWS "  # noqa: S608
        f"AS SELECT * FROM {table} WITH NO DATA"
    )
    # A commit empties it, at no cost; a second use before that has to.
    cursor.execute(f"DELETE FROM {name}")  # noqa: S608 - names of our own tables
    return name


def _add_late(parts: Iterable[_Late], now: datetime) -> None:
    """Add growth in frozen windows to what is late already."""
    late = [
        (
            int(life),
            series,
            quantity,
            from_ms(int(row["window_ms"])),
            int(row[LATE_COLUMNS.get(quantity, quantity)]),
            now,
        )
        for part in parts
        for life, series, row in zip(part.lives, _names(part), part.usage, strict=True)
        for quantity in part.table.late
        if row[LATE_COLUMNS.get(quantity, quantity)]
    ]
    if not late:
        return
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


def _names(part: _Late) -> Sequence[str]:
    """Return the name of the interface that each row is of, empty where it is of none."""
    if part.table is not NETWORK:
        return [""] * len(part.usage)
    numbers = part.usage["interface"].tolist()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT interface, name FROM metering_interfacereading WHERE interface = ANY(%s)",
            [numbers],
        )
        names = dict(cursor.fetchall())
    return [names[number] for number in numbers]


def _record_gaps(gaps: Sequence[Gap], now: datetime) -> None:
    if not gaps:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO metering_gap (life_id, meter, start, "end", reason, recorded_at)
            SELECT life, meter, to_timestamp(start_ms / 1000.0), to_timestamp(end_ms / 1000.0),
                reason, %s
            FROM unnest(%s::bigint[], %s::text[], %s::bigint[], %s::bigint[], %s::text[])
                gap(life, meter, start_ms, end_ms, reason)
            ON CONFLICT DO NOTHING
            """,
            [
                now,
                [gap.life for gap in gaps],
                [gap.meter for gap in gaps],
                [gap.start_ms for gap in gaps],
                [gap.end_ms for gap in gaps],
                [gap.reason for gap in gaps],
            ],
        )


def _record_resets(resets: Sequence[Reset]) -> None:
    if not resets:
        return
    with connection.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO metering_counterreset (life_id, series, counter, at, before, after)
            VALUES (%s, %s, %s, %s, %s, %s)
            """,
            [
                (
                    reset.life,
                    reset.series,
                    reset.counter,
                    from_ms(reset.at_ms),
                    reset.before,
                    reset.after,
                )
                for reset in resets
            ],
        )
