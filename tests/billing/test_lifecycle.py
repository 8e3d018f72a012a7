from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import IntegrityError, ProgrammingError, connection, transaction

from billing import services
from billing.credits import CreditKind
from billing.fees import Interval
from billing.lifecycle import (
    TRANSITIONS,
    InvoiceStatus,
    TransitionRefusedError,
    refuse_transition,
)
from billing.models import (
    BilledLateUsage,
    CreditEntry,
    DiscountRule,
    Invoice,
    InvoiceAdjustment,
    InvoiceDiscount,
    InvoiceEvidence,
    InvoiceLine,
    InvoiceLinePart,
    InvoiceTransition,
)
from billing.services import lifecycle
from tests.billing.usage import (
    AFTER_MAY,
    JUNE,
    MAY,
    NOON,
    OPENED,
    bill,
    credits_left,
    open_account,
    record_usage,
)

pytestmark = pytest.mark.django_db

BECAUSE = services.Because("Paid by wire")


def billed(cpu_s: int = 10**7) -> Invoice:
    account = open_account(plan_code="professional")
    record_usage(account.pk, NOON, cpu_s=cpu_s)
    return bill(account)


def told(invoice: Invoice) -> list[tuple[str, str, str]]:
    return [(row.from_status, row.to_status, row.reason) for row in invoice.transitions.all()]


def test_the_states_are_those_of_the_table() -> None:
    assert set(TRANSITIONS) == set(InvoiceStatus)
    assert [status.value for status in Invoice.Status] == [status.value for status in InvoiceStatus]


@pytest.mark.parametrize("current", list(InvoiceStatus))
@pytest.mark.parametrize("wanted", list(InvoiceStatus))
def test_only_what_the_table_allows_may_follow(
    current: InvoiceStatus, wanted: InvoiceStatus
) -> None:
    if wanted in TRANSITIONS[current]:
        refuse_transition(current, wanted)
    else:
        with pytest.raises(TransitionRefusedError, match=f"After {current} comes"):
            refuse_transition(current, wanted)


def test_each_change_of_state_is_recorded_with_its_reason() -> None:
    invoice = billed()
    for _ in range(2):
        services.mark_payment_failed(invoice.pk, because=services.Because("Declined"), now=NOON)
    services.retry_payment(invoice.pk, because=services.Because("New card"), now=NOON)
    paid = services.mark_paid(invoice.pk, because=BECAUSE, now=AFTER_MAY)
    assert services.mark_paid(invoice.pk, because=BECAUSE, now=JUNE.end).paid_at == AFTER_MAY
    assert (paid.status, paid.paid_at) == ("paid", AFTER_MAY)
    assert told(invoice) == [
        ("draft", "pending", "Billing run"),
        ("pending", "payment_failed", "Declined"),
        ("payment_failed", "pending_retry", "New card"),
        ("pending_retry", "paid", "Paid by wire"),
    ]


def test_what_was_written_off_may_be_paid_all_the_same() -> None:
    invoice = billed()
    services.write_off(invoice.pk, because=services.Because("Bankrupt"), now=NOON)
    assert services.mark_paid(invoice.pk, because=BECAUSE, now=NOON).status == "paid"


def test_a_total_of_zero_is_paid_at_once() -> None:
    account = open_account()
    record_usage(account.pk, NOON, cpu_s=10**6)
    gift = services.Gift(CreditKind.PROMOTIONAL, Decimal(50), "Welcome", "welcome")
    services.grant_credit(account.pk, gift, now=NOON)
    invoice = bill(account)
    assert told(invoice)[1] == ("pending", "paid", "Nothing is due")


def test_a_reason_is_asked_for() -> None:
    with pytest.raises(TransitionRefusedError, match="Say why"):
        services.Because(" ")


def test_a_paid_invoice_is_not_voided() -> None:
    invoice = billed()
    services.mark_paid(invoice.pk, because=BECAUSE, now=NOON)
    with pytest.raises(TransitionRefusedError, match="After paid comes nothing"):
        services.void_invoice(invoice.pk, because=BECAUSE, now=NOON)


def test_voiding_gives_the_credit_back_and_keeps_the_number() -> None:
    invoice = billed(cpu_s=10**6)
    assert credits_left(invoice.account, MAY).amount == 0
    for _ in range(2):
        services.void_invoice(invoice.pk, because=BECAUSE, now=AFTER_MAY)
    invoice.refresh_from_db()
    assert (invoice.status, invoice.number) == ("void", "2026-000001")
    assert credits_left(invoice.account, MAY).amount == 12
    assert CreditEntry.objects.filter(kind="refund").count() == 1


