"""What others do in the moment between two of a step's own."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from billing.lifecycle import InvoiceStatus
from billing.models import Invoice
from billing.services import Because, retry_payment
from payments.models import Collection, PaymentAttempt
from payments.provider import ProviderBill
from payments.services import collecting
from payments.services.collections import begin_collecting
from tests.local_stripe import LocalStripe
from tests.payments.month import BILLED, account_with_card, collect, invoice_of

pytestmark = pytest.mark.django_db


def status_of(invoice: Invoice) -> str:
    invoice.refresh_from_db()
    return invoice.status


def test_a_retry_that_begins_as_a_collection_comes_to_rest_is_not_lost(
    stripe: LocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    invoice = invoice_of(account_with_card(stripe, "pm_card_chargeCustomerFail"))
    rest = collecting._rest

    def rest_late(collection: Collection, bill: ProviderBill, *, now: datetime) -> bool:
        if collection.attempts.count() == 1:
            retry_payment(invoice.pk, because=Because("Try again"), now=now)
            begin_collecting(invoice.pk, now=now)
        return rest(collection, bill, now=now)

    monkeypatch.setattr(collecting, "_rest", rest_late)
    collect(until=BILLED + timedelta(minutes=1))
    assert [attempt.status for attempt in PaymentAttempt.objects.order_by("number")] == [
        PaymentAttempt.Status.FAILED,
        PaymentAttempt.Status.FAILED,
    ]
    assert status_of(invoice) == InvoiceStatus.PAYMENT_FAILED
