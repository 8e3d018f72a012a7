"""A session that stands still inside a COPY loses what it holds."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from django.db import connection

from billing.services import stalled

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def other() -> Iterator[psycopg.Connection]:
    session = psycopg.connect(**connection.get_connection_params() | {"cursor_factory": None})
    yield session
    session.close()


def test_a_session_that_sends_no_rows_is_ended(
    other: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    cursor = other.cursor()
    cursor.execute("CREATE TEMPORARY TABLE sent (number integer)")
    # As a worker that was stopped here leaves it: begun, and not a row further.
    other.pgconn.exec_(b"COPY sent FROM STDIN")
    assert stalled.end_stalled_sessions() == 0
    monkeypatch.setattr(stalled, "STALLED_AFTER_S", 0)
    assert stalled.end_stalled_sessions() == 1
    assert stalled.end_stalled_sessions() == 0


def test_a_session_at_work_or_at_rest_is_left_alone(
    other: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    other.execute("SELECT 1")
    monkeypatch.setattr(stalled, "STALLED_AFTER_S", 0)
    assert stalled.end_stalled_sessions() == 0
    assert other.execute("SELECT 1").fetchone() == (1,)
