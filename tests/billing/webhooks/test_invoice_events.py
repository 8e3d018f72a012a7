from __future__ import annotations

from datetime import timedelta

import pytest
from django.db.models import Max

from billing import services
from billing.models import Event, InvoiceTransition, MailCursor
from billing.services import Because, outgoing_invoices
from billing.services.outgoing_invoices import OVERLAP
from tests.billing.mail import issue_invoice
from tests.billing.usage import AFTER_MAY, OPENED, open_account

pytestmark = pytest.mark.django_db

LATER = AFTER_MAY + timedelta(minutes=1)
WHY = Because("Because")


@pytest.fixture(autouse=True)
def _events_began_with_the_account() -> None:
    MailCursor.objects.update_or_create(source="invoice events", defaults={"looked_until": OPENED})


def types() -> list[str]:
    return list(Event.objects.order_by("created_at", "subject_key").values_list("type", flat=True))


def test_what_becomes_of_an_invoice_is_written_once() -> None:
    invoice = issue_invoice(open_account())
    for _ in range(2):
        assert services.write_invoice_events(LATER) is False
    event = Event.objects.get()
    assert (event.type, event.account_id) == ("invoice.finalized", invoice.account_id)
    assert event.data == {
        "at": "2026-06-01T00:15:00Z",
        "invoice": {
            "id": invoice.pk,
            "number": "2026-000001",
            "kind": "usage",
            "status": "pending",
            "period": {"start": "2026-05-01T00:00:00Z", "end": "2026-06-01T00:00:00Z"},
            "currency": "USD",
            "total_amount": "12.00",
            "amount_due": "12.00",
        },
    }
    services.mark_payment_failed(invoice.pk, because=WHY, now=LATER)
    services.retry_payment(invoice.pk, because=WHY, now=LATER)
    services.mark_payment_failed(invoice.pk, because=WHY, now=LATER)
    services.mark_paid(invoice.pk, because=WHY, now=LATER)
    for _ in range(2):
        services.write_invoice_events(LATER + timedelta(minutes=1))
    failed = "invoice.payment_failed"
    assert types() == ["invoice.finalized", failed, failed, "invoice.paid"]


def test_a_batch_that_is_full_is_followed_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing_invoices, "EVENTS_A_BATCH", 1)
    for name in ("Ada", "Bob"):
        issue_invoice(open_account(name))
    assert [services.write_invoice_events(LATER) for _ in range(3)] == [True, True, False]
    assert types() == ["invoice.finalized"] * 2


def test_a_change_that_is_committed_late_is_not_lost() -> None:
    services.write_invoice_events(AFTER_MAY + OVERLAP)
    assert MailCursor.objects.get(source="invoice events").looked_until == AFTER_MAY
    issue_invoice(open_account())  # at AFTER_MAY
    assert InvoiceTransition.objects.aggregate(Max("at"))["at__max"] == AFTER_MAY
    services.write_invoice_events(AFTER_MAY + OVERLAP + timedelta(minutes=1))
    assert types() == ["invoice.finalized"]
