"""What is recorded of the series a backfill recomputes, read inside its transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from django.db import connection

from metering import ledger
from metering.backfill.series import INTERFACES, LIVES, STORAGE, Kind
from metering.copying import fetch_rows
from metering.ledger import Table
from metering.period import from_ms
from metering.readings import NETWORK_USAGE, NEVER, STORAGE_USAGE, USAGE, Gap, Reset
from metering.samples import Records, interface_id
from metering.steps import Ints

TABLES: Mapping[str, Table] = {
    LIVES.name: ledger.USAGE,
    INTERFACES.name: ledger.NETWORK,
    STORAGE.name: ledger.STORAGE,
}
USAGE_ROWS: Mapping[str, np.dtype[np.void]] = {
    LIVES.name: USAGE,
    INTERFACES.name: NETWORK_USAGE,
    STORAGE.name: STORAGE_USAGE,
}
# The quantities of late usage that are of each kind.
LATE_KINDS = {name: kind for kind, table in TABLES.items() for name in table.late}


@dataclass(slots=True)
class Recorded:
    """Records, late usage, falls and gaps of lives, from the start of a range on.

    Records are those in the range; of what is after it only how much counters grew, `beyond`.
    Late usage is by kind, series, window and quantity.
    """

    usage: dict[str, Records] = field(default_factory=dict)
    beyond: dict[str, dict[int, dict[str, int]]] = field(default_factory=dict)
    earlier: dict[str, set[int]] = field(default_factory=dict)
    late: dict[str, dict[int, dict[int, dict[str, int]]]] = field(default_factory=dict)
    resets: dict[int, list[Reset]] = field(default_factory=lambda: defaultdict(list))
    gaps: dict[int, list[Gap]] = field(default_factory=lambda: defaultdict(list))

    def of(self, kind: Kind, number: int) -> Records:
        """Return the records of one series, in order."""
        rows = self.usage[kind.name]
        low, high = np.searchsorted(rows[kind.key], [number, number + 1])
        found: Records = rows[low:high]
        return found

    def growth(self, kind: Kind, number: int) -> dict[int, dict[str, int]]:
        """Return what the counters of a series grew by in each window, late usage included."""
        growth = {
            int(row["window_ms"]): {name: int(row[name]) for name in kind.counters}
            for row in self.of(kind, number)
        }
        for window, quantities in self.late[kind.name].get(number, {}).items():
            grown = growth.setdefault(window, dict.fromkeys(kind.counters, 0))
            for name in kind.counters:
                grown[name] += quantities.get(name, 0)
        return growth


def load(lives: Ints, interfaces: Ints, *, start_ms: int, end_ms: int) -> Recorded:
    """Return what is recorded of these lives and interfaces from `start_ms` on."""
    recorded = Recorded()
    numbers = {LIVES.name: lives, INTERFACES.name: interfaces, STORAGE.name: lives}
    late_earlier = _load_late(recorded, lives, start_ms)
    for kind in (LIVES, INTERFACES, STORAGE):
        ids = numbers[kind.name].tolist()
        recorded.usage[kind.name] = _load_usage(kind, ids, start_ms, end_ms)
        recorded.beyond[kind.name] = _grown_after(kind, ids, end_ms)
        recorded.earlier[kind.name] = _with_earlier(kind, ids, start_ms) | late_earlier
    _load_resets(recorded, lives, start_ms)
    _load_gaps(recorded, lives, start_ms)
    return recorded


def _load_usage(kind: Kind, ids: list[int], start_ms: int, end_ms: int) -> Records:
    table, dtype = TABLES[kind.name], USAGE_ROWS[kind.name]
    columns = [_column(name, table.key) for name in dtype.names or ()]
    return fetch_rows(
        f"SELECT {', '.join(columns)} FROM {table.name} "  # noqa: S608 - names of our own
        f"WHERE {table.key} = ANY(%s) AND window_start >= %s AND window_start < %s "
        f"ORDER BY {table.key}, window_start",
        [ids, from_ms(start_ms), from_ms(end_ms)],
        dtype,
    )


def _column(name: str, key: str) -> str:
    if name in {"life", "interface"}:
        return key
    if name == "window_ms":
        return "(EXTRACT(epoch FROM window_start) * 1000)::bigint"
    if name in {"first_sample_ms", "last_sample_ms"}:
        column = name.replace("_ms", "_at")
        return f"COALESCE((EXTRACT(epoch FROM {column}) * 1000)::bigint, {NEVER})"
    return name


def _grown_after(kind: Kind, ids: list[int], end_ms: int) -> dict[int, dict[str, int]]:
    if not (kind.counters and ids):
        return {}
    table = TABLES[kind.name]
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {table.key}, {', '.join(f'SUM({name})' for name in kind.counters)} "  # noqa: S608
            f"FROM {table.name} WHERE {table.key} = ANY(%s) AND window_start >= %s "
            f"GROUP BY {table.key}",
            [ids, from_ms(end_ms)],
        )
        return {
            row[0]: {name: int(total) for name, total in zip(kind.counters, row[1:], strict=True)}
            for row in cursor.fetchall()
        }


def _with_earlier(kind: Kind, ids: list[int], start_ms: int) -> set[int]:
    table = TABLES[kind.name]
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT number FROM unnest(%s::bigint[]) number WHERE EXISTS ("  # noqa: S608
            f"SELECT FROM {table.name} WHERE {table.key} = number AND window_start < %s)",
            [ids, from_ms(start_ms)],
        )
        return {number for (number,) in cursor.fetchall()}


def _load_late(recorded: Recorded, lives: Ints, start_ms: int) -> set[int]:
    """Load late usage; return the series that have some before `start_ms`."""
    for kind in TABLES:
        recorded.late[kind] = {}
    earlier = set()
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT life_id, interface, quantity_name,
                (EXTRACT(epoch FROM window_start) * 1000)::bigint, quantity
            FROM metering_lateusage WHERE life_id = ANY(%s)
            """,
            [lives.tolist()],
        )
        for life, interface, name, window_ms, quantity in cursor.fetchall():
            number = interface_id(life, interface) if interface else life
            if window_ms < start_ms:
                earlier.add(number)
                continue
            by_window = recorded.late[LATE_KINDS[name]].setdefault(number, {})
            by_window.setdefault(window_ms, {})[name] = int(quantity)
    return earlier


