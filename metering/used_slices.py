"""What an account used, slice by slice of its time, and by sandbox or label in each.

Days that are summarised for good come from their summaries, or their totals where nothing is told
apart, later ones from usage records.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from fractions import Fraction
from typing import Any, TypeAlias
from uuid import UUID

from django.db import connection

from metering.labels import require_label_name
from metering.meters import UNITS, Meter
from metering.totals import LIVES

_COLUMNS = {meter: UNITS[meter].stored for meter in Meter}
_SUMS = ", ".join(f"sum({column})" for column in _COLUMNS.values())
_OF_LIFE = (
    Meter.CPU,
    Meter.MEMORY,
    Meter.GPU,
    Meter.DISK_READ,
    Meter.DISK_WRITE,
    Meter.CPU_ALLOCATED,
    Meter.MEMORY_ALLOCATED,
)
# For each table of records: how it is reached from a life, and its columns by meter.
_RECORDS: tuple[tuple[str, str, dict[Meter, str]], ...] = (
    (
        "",
        "metering_usagerecord WHERE life_id = life.id",
        {meter: _COLUMNS[meter] for meter in _OF_LIFE},
    ),
    (
        "JOIN metering_interfacereading interface ON interface.life_id = life.id",
        "metering_networkusagerecord WHERE interface_id = interface.interface",
        {Meter.NETWORK_EGRESS: "tx_bytes", Meter.NETWORK_INGRESS: "rx_bytes"},
    ),
    (
        "",
        "metering_storageusagerecord WHERE life_id = life.id",
        {Meter.STORAGE: "storage_byte_ms"},
    ),
)


def _records_part(join: str, of_life: str, columns: dict[Meter, str]) -> str:
    figures = ", ".join(
        f"record.{columns[meter]} AS {name}" if meter in columns else f"0 AS {name}"
        for meter, name in _COLUMNS.items()
    )
    return f"""
        SELECT sandbox.id AS sandbox, width_bucket(record.window_start, %(starts)s) AS slice,
            {figures}
        FROM metering_sandbox sandbox {LIVES} {join}
        -- By their index, as the lives: else whole months may be read.
        JOIN LATERAL (
            SELECT * FROM {of_life} AND window_start >= %(first)s AND window_start < %(end)s
            OFFSET 0
        ) AS record ON true
        WHERE sandbox.account_id = %(account)s"""  # noqa: S608 -- names of our own columns


_FROM_RECORDS = " UNION ALL ".join(_records_part(*part) for part in _RECORDS)
_FROM_SUMMARIES = f"""
        SELECT sandbox_id AS sandbox, width_bucket(day, %(first_days)s) AS slice,
            {", ".join(_COLUMNS.values())}
        FROM metering_dailyusagesummary
        WHERE account_id = %(account)s AND day >= %(first_day)s AND day < %(records_day)s"""  # noqa: S608 -- names of our own columns
_TOTALS = f"""
    SELECT day, {", ".join(_COLUMNS.values())} FROM metering_dailyusagetotal
    WHERE account_id = %(account)s AND day >= %(first_day)s AND day < %(records_day)s"""  # noqa: S608 -- names of our own columns

# A label is a start's; here all of a sandbox counts for what its newest start says.
_KEYS = {
    "": ("", "NULL"),
    "sandbox": ("JOIN metering_sandbox named ON named.id = used.sandbox", "named.sandbox_id"),
    "label": (
        """LEFT JOIN (
            SELECT DISTINCT ON (life.sandbox_id) life.sandbox_id,
                jsonb_extract_path_text(life.labels, %(label)s) AS value
            FROM metering_sandbox sandbox
            JOIN metering_life life ON life.sandbox_id = sandbox.id
            WHERE sandbox.account_id = %(account)s AND life.started_at < %(end)s
            ORDER BY life.sandbox_id, life.started_at DESC, life.id
        ) AS labelled ON labelled.sandbox_id = used.sandbox""",
        "labelled.value",
    ),
}

Used: TypeAlias = dict[int, dict[Meter, int]]
"""What was used in each slice, in base units; slices and meters without usage are left out."""


@dataclass(frozen=True, slots=True)
class Slices:
    """Spans of an account's time that follow one another, up to `end`.

    `starts` are where they begin. The first `len(first_days)` of them are whole local days and
    begin with those; up to `records_from`, which is where one of them begins, days come from
    summaries.
    """

    account_id: UUID
    starts: Sequence[datetime]
    end: datetime
    records_from: datetime
    first_days: Sequence[date] = ()
    records_day: date | None = None

    def parameters(self) -> dict[str, Any]:
        """Return what the statements are told."""
        return {
            "account": self.account_id,
            "starts": list(self.starts),
            "end": self.end,
            "first": self.records_from,
            "first_days": list(self.first_days),
            "first_day": self.first_days[0] if self.first_days else None,
            "records_day": self.records_day,
        }

    def source(self) -> str:
        """Return the rows to add up, each with its sandbox and slice."""
        if not self.first_days:
            return _FROM_RECORDS
        if self.records_from >= self.end:
            return _FROM_SUMMARIES
        return f"{_FROM_SUMMARIES} UNION ALL {_FROM_RECORDS}"


@dataclass(frozen=True, slots=True)
class Grouping:
    """What usage is told apart by: the sandbox, or the value of a label. Raises LabelNameError."""

    label: str | None = None

    def __post_init__(self) -> None:
        if self.label is not None:
            require_label_name(self.label)

    @property
    def kind(self) -> str:
        """Which of `_KEYS` it is."""
        return "sandbox" if self.label is None else "label"


def usage_of_slices(slices: Slices) -> Used:
    """Return what the account used in each slice, by the slice's place."""
    used = _of_totals(slices) if slices.first_days else {}
    if slices.records_from < slices.end:
        first = bisect_left(slices.starts, slices.records_from)
        tail = Slices(slices.account_id, slices.starts[first:], slices.end, slices.records_from)
        rows = _fetch(tail, "", f"SELECT slice, {_SUMS} FROM used GROUP BY slice", {})  # noqa: S608 -- names of our own columns
        used |= {first + place - 1: _usage(sums) for place, *sums in rows}
    return used


