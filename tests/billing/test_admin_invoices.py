from __future__ import annotations

from decimal import Decimal

import pytest
from django.test import Client

from billing import services
from billing.models import DiscountRule, Invoice, InvoiceTransition
from tests.billing import admin_pages
from tests.billing.admin_pages import press, text_of
from tests.billing.usage import (
    AFTER_MAY,
    MAY,
    NOON,
    open_account,
    read_streams_until,
    record_usage,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def finance() -> Client:
    return admin_pages.finance()


@pytest.fixture
def invoice() -> Invoice:
    account = open_account(plan_code="professional")
    record_usage(account.pk, NOON, cpu_s=10**7)
    read_streams_until(AFTER_MAY)
    draft = services.draft_invoice(account.pk, period=MAY, now=AFTER_MAY)
    final = services.finalise_invoice(draft.pk, now=AFTER_MAY)
    assert final is not None
    return final


def last_change() -> tuple[str, str, str | None]:
    row = InvoiceTransition.objects.select_related("by").order_by("-id")[0]
    return (row.to_status, row.reason, row.by.get_username() if row.by else None)


@pytest.mark.parametrize(
    ("button", "before", "status"),
    [
        ("write_off", None, "uncollectible"),
        ("void", None, "void"),
        ("retry_payment", "mark_payment_failed", "pending_retry"),
    ],
)
def test_a_button_changes_the_state_for_a_reason(
    button: str, before: str | None, status: str, finance: Client, invoice: Invoice
) -> None:
    if before:
        because = services.Because("Declined")
        getattr(services, before)(invoice.pk, because=because, now=AFTER_MAY)
    said = text_of(press(finance, invoice, button, reason="As agreed"))
    assert "As agreed" in said  # in the history on the page
    invoice.refresh_from_db()
    assert invoice.status == status
    assert last_change() == (status, "As agreed", "finance")


def test_an_invoice_is_voided_and_issued_again(finance: Client, invoice: Invoice) -> None:
    DiscountRule.objects.create(name="Forgotten", kind="volume", percent=Decimal(50))
    said = text_of(press(finance, invoice, "issue_again", reason="A rule was missing"))
    assert "2026-000002: Paid." in said or "2026-000002: Pending." in said
    again = Invoice.objects.get(replaces=invoice)
    assert (again.discounts, again.number) == (60, "2026-000002")


def test_what_may_not_follow_is_refused_with_all_that_was_typed(
    finance: Client, invoice: Invoice
) -> None:
    said = text_of(press(finance, invoice, "retry_payment", reason="Try again"))
    assert "After pending comes" in said
    assert "Try again" in said
    invoice.refresh_from_db()
    assert invoice.status == "pending"


def test_a_change_without_a_reason_is_refused(finance: Client, invoice: Invoice) -> None:
    press(finance, invoice, "void", reason="")
    invoice.refresh_from_db()
    assert invoice.status == "pending"


@pytest.mark.parametrize("button", ["retry_payment", "write_off", "void", "issue_again"])
def test_who_may_only_look_changes_nothing(button: str, invoice: Invoice) -> None:
    assert press(admin_pages.viewer(), invoice, button, reason="x").status_code == 403
    invoice.refresh_from_db()
    assert invoice.status == "pending"
