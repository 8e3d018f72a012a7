from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.core.cache import cache

from billing import services, tasks
from billing.models import Account, PriceBookVersion, UnpricedUsage
from billing.queries import unpriced_counts
from metering.period import WINDOW
from tests.billing.usage import JUNE, NOON, OPENED, open_account, record_usage

pytestmark = pytest.mark.django_db


def noted() -> list[tuple[UUID, str, str, datetime]]:
    return list(
        UnpricedUsage.objects.order_by("account_id", "meter", "period_start").values_list(
            "account_id", "meter", "reason", "billing_period_start"
        )
    )


def test_unpriced_usage_of_the_open_period_is_noted_once() -> None:
    account = open_account()
    record_usage(account.pk, cpu_s=1, disk_write_bytes=5)
    for _ in range(2):
        assert services.note_unpriced_usage(now=NOON) is None
        assert noted() == [(account.pk, "disk_write", "meter_not_charged", OPENED)]


def test_what_has_a_price_by_now_is_not_noted_any_more() -> None:
    account = open_account()
    record_usage(account.pk, cpu_s=1)
    before = PriceBookVersion.objects.get().effective_from
    PriceBookVersion.objects.update(effective_from=NOON + WINDOW)
    services.note_unpriced_usage(now=NOON)
    assert noted() == [(account.pk, "cpu", "no_prices_in_force", OPENED)]
    PriceBookVersion.objects.update(effective_from=before)
    services.note_unpriced_usage(now=NOON)
    assert noted() == []


def test_a_period_that_is_over_and_open_is_noted_beside_the_running_one() -> None:
    account = open_account()
    record_usage(account.pk, disk_write_bytes=1)
    record_usage(account.pk, JUNE.start, disk_write_bytes=2)
    services.note_unpriced_usage(now=JUNE.start + WINDOW)
    assert [start for *_, start in noted()] == [OPENED, JUNE.start]
    # An account counts once, however many of its periods are open.
    assert unpriced_counts() == [("disk_write", "meter_not_charged", 1)]


def test_accounts_take_turns(
    monkeypatch: pytest.MonkeyPatch, set_clock: Callable[[datetime], None]
) -> None:
    set_clock(NOON)
    monkeypatch.setattr("billing.services.unpriced.ACCOUNTS_AT_ONCE", 2)
    monkeypatch.setattr("billing.tasks.TURNS_A_RUN", 1)
    cache.delete(tasks._NOTED_UP_TO)
    for name in ("Ada", "Bob", "Eve"):
        record_usage(open_account(name).pk, disk_write_bytes=5)
    accounts = list(Account.objects.order_by("pk").values_list("pk", flat=True))
    tasks.note_unpriced_usage()
    assert [account for account, *_ in noted()] == accounts[:2]
    tasks.note_unpriced_usage()
    assert [account for account, *_ in noted()] == accounts
    UnpricedUsage.objects.all().delete()
    tasks.note_unpriced_usage()
    assert [account for account, *_ in noted()] == accounts[:2]
    cache.delete(tasks._NOTED_UP_TO)


def test_a_run_ends_with_the_round(
    monkeypatch: pytest.MonkeyPatch, set_clock: Callable[[datetime], None]
) -> None:
    set_clock(NOON)
    monkeypatch.setattr("billing.services.unpriced.ACCOUNTS_AT_ONCE", 2)
    cache.delete(tasks._NOTED_UP_TO)
    for name in ("Ada", "Bob", "Eve"):
        record_usage(open_account(name).pk, disk_write_bytes=5)
    tasks.note_unpriced_usage()
    assert len(noted()) == 3
    assert cache.get(tasks._NOTED_UP_TO) is None


def test_a_task_that_has_to_end_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    open_account()

    def run_out_of_time(_account_id: UUID, *, now: datetime) -> None:
        raise SoftTimeLimitExceeded(now)

    monkeypatch.setattr("billing.services.unpriced._note", run_out_of_time)
    with pytest.raises(SoftTimeLimitExceeded):
        services.note_unpriced_usage(now=NOON)


def test_an_account_that_fails_stops_only_itself_and_is_not_parked(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("Ada", "Bob"):
        record_usage(open_account(name).pk, disk_write_bytes=5)
    first, second = Account.objects.order_by("pk")
    note = services.unpriced._note

    def fail_for_first(account_id: UUID, *, now: datetime) -> None:
        note(account_id, now=now)
        if account_id == first.pk:
            raise ValueError("a bad account")

    monkeypatch.setattr("billing.services.unpriced._note", fail_for_first)
    services.note_unpriced_usage(now=NOON)
    assert [account for account, *_ in noted()] == [second.pk]
    assert "unpriced usage is not noted" in caplog.text
    first.refresh_from_db()
    assert first.parked_reason == ""
