from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.db import DataError, OperationalError, connection
from django.test.utils import CaptureQueriesContext

from billing import services, tasks
from billing.models import Account, CreditEntry, Invoice, PriceBook
from metering.models import AccountRegistration
from metering.period import Period
from tests.billing.usage import (
    AFTER_MAY,
    JUNE,
    MAY,
    NOON,
    open_account,
    read_streams_until,
    record_first_invoice,
    record_usage,
)

pytestmark = pytest.mark.django_db


def test_a_month_is_drafted_when_it_is_over_and_not_before() -> None:
    open_account()
    assert services.draft_due_invoices(MAY.end - timedelta(microseconds=1)) == 0
    assert services.draft_due_invoices(MAY.end) == 1
    assert Invoice.objects.get().period == MAY


def test_a_sweep_that_has_no_time_left_does_one_batch_and_leaves_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("billing.services.billing_run.ACCOUNTS_A_BATCH", 1)
    for name in ("Ada", "Grace", "Joan"):
        record_first_invoice(open_account(name, plan_code="professional").pk)
    read_streams_until(AFTER_MAY)
    assert services.draft_due_invoices(MAY.end, has_time=lambda: False) == 1
    assert services.draft_due_invoices(MAY.end) == 2
    assert services.finalise_due_invoices(AFTER_MAY, has_time=lambda: False) == 1
    assert services.finalise_due_invoices(AFTER_MAY) == 2


def test_sweeping_twice_changes_nothing() -> None:
    account = open_account(plan_code="professional")
    record_first_invoice(account.pk)
    read_streams_until(AFTER_MAY)
    assert services.draft_due_invoices(MAY.end) == 1
    assert services.draft_due_invoices(MAY.end) == 0
    assert services.finalise_due_invoices(AFTER_MAY) == 1
    assert services.finalise_due_invoices(AFTER_MAY) == 0
    assert services.grant_due_credits(AFTER_MAY) == 1
    assert services.grant_due_credits(AFTER_MAY) == 0
    assert Invoice.objects.get().status == Invoice.Status.PENDING


def test_missed_months_are_caught_up_one_after_the_other() -> None:
    account = open_account(plan_code="professional")
    late = JUNE.end + timedelta(days=1)
    for _ in range(3):
        services.grant_due_credits(late)
        services.draft_due_invoices(late)
        services.finalise_due_invoices(late)
    invoices = Invoice.objects.order_by("number")
    assert [(i.period, i.number, i.total_amount) for i in invoices] == [
        (MAY, "2026-000001", 99),
        (JUNE, "2026-000002", 99),
    ]
    account.refresh_from_db()
    assert account.open_period_start == JUNE.end


def test_a_month_that_nobody_granted_in_time_still_has_its_credits() -> None:
    open_account(plan_code="professional")
    services.draft_due_invoices(MAY.end)
    services.finalise_due_invoices(AFTER_MAY)
    # The sweep that grants was down through all of June.
    services.draft_due_invoices(JUNE.end)
    services.finalise_due_invoices(JUNE.end + timedelta(hours=1))
    june = CreditEntry.objects.filter(grant__period_start=JUNE.start)
    assert list(june.values_list("kind", "amount")) == [("grant", 100), ("expire", -100)]


def test_an_invoice_that_waits_says_what_for() -> None:
    account = open_account()
    record_first_invoice(account.pk)
    services.draft_due_invoices(MAY.end)
    assert services.finalise_due_invoices(AFTER_MAY) == 0
    invoice = Invoice.objects.get()
    assert invoice.waiting_for == f"readings of host of {account.pk}"
    assert invoice.tried_at == AFTER_MAY
    account.refresh_from_db()
    assert account.parked_reason == ""
    read_streams_until(AFTER_MAY)
    assert services.finalise_due_invoices(AFTER_MAY) == 1
    assert Invoice.objects.get().waiting_for == ""


def test_one_bad_account_stops_only_itself(caplog: pytest.LogCaptureFixture) -> None:
    good, bad = open_account("Good"), open_account("Bad")
    for account in (good, bad):
        record_first_invoice(account.pk)
    read_streams_until(AFTER_MAY)
    Account.objects.filter(pk=bad.pk).update(currency="EUR")  # has no prices
    assert services.draft_due_invoices(MAY.end) == 2
    assert services.finalise_due_invoices(AFTER_MAY) == 1
    bad.refresh_from_db()
    assert bad.parked_reason.startswith("UsageUnpricedError: cpu")
    assert bad.parked_at == AFTER_MAY
    assert [r.__dict__["account_id"] for r in caplog.records if r.exc_info] == [bad.pk]
    assert Invoice.objects.get(account=bad).status == Invoice.Status.DRAFT
    # What the failed attempt froze is undone with it.
    assert AccountRegistration.objects.get(account_id=bad.pk).frozen_until is None


def test_a_parked_account_is_left_alone_until_it_is_unparked() -> None:
    account = open_account(plan_code="team")
    services.park_account(account.pk, reason="under review", now=NOON)
    assert services.draft_due_invoices(AFTER_MAY) == 0
    assert services.grant_due_credits(AFTER_MAY) == 0
    services.unpark_account(account.pk)
    assert services.draft_due_invoices(AFTER_MAY) == 1
    services.park_account(account.pk, reason="under review", now=NOON)
    assert services.finalise_due_invoices(AFTER_MAY) == 0
    services.unpark_account(account.pk)
    assert services.finalise_due_invoices(AFTER_MAY) == 1


