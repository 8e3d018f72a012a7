"""Whole arrays of integers into PostgreSQL and back, without a Python object for each row."""

from __future__ import annotations

from typing import Any

import numpy as np
import psycopg
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
    `timestamps`. COPY's binary form has the most significant byte first.
    """
    names = rows.dtype.names or ()
    # Two bytes for the number of columns, then for each four with its length and its value.
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


def fetch_rows(statement: str, parameters: list[Any], dtype: np.dtype[np.void]) -> Records:
    """Return the rows of a query whose columns are the fields of `dtype`, in order.

    Every column is a bigint and never null. They come as one row of arrays: a message and a
    Python object for each row would take longer than the query.
    """
    names = dtype.names or ()
    arrays = ", ".join(f"array_agg({name})" for name in names)
    connection.ensure_connection()
    # Not Django's cursor, which has no binary answers.
    with psycopg.Cursor(connection.connection) as cursor:
        cursor.execute(
            sql.SQL("SELECT count(*), {} FROM ({}) AS found({})").format(
                sql.SQL(arrays), sql.SQL(statement), sql.SQL(", ".join(names))
            ),
            parameters,
            binary=True,
        )
        answer = cursor.pgresult
    if answer is None:
        raise ValueError("The query gave no rows to read.")
    count = int.from_bytes(answer.get_value(0, 0) or b"", "big")
    rows = np.empty(count, dtype)
    for column, name in enumerate(names, start=1):
        rows[name] = _elements(answer.get_value(0, column) or b"", count, name)
    return rows


# Of an array in binary form: number of dimensions, whether there are nulls, type of the
# elements, length and lower bound; then each element after its length.
_ARRAY_HEADER_BYTES = 20
_ELEMENT = np.dtype([("length", ">i4"), ("value", ">i8")])


def _elements(array: bytes, count: int, name: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    if not count:
        return np.empty(0, np.int64)
    if len(array) != _ARRAY_HEADER_BYTES + count * _ELEMENT.itemsize:
        raise ValueError(f"The column {name} is null somewhere, or no bigint.")
    elements = np.frombuffer(array, _ELEMENT, count, _ARRAY_HEADER_BYTES)
    values: np.ndarray[Any, np.dtype[np.int64]] = elements["value"].astype(np.int64)
    return values


def bigints(ids: np.ndarray[Any, np.dtype[np.int64]]) -> str:
    """Return numbers as a bigint[] is written, for `%s::bigint[]`."""
    return "{" + ",".join(map(str, ids.tolist())) + "}"


def timestamps(ms: np.ndarray[Any, np.dtype[np.int64]], *, never: int) -> Any:
    """Return times in ms as a timestamptz column takes them; `never` becomes minus infinity."""
    return np.where(ms == never, MINUS_INFINITY, (ms - _EPOCH_2000_MS) * 1000)
