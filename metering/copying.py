"""Whole arrays of integers into PostgreSQL and back, without a Python object for each row."""

from __future__ import annotations

from typing import Any

import numpy as np
from django.db import connection
from psycopg import sql

from metering.samples import Records

_SIGNATURE = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_TRAILER = b"\xff\xff"

# PostgreSQL counts microseconds from 2000; its lowest integer is minus infinity.
_EPOCH_2000_MS = 946_684_800_000
MINUS_INFINITY = int(np.iinfo(np.int64).min)


def copy_rows(table: str, rows: Records) -> None:
    """Append rows to a table with the columns that the array's fields name.

    Every field is a 64-bit integer and every column a bigint, or a timestamptz given by
    `timestamps`.
    """
    names = rows.dtype.names or ()
    packed = np.empty(len(rows), _layout(names))
    packed["columns"] = len(names)
    for name in names:
        packed[f"{name} length"] = 8
        packed[name] = rows[name]
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, names))
    )
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(_SIGNATURE)
        copy.write(packed.tobytes())
        copy.write(_TRAILER)


def fetch_rows(statement: str, parameters: list[Any], dtype: np.dtype[np.void]) -> Records:
    """Return the rows of a query whose columns are the fields of `dtype`, in order.

    Every column is a bigint and never null.
    """
    names = dtype.names or ()
    with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY ({statement}) TO STDOUT (FORMAT binary)", parameters) as copy,
    ):
        answer = b"".join(copy)
    layout = _layout(names)
    count, rest = divmod(len(answer) - len(_SIGNATURE) - len(_TRAILER), layout.itemsize)
    packed = np.frombuffer(answer, layout, count, len(_SIGNATURE))
    if rest or any((packed[f"{name} length"] != 8).any() for name in names):
        raise ValueError(f"A column of {', '.join(names)} is null, or no bigint.")
    rows = np.empty(count, dtype)
    for name in names:
        rows[name] = packed[name]
    return rows


def _layout(names: tuple[str, ...]) -> np.dtype[np.void]:
    """Return a row of COPY's binary form, most significant bytes first.

    Two bytes for the number of columns, then for each four with its length and its value.
    """
    return np.dtype(
        [("columns", ">i2")]
        + [part for name in names for part in ((f"{name} length", ">i4"), (name, ">i8"))]
    )


def timestamps(ms: np.ndarray[Any, np.dtype[np.int64]], *, never: int) -> Any:
    """Return times in ms as a timestamptz column takes them; `never` becomes minus infinity."""
    return np.where(ms == never, MINUS_INFINITY, (ms - _EPOCH_2000_MS) * 1000)
