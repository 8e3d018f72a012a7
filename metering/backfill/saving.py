"""Putting recomputed windows in the place of what is recorded, inside the caller's transaction.

A record of a frozen window stays as it is; what it is short of, or has too much of, is its late
usage, which is set and not added to: record + late is what is true.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from django.db import connection

from metering import ledger
from metering.backfill.gaps import replace_gaps
from metering.backfill.recorded import TABLES, USAGE_ROWS, Recorded
from metering.backfill.series import INTERFACES, Kind
from metering.backfill.stretches import Recomputed
from metering.period import from_ms
from metering.readings import Gap, Reset
from metering.samples import Records, interface_id
from metering.summaries import touch_days

_LateRow = tuple[int, str, str, int, int]


@dataclass(slots=True)
class Changes:
    """What recomputing a batch of lives comes to, gathered before it is written."""

    recorded: Recorded
    replaced: dict[str, list[Records]] = field(default_factory=dict)
    removed: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    late: list[_LateRow] = field(default_factory=list)
    gaps: dict[int, list[Gap]] = field(default_factory=dict)
    old_resets: list[Reset] = field(default_factory=list)
    new_resets: list[Reset] = field(default_factory=list)
    touched: list[tuple[int, int]] = field(default_factory=list)

    def take(
        self, kind: Kind, life: int, name: str, done: Recomputed, *, frozen_until_ms: int
    ) -> int:
        """Take in one series over one stretch; return by how many samples its records grow.

        `name` is the interface's, empty for the other kinds.
        """
        number = int(done.reading[kind.key][0])
        old = {
            int(row["window_ms"]): row
            for row in self.recorded.of(kind, number)
            if done.stretch.holds(int(row["window_ms"]))
        }
        new = {int(row["window_ms"]): row for row in done.usage}
        grown = 0
        changed = []
        for window in sorted(old.keys() | new.keys()):
            before, after = old.get(window), new.get(window)
            if window < frozen_until_ms:
                self._set_late(kind, life, name, window, (before, after))
                continue
            grown += _count(after) - _count(before)
            if after is None:
                self.removed.setdefault(kind.name, []).append((number, window))
            elif before is None or before != after:
                changed.append(after)
            if before is None or after is None or before != after:
                self.touched.append((life, window))
        if changed:
            self.replaced.setdefault(kind.name, []).append(np.array(changed, USAGE_ROWS[kind.name]))
        self._take_gaps_and_resets(kind, life, number, done)
        return grown

    def _set_late(
        self,
        kind: Kind,
        life: int,
        name: str,
        window: int,
        record_and_truth: tuple[np.void | None, np.void | None],
    ) -> None:
        record, truth = record_and_truth
        known = self.recorded.late[kind.name].get(_series(kind, life, name), {}).get(window, {})
        for quantity in TABLES[kind.name].late:
            column = ledger.LATE_COLUMNS.get(quantity, quantity)
            late = _figure(truth, column) - _figure(record, column)
            if late != known.get(quantity, 0):
                self.late.append((life, name, quantity, window, late))
                self.touched.append((life, window))

    def _take_gaps_and_resets(self, kind: Kind, life: int, number: int, done: Recomputed) -> None:
        stretch = done.stretch
        falls = [
            reset
            for reset in self.recorded.resets.get(number, [])
            if reset.counter in kind.counters and stretch.start_ms < reset.at_ms <= stretch.end_ms
        ]
        self.gaps[life] = replace_gaps(
            self.gaps.get(life, self.recorded.gaps.get(life, [])),
            kind,
            done,
            falls_ms={reset.at_ms for reset in falls},
        )
        self.old_resets += falls
        self.new_resets += done.resets


def _series(kind: Kind, life: int, name: str) -> int:
    return interface_id(life, name) if kind is INTERFACES else life


def _count(row: np.void | None) -> int:
    return 0 if row is None else int(row["sample_count"])


def _figure(row: np.void | None, column: str) -> int:
    return 0 if row is None else int(row[column])


def save(changes: Changes, *, now: datetime) -> None:
    """Write what differs from what is recorded."""
    for kind_name, table in TABLES.items():
        if rows := changes.replaced.get(kind_name):
            ledger.replace(table, np.concatenate(rows))
        if removed := changes.removed.get(kind_name):
            with connection.cursor() as cursor:
                cursor.executemany(
                    f"DELETE FROM {table.name} "  # noqa: S608 - names of our own tables
                    f"WHERE {table.key} = %s AND window_start = %s",
                    [(number, from_ms(window)) for number, window in removed],
                )
    _save_late(changes.late, now)
    for life, gaps in changes.gaps.items():
        _save_gaps(changes.recorded.gaps.get(life, []), gaps, now)
    _save_resets(changes.old_resets, changes.new_resets)
    if changes.touched:
        lives, windows = np.array(changes.touched, np.int64).T
        touch_days([(lives, windows)], now=now)


def _save_late(late: Iterable[_LateRow], now: datetime) -> None:
    rows = [
        (life, name, quantity, from_ms(window), amount, now)
        for life, name, quantity, window, amount in late
    ]
    with connection.cursor() as cursor:
        cursor.executemany(
            """
            DELETE FROM metering_lateusage WHERE life_id = %s AND interface = %s
                AND quantity_name = %s AND window_start = %s
            """,
            [row[:4] for row in rows if row[4] == 0],
        )
        cursor.executemany(
            """
            INSERT INTO metering_lateusage
                (life_id, interface, quantity_name, window_start, quantity, recorded_at)
            VALUES (%s, %s, %s, %s, %s, %s)
            ON CONFLICT (life_id, interface, quantity_name, window_start)
            DO UPDATE SET quantity = EXCLUDED.quantity, recorded_at = EXCLUDED.recorded_at
            """,
            [row for row in rows if row[4] != 0],
        )


def _save_gaps(old: Sequence[Gap], new: Sequence[Gap], now: datetime) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(
            "DELETE FROM metering_gap WHERE life_id = %s AND meter = %s AND start = %s",
            [(gap.life, gap.meter, from_ms(gap.start_ms)) for gap in set(old) - set(new)],
        )
        # Two interfaces may have fallen at once: a life has one gap for both.
        cursor.executemany(
            """
            INSERT INTO metering_gap (life_id, meter, start, "end", reason, recorded_at)
            VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
            """,
            [
                (gap.life, gap.meter, from_ms(gap.start_ms), from_ms(gap.end_ms), gap.reason, now)
                for gap in sorted(set(new) - set(old), key=lambda gap: (gap.meter, gap.start_ms))
            ],
        )


def _save_resets(old: Sequence[Reset], new: Sequence[Reset]) -> None:
    keys_of_old = {_reset_key(reset) for reset in old}
    keys_of_new = {_reset_key(reset) for reset in new}
    with connection.cursor() as cursor:
        cursor.executemany(
            """
            DELETE FROM metering_counterreset
            WHERE life_id = %s AND series = %s AND counter = %s AND at = %s
            """,
            [key[:4] for key in keys_of_old - keys_of_new],
        )
        cursor.executemany(
            """
            INSERT INTO metering_counterreset (life_id, series, counter, at, before, after)
            VALUES (%s, %s, %s, %s, %s, %s)
            """,
            sorted(keys_of_new - keys_of_old),
        )


def _reset_key(reset: Reset) -> tuple[int, int, str, datetime, int, int]:
    at = from_ms(reset.at_ms)
    return reset.life, reset.series, reset.counter, at, reset.before, reset.after


def moved_reading(kind: Kind, reading: Records, done: Recomputed, *, last_ms: int) -> Records:
    """Return a series' reading after a stretch of it was recomputed.

    Where it stands changes only if its last reading lies in the stretch; its base lines, and
    counters that nothing had been known of, may come from any.
    """
    moved = reading.copy()
    after = done.reading
    if last_ms <= done.stretch.end_ms:
        kept = {"sample_count", "out_of_order_count"}
        for name in reading.dtype.names or ():
            if name not in kept:
                moved[name] = after[name]
    for counter, bit in kind.counters.items():
        if not int(after["known"][0]) & bit:
            continue
        moved["base_" + counter] = after["base_" + counter]
        if not int(reading["known"][0]) & bit:
            moved[counter] = after[counter]
            moved["known"] |= bit
    return moved
