"""Says who acts, so that the audit trail keeps it with what they change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pghistory
from django.db import connection
from psycopg.sql import Composable


@contextmanager
def acting(*, user_id: int | None = None, api_key_id: int | None = None) -> Iterator[None]:
    """Let what is changed meanwhile stand in the audit trail as done by a user, or by a key.

    The innermost counts: who shows a key acts by it, whoever else the browser has signed in.
    """
    with (
        connection.execute_wrapper(_as_text),
        pghistory.context(user=user_id, api_key=api_key_id),
    ):
        yield


def _as_text(execute: Callable[..., Any], sql: Any, params: Any, many: Any, context: Any) -> Any:
    """Hand a statement that psycopg composed on as text: django-pghistory puts its own before."""
    if isinstance(sql, Composable):
        sql = sql.as_string(context["connection"].connection)
    return execute(sql, params, many, context)