def test_an_account_that_is_only_busy_is_not_parked(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    account = open_account()

    def time_out(*_positional: object, **_named: object) -> None:
        raise OperationalError("canceling statement due to lock timeout")

    with monkeypatch.context() as patched:
        patched.setattr("billing.services.billing_run.facts_of", time_out)
        assert services.draft_due_invoices(MAY.end) == 0
    account.refresh_from_db()
    assert account.parked_reason == ""
    assert "accounts are busy" in caplog.text
    assert services.draft_due_invoices(MAY.end) == 1


def test_the_task_does_all_that_is_due(set_clock: Callable[[datetime], None]) -> None:
    open_account(plan_code="professional")
    set_clock(MAY.end)
    tasks.sweep_billing()
    assert Invoice.objects.get().status == Invoice.Status.DRAFT
    set_clock(AFTER_MAY)
    for _ in range(2):
        tasks.sweep_billing()
        assert Invoice.objects.get().status == Invoice.Status.PENDING
    granted = CreditEntry.objects.filter(kind="grant")
    assert list(granted.values_list("grant__period_start", flat=True)) == [MAY.start, JUNE.start]


def test_a_sweep_that_runs_out_of_time_parks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    account = open_account(plan_code="team")

    def out_of_time(*_args: object, **_options: object) -> None:
        raise SoftTimeLimitExceeded

    monkeypatch.setattr("billing.services.billing_run.state_period", out_of_time)
    with pytest.raises(SoftTimeLimitExceeded):
        services.draft_due_invoices(AFTER_MAY)
    account.refresh_from_db()
    assert account.parked_reason == ""


def test_an_invoice_that_the_database_refuses_parks_its_account_alone() -> None:
    good, bad = open_account("Good"), open_account("Bad")
    book = PriceBook.objects.create(code="bad", name="Bad", account=bad)
    version = book.versions.create(effective_from=MAY.start)
    for meter in ("cpu", "memory", "network_egress"):
        version.prices.create(meter=meter, unit_price=Decimal(10) ** 11)
    terms = services.AgreedTerms(fee=Decimal(1), price_book=book)
    services.subscribe(bad.pk, plan_code="enterprise", now=MAY.start, agreed=terms)
    for account in (good, bad):
        record_usage(account.pk, cpu_s=10**7)
    # More digits than an amount has room for.
    assert services.draft_due_invoices(MAY.end) == 1
    assert Invoice.objects.get().account == good
    bad.refresh_from_db()
    assert bad.parked_reason.startswith("DataError: numeric field overflow")


def _do_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_positional: object, **_named: object) -> None:
        raise DataError("as of some account of the batch")

    for name in ("write_new_statements", "close_periods"):
        monkeypatch.setattr(f"billing.services.billing_run.{name}", refuse)


def test_a_draft_that_another_sweep_closed_parks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    account = open_account()
    services.draft_due_invoices(MAY.end)
    finalise = services.finalise_invoice

    def finalise_second(
        invoice_id: int, *, now: datetime, because: services.Because
    ) -> Invoice | None:
        finalise(invoice_id, now=now, because=because)
        return finalise(invoice_id, now=now, because=because)

    # Both sweeps listed the draft; it was of nothing, and is gone for the second.
    _do_one_by_one(monkeypatch)
    monkeypatch.setattr("billing.services.billing_run.finalise_invoice", finalise_second)
    assert services.finalise_due_invoices(AFTER_MAY) == 0
    account.refresh_from_db()
    assert account.parked_reason == ""


def test_a_period_that_another_sweep_closed_parks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    account = open_account()
    draft = services.draft_invoice

    def draft_second(account_id: UUID, *, period: Period, now: datetime) -> Invoice:
        first = draft(account_id, period=period, now=now)
        services.finalise_invoice(first.pk, now=now)
        return draft(account_id, period=period, now=now)

    _do_one_by_one(monkeypatch)
    monkeypatch.setattr("billing.services.billing_run.draft_invoice", draft_second)
    assert services.draft_due_invoices(AFTER_MAY) == 0
    account.refresh_from_db()
    assert account.parked_reason == ""


def test_no_balance_is_summed_up_for_accounts_without_automatic_top_up() -> None:
    open_account()
    with CaptureQueriesContext(connection) as queries:
        services.request_due_top_ups(NOON)
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN ANALYZE {queries[0]['sql']}")
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "(never executed)" in plan[plan.index("SubPlan") :]


def test_credit_given_back_after_its_time_lapses_with_the_next_hour(
    set_clock: Callable[[datetime], None],
) -> None:
    account = open_account(plan_code="professional")
    record_usage(account.pk, cpu_s=10**6)
    read_streams_until(AFTER_MAY)
    services.draft_due_invoices(MAY.end)
    services.finalise_due_invoices(AFTER_MAY)
    services.void_invoice(
        Invoice.objects.get().pk, because=services.Because("Wrong"), now=AFTER_MAY
    )
    set_clock(AFTER_MAY)
    for _ in range(2):
        tasks.expire_credits()
    expired = CreditEntry.objects.filter(kind="expire").values_list("amount", flat=True)
    assert list(expired) == [-88, -12]
