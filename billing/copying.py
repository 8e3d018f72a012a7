"""Many new rows into one table by COPY: a billing run writes thousands at a time."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any

from django.db import connection
from django.db.models import Model
from psycopg import sql


def copy_in(rows: Sequence[Model]) -> None:
    """Insert new rows of one model, in their order, and give each its primary key.

    Past the model's own save: nothing is looked at but by the table.
    """
    if not rows:
        return
    table = rows[0]._meta.db_table  # noqa: SLF001 - Django's documented way to a model's table
    fields = rows[0]._meta.concrete_fields  # noqa: SLF001 - the same
    names = [field.attname for field in fields]
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(table),
        sql.SQL(", ").join([sql.Identifier(str(field.column)) for field in fields]),
    )
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT nextval(pg_get_serial_sequence(%s, 'id')) FROM generate_series(1, %s)",
            [table, len(rows)],
        )
        for row, (key,) in zip(rows, cursor.fetchall(), strict=True):
            row.pk = key
        # Django wraps what its own cursors raise, and this is psycopg's.
        with connection.wrap_database_errors, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row([_plain(getattr(row, name)) for name in names])


def _plain(value: Any) -> Any:
    # psycopg would write an enumeration's name.
    return value.value if isinstance(value, Enum) else value