def _load_resets(recorded: Recorded, lives: Ints, start_ms: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT life_id, series, counter, (EXTRACT(epoch FROM at) * 1000)::bigint, before, after
            FROM metering_counterreset WHERE life_id = ANY(%s) AND at > %s ORDER BY at
            """,
            [lives.tolist(), from_ms(start_ms)],
        )
        for life, series, counter, at_ms, before, after in cursor.fetchall():
            recorded.resets[series].append(
                Reset(life, series, counter, NEVER, at_ms, before, after)
            )


def _load_gaps(recorded: Recorded, lives: Ints, start_ms: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT life_id, meter, (EXTRACT(epoch FROM start) * 1000)::bigint,
                (EXTRACT(epoch FROM "end") * 1000)::bigint, reason
            FROM metering_gap WHERE life_id = ANY(%s) AND "end" > %s ORDER BY start
            """,
            [lives.tolist(), from_ms(start_ms)],
        )
        for gap in cursor.fetchall():
            recorded.gaps[gap[0]].append(Gap(*gap))


def totals(
    lives: Sequence[int], lows_ms: Sequence[int], until_ms: int
) -> dict[int, dict[str, int]]:
    """Return what each life used, late usage included, from its low to before `until_ms`.

    By quantity as a usage record names it; storage's measured time is `storage_measured_ms`.
    """
    used: dict[int, dict[str, int]] = {life: defaultdict(int) for life in lives}
    with connection.cursor() as cursor:
        for kind in (LIVES, INTERFACES, STORAGE):
            table = TABLES[kind.name]
            columns = [ledger.LATE_COLUMNS.get(name, name) for name in table.late]
            owned = (
                "JOIN metering_interfacereading reading ON reading.life_id = low.life "
                "JOIN metering_networkusagerecord usage ON usage.interface_id = reading.interface"
                if kind is INTERFACES
                else f"JOIN {table.name} usage ON usage.life_id = low.life"
            )
            cursor.execute(
                f"SELECT low.life, {', '.join(f'SUM(usage.{name})' for name in columns)} "  # noqa: S608
                "FROM unnest(%s::bigint[], %s::bigint[]) low(life, low_ms) "
                f"{owned} AND usage.window_start >= to_timestamp(low.low_ms / 1000.0) "
                "AND usage.window_start < %s GROUP BY low.life",
                [list(lives), list(lows_ms), from_ms(until_ms)],
            )
            for life, *sums in cursor.fetchall():
                for name, total in zip(table.late, sums, strict=True):
                    used[life][name] += int(total)
        cursor.execute(
            """
            SELECT low.life, late.quantity_name, SUM(late.quantity)
            FROM unnest(%s::bigint[], %s::bigint[]) low(life, low_ms)
            JOIN metering_lateusage late ON late.life_id = low.life
                AND late.window_start >= to_timestamp(low.low_ms / 1000.0)
                AND late.window_start < %s
            GROUP BY low.life, late.quantity_name
            """,
            [list(lives), list(lows_ms), from_ms(until_ms)],
        )
        for life, name, total in cursor.fetchall():
            used[life][name] += int(total)
    return used