def test_an_invoice_whose_remainder_became_credit_is_paid_and_stays() -> None:
    account = open_account()
    services.subscribe(account.pk, plan_code="team", now=OPENED, interval=Interval.ANNUAL)
    bill(account)
    services.subscribe(account.pk, plan_code="developer", now=JUNE.start + timedelta(days=1))
    invoice = bill(account, JUNE)
    # The rest of the year was more than the rest of the invoice, so it is paid; nothing is due.
    assert (invoice.status, invoice.credited > 0) == ("paid", True)
    with pytest.raises(TransitionRefusedError, match="After paid comes nothing"):
        services.void_invoice(invoice.pk, because=BECAUSE, now=JUNE.end)


def test_a_draft_is_voided_without_a_number() -> None:
    account = open_account(plan_code="team")
    draft = services.draft_current_period(account.pk, now=NOON)
    services.void_invoice(draft.pk, because=BECAUSE, now=NOON)
    assert services.draft_current_period(account.pk, now=NOON).pk != draft.pk


def test_an_invoice_is_issued_again_with_what_was_wrong_put_right() -> None:
    invoice = billed()
    assert (invoice.usage_fee, invoice.credits_used, invoice.total_amount) == (120, 100, 119)
    DiscountRule.objects.create(name="Forgotten", kind="volume", percent=Decimal(50))
    because = services.Because("The discount was forgotten")
    first = services.reissue_invoice(invoice.pk, because=because, now=AFTER_MAY)
    assert services.reissue_invoice(invoice.pk, because=because, now=AFTER_MAY) == first
    invoice.refresh_from_db()
    assert (invoice.status, first.number, first.replaces) == ("void", "2026-000002", invoice)
    # Half of the usage is left, and the credit pays it.
    assert (first.discounts, first.credits_used, first.total_amount) == (60, 60, 99)
    assert first.account.open_period_start == MAY.end
    assert credits_left(first.account, MAY).amount == 0
    assert told(first)[0] == ("draft", "pending", "The discount was forgotten")


def test_a_draft_is_not_issued_again() -> None:
    draft = services.draft_current_period(open_account(plan_code="team").pk, now=NOON)
    with pytest.raises(TransitionRefusedError, match="Draft the period again"):
        services.reissue_invoice(draft.pk, because=BECAUSE, now=NOON)


