from __future__ import annotations

from contextlib import nullcontext
from datetime import datetime, timedelta
from threading import Thread
from uuid import UUID

import pytest
from django.db import connections

import metering.queries
from billing import queries
from metering.period import WINDOW
from tests.billing.usage import NOON, open_account, record_usage

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def _a_reading_commits_between_our_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Usage is read before the newest reading; let one be folded in between."""
    newest_reading_at = metering.queries.newest_reading_at

    def fold(account_id: UUID) -> None:
        record_usage(account_id, cpu_s=3600)
        connections.close_all()

    def fold_then_read(account_id: UUID) -> datetime | None:
        folding = Thread(target=fold, args=(account_id,))
        folding.start()
        folding.join()
        return newest_reading_at(account_id)

    monkeypatch.setattr(metering.queries, "newest_reading_at", fold_then_read)


@pytest.mark.usefixtures("_a_reading_commits_between_our_queries")
def test_usage_and_as_of_are_of_one_moment() -> None:
    current = queries.current_usage(open_account().pk, now=NOON + timedelta(hours=1))
    assert (current.as_of, current.usage) == (None, {})


@pytest.mark.usefixtures("_a_reading_commits_between_our_queries")
def test_control_without_the_snapshot_as_of_is_newer_than_the_usage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queries, "one_snapshot", nullcontext)
    current = queries.current_usage(open_account().pk, now=NOON + timedelta(hours=1))
    assert (current.as_of, current.usage) == (NOON + WINDOW, {})