def _of_totals(slices: Slices) -> Used:
    """Return what is read of days' totals: a row a day, so they are put in place here."""
    used: Used = {}
    with connection.cursor() as cursor:
        words = slices.parameters()
        cursor.execute(_TOTALS, {n: words[n] for n in ("account", "first_day", "records_day")})
        for day, *quantities in cursor.fetchall():
            of_day = _usage(quantities)
            of_slice = used.setdefault(bisect_right(slices.first_days, day) - 1, of_day)
            if of_slice is not of_day:
                for meter, quantity in of_day.items():
                    of_slice[meter] = of_slice.get(meter, 0) + quantity
    return used


def costliest_keys(
    slices: Slices,
    grouping: Grouping,
    prices: dict[int, dict[Meter, Fraction]],
    *,
    asked: range,
    most: int,
) -> tuple[list[str | None], int]:
    """Return the keys that bear the most, the most first, and how many keys there are in all.

    In the slices that are `asked` for. `prices` say what a base unit costs in each. None is the
    key of what has no such label.
    """
    weights = {
        meter: [_decimal(prices.get(at, {}).get(meter)) for at in range(len(slices.starts))]
        for meter in Meter
        if any(meter in by_meter for by_meter in prices.values())
    }
    cost = " + ".join(
        f"sum({_COLUMNS[meter]} * (%({meter.value})s::numeric[])[slice])" for meter in weights
    )
    statement = f"""
        SELECT key, count(*) OVER () FROM (
            SELECT {{key}} AS key, {cost or "0"} AS cost FROM used {{join}}
            WHERE slice BETWEEN %(first_slice)s AND %(last_slice)s GROUP BY 1
        ) AS summed ORDER BY cost DESC, key NULLS LAST LIMIT %(most)s"""  # noqa: S608 -- names of our own columns
    rows = _fetch(
        slices,
        grouping.kind,
        statement,
        {
            "most": most,
            "first_slice": asked.start + 1,
            "last_slice": asked.stop,
            "label": grouping.label,
            **{meter.value: weight for meter, weight in weights.items()},
        },
    )
    return [key for key, _ in rows], rows[0][1] if rows else 0


def usage_of_keys(
    slices: Slices, grouping: Grouping, keys: Sequence[str | None], *, asked: range
) -> dict[str | None, Used]:
    """Return what each of these keys used in each slice that is `asked` for."""
    statement = f"""
        SELECT {{key}}, slice, {_SUMS} FROM used {{join}}
        WHERE slice BETWEEN %(first_slice)s AND %(last_slice)s
            AND ({{key}} = ANY(%(keys)s) OR (%(with_none)s AND {{key}} IS NULL))
        GROUP BY 1, 2"""  # noqa: S608 -- names of our own columns
    words = {
        "keys": [key for key in keys if key is not None],
        "with_none": None in keys,
        "first_slice": asked.start + 1,
        "last_slice": asked.stop,
        "label": grouping.label,
    }
    used: dict[str | None, Used] = {key: {} for key in keys}
    for key, place, *sums in _fetch(slices, grouping.kind, statement, words):
        used[key][place - 1] = _usage(sums)
    return used


def _fetch(
    slices: Slices, kind: str, statement: str, words: dict[str, Any]
) -> list[tuple[Any, ...]]:
    join, key = _KEYS[kind]
    with connection.cursor() as cursor:
        cursor.execute(
            f"WITH used AS ({slices.source()}) " + statement.format(join=join, key=key),
            slices.parameters() | words,
        )
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


def _usage(sums: Sequence[Any]) -> dict[Meter, int]:
    return {meter: int(total) for meter, total in zip(_COLUMNS, sums, strict=True) if total}


def _decimal(price: Fraction | None) -> str:
    """Return about what a base unit costs: it only says which key comes first."""
    return "0" if price is None else f"{price.numerator * 10**30 // price.denominator}e-30"