@pytest.fixture
def on_its_way(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Return a set of invoices, to fill: those in it are not voided."""
    monkeypatch.setattr(lifecycle, "_void_guards", [])
    invoices: set[int] = set()
    # Two that find nothing, so that no guard stands for the others.
    services.register_void_guard(lambda _: "")
    services.register_void_guard(lambda one: "Money is on its way." if one.pk in invoices else "")
    services.register_void_guard(lambda _: "")
    return invoices


@pytest.mark.parametrize("undo", [services.void_invoice, services.reissue_invoice])
def test_an_invoice_that_a_guard_speaks_for_is_not_voided(
    undo: Callable[..., Invoice], on_its_way: set[int]
) -> None:
    invoice = billed(cpu_s=10**6)
    on_its_way.add(invoice.pk)
    with pytest.raises(TransitionRefusedError, match=r"^Money is on its way\.$"):
        undo(invoice.pk, because=BECAUSE, now=AFTER_MAY)
    invoice.refresh_from_db()
    assert invoice.status == "pending"
    assert not CreditEntry.objects.filter(kind="refund").exists()
    on_its_way.clear()
    undo(invoice.pk, because=BECAUSE, now=AFTER_MAY)
    invoice.refresh_from_db()
    assert invoice.status == "void"
    # What is void stays so, whatever comes later.
    on_its_way.add(invoice.pk)
    undo(invoice.pk, because=BECAUSE, now=AFTER_MAY)


def test_a_guard_is_asked_once_however_often_it_is_registered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lifecycle, "_void_guards", [])
    asked: list[int] = []

    def guard(invoice: Invoice) -> str:
        asked.append(invoice.pk)
        return ""

    for _ in range(2):
        services.register_void_guard(guard)
    invoice = billed()
    services.void_invoice(invoice.pk, because=BECAUSE, now=AFTER_MAY)
    assert asked == [invoice.pk]


COPIED_LINE = """
    INSERT INTO billing_invoiceline (
        invoice_id, kind, position, description, meter, charge, quantity, base_unit, unit,
        unit_size, unit_price, amount, discount, period_start, period_end)
    SELECT invoice_id, kind, 99, description, meter, charge, quantity, base_unit, unit,
        unit_size, unit_price, amount, discount, period_start, period_end
    FROM billing_invoiceline LIMIT 1
"""
FROZEN = "is final. Void it and issue another, or write a credit note"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE billing_invoice SET total_amount = total_amount, usage_fee = 1",
        "UPDATE billing_invoice SET number = 'X'",
        "UPDATE billing_invoice SET number = NULL, status = 'draft', finalised_at = NULL",
        "UPDATE billing_invoice SET period_end = period_end + interval '1 day'",
        "UPDATE billing_invoiceline SET amount = 1",
        "DELETE FROM billing_invoiceline",
        "UPDATE billing_invoicediscount SET amount = 1",
        "DELETE FROM billing_invoicediscount",
        COPIED_LINE,
    ],
)
def test_sql_cannot_change_a_final_invoice(statement: str) -> None:
    DiscountRule.objects.create(name="Off", kind="volume", percent=Decimal(50))
    billed()
    with (
        connection.cursor() as cursor,
        pytest.raises(IntegrityError, match=FROZEN),
        transaction.atomic(),
    ):
        cursor.execute(statement)


@pytest.mark.parametrize(
    "table", ["billing_invoice", "billing_invoiceline", "billing_invoicediscount"]
)
def test_sql_cannot_empty_the_tables_of_invoices(table: str) -> None:
    with (
        connection.cursor() as cursor,
        pytest.raises((IntegrityError, ProgrammingError)),
        transaction.atomic(),
    ):
        cursor.execute(f"TRUNCATE {table} CASCADE")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE billing_invoicetransition SET reason = 'x'",
        "DELETE FROM billing_invoicetransition",
        "TRUNCATE billing_invoicetransition",
        "SET session_replication_role = replica",
        "ALTER TABLE billing_invoice DISABLE TRIGGER ALL",
    ],
)
def test_the_application_cannot_get_round_the_history(statement: str) -> None:
    billed()
    refused = re.compile("permission denied|must be owner")
    with (
        connection.cursor() as cursor,
        pytest.raises(ProgrammingError, match=refused),
        transaction.atomic(),
    ):
        cursor.execute(statement)


def test_the_orm_cannot_change_a_final_invoice() -> None:
    invoice = billed()
    for change in (
        lambda: Invoice.objects.update(usage_fee=0),
        lambda: Invoice.objects.filter(pk=invoice.pk).update(currency="EUR"),
        lambda: InvoiceLine.objects.update(description="x"),
        lambda: InvoiceLine.objects.all().delete(),
        lambda: InvoiceLine.objects.bulk_update(
            [InvoiceLine(pk=line.pk, amount=0) for line in invoice.lines.all()], ["amount"]
        ),
    ):
        with pytest.raises(IntegrityError, match=FROZEN), transaction.atomic():
            change()
    assert InvoiceLinePart.objects.count() == InvoiceDiscount.objects.count() == 0
    assert InvoiceTransition.objects.count() == 1


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("billing_invoiceline", "invoice_id"),
        ("billing_invoicediscount", "invoice_id"),
        ("billing_invoicelinepart", "line_id"),
        ("billing_invoiceevidence", "line_id"),
        ("billing_billedlateusage", "invoice_id"),
        ("billing_invoiceadjustment", "line_id"),
    ],
)
def test_a_drafts_row_cannot_be_moved_to_a_final_invoice(table: str, key: str) -> None:
    invoice = billed()
    line = invoice.lines.first()
    final = {"invoice_id": invoice.pk, "line_id": line and line.pk}
    bob = open_account("Bob")
    record_usage(bob.pk, cpu_s=10**7)
    DiscountRule.objects.create(name="Off", kind="volume", percent=Decimal(50))
    draft = services.draft_invoice(bob.pk, period=MAY, now=MAY.end)
    draft.lines.update(position=9)
    row_of(table, draft)
    of_draft = {"invoice_id": draft.pk, "line_id": draft.lines.get().pk}
    with (
        connection.cursor() as cursor,
        pytest.raises(IntegrityError, match=FROZEN),
        transaction.atomic(),
    ):
        cursor.execute(
            f"UPDATE {table} SET {key} = {final[key]} WHERE {key} = {of_draft[key]}"  # noqa: S608 - names of this file
        )


def row_of(table: str, draft: Invoice) -> None:
    """Give the draft a row of the table that usage alone makes none of."""
    line = draft.lines.get()
    match table:
        case "billing_invoicelinepart":
            InvoiceLinePart.objects.create(
                line=line, position=1, kind="units", quantity=1, unit_size=1, unit_price=1
            )
        case "billing_invoiceevidence":
            InvoiceEvidence.objects.create(
                line=line,
                sandbox_id="sbx-2",
                life_id=7,
                container_id="7",
                started_at=NOON,
                window_count=1,
                first_window=NOON,
                last_window=NOON,
                sample_count=1,
                quantity=1,
                applied_ms=1,
                measured_ms=1,
                records_hash="0" * 64,
            )
        case "billing_billedlateusage":
            BilledLateUsage.objects.create(
                invoice=draft,
                meter="cpu",
                sandbox_id="sbx-2",
                life_id=7,
                window_start=NOON,
                quantity=1,
            )
        case "billing_invoiceadjustment":
            InvoiceAdjustment.objects.create(
                line=line,
                component="usage",
                billing_period_start=MAY.start,
                billing_period_end=MAY.end,
            )
