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
    `timestamps`. Uses COPY's binary form: two bytes for the number of columns, then for each
    column four bytes with its length and its value, most significant byte first.
    """
    names = rows.dtype.names or ()
    layout = np.dtype(
        [("columns", ">i2")]
        + [part for name in names for part in ((f"{name} length", ">i4"), (name, ">i8"))]
    )
    packed = np.empty(len(rows), layout)
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


def timestamps(ms: np.ndarray[Any, np.dtype[np.int64]], *, never: int) -> Any:
    """Return times in ms as a timestamptz column takes them; `never` becomes minus infinity."""
    return np.where(ms == never, MINUS_INFINITY, (ms - _EPOCH_2000_MS) * 1000)


def fetch_rows(statement: str, parameters: list[Any], dtype: np.dtype[np.void]) -> Records:
    """Return the rows of a query whose columns are the fields of `dtype`, in order."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return np.array(cursor.fetchall(), dtype)
