"""What others do in the moment between two of a step's own."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from billing.lifecycle import InvoiceStatus
from billing.models import Invoice
from billing.services import Author, Because, credit_amount, retry_payment
from payments.models import Collection, PaymentAttempt
from payments.provider import ProviderBill
from payments.services import collecting, paying, preparing, sweeps
from payments.services.collecting import take_step
from payments.services.collections import begin_collecting
from payments.services.refusing import undo_bill
from payments.services.settling import settle_bill
from payments.services.sweeps import begin_due_collections, due_steps
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


class KilledError(BaseException):
    """The worker is gone."""


def kill(*_arguments: object, **_named: object) -> None:
    raise KilledError


def test_a_decline_that_a_killed_worker_heard_is_not_tried_anew(
    stripe: LocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    invoice = invoice_of(account_with_card(stripe, "pm_card_chargeCustomerFail"))
    with monkeypatch.context() as patched:
        patched.setattr(paying, "_fail", kill)
        with pytest.raises(KilledError):
            collect()
    collect(BILLED + timedelta(minutes=1), until=BILLED + timedelta(minutes=2))
    assert status_of(invoice) == InvoiceStatus.PAYMENT_FAILED
    attempt = PaymentAttempt.objects.get()
    assert (attempt.status, attempt.failure_code) == ("failed", "card_declined")
    assert len(stripe.charges(succeeded=False)) == 1


def test_an_authentication_that_a_killed_worker_heard_of_is_the_customers_turn(
    stripe: LocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    invoice_of(account_with_card(stripe, "pm_card_authenticationRequired"))
    with monkeypatch.context() as patched:
        patched.setattr(paying, "_fail", kill)
        with pytest.raises(KilledError):
            collect()
    collect(BILLED + timedelta(minutes=1), until=BILLED + timedelta(minutes=2))
    assert PaymentAttempt.objects.get().status == PaymentAttempt.Status.ACTION_REQUIRED


def test_an_invoice_that_cannot_be_begun_stops_no_other(
    stripe: LocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = invoice_of(account_with_card(stripe))
    invoice = invoice_of(account_with_card(stripe, name="Grace"))

    def begin_but_one(invoice_id: int, *, now: datetime) -> Collection | None:
        if invoice_id == odd.pk:
            raise ValueError("It is odd.")
        return begin_collecting(invoice_id, now=now)

    monkeypatch.setattr(sweeps, "begin_collecting", begin_but_one)
    collect()
    assert status_of(invoice) == InvoiceStatus.PAID
    assert status_of(odd) == InvoiceStatus.PENDING


def test_what_is_taken_back_while_it_is_made_and_heard_of_first_is_collected_anew(
    stripe: LocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    invoice = invoice_of(account_with_card(stripe))
    begin_due_collections(BILLED)
    [collection_id] = due_steps(BILLED)
    take_step(collection_id, now=BILLED)
    take_step(collection_id, now=BILLED)
    # It is final there, and whoever made it so was killed before it was written down.
    Collection.objects.update(status=Collection.Status.PREPARING)
    by = Author("Too much", reference="c1")
    credit_amount(invoice.pk, Decimal("6.00"), by=by, now=BILLED)

    def undo_and_be_told(collection: Collection, bill: ProviderBill, *, now: datetime) -> None:
        undo_bill(collection, bill, now=now)
        settle_bill(bill.id, now=now)

    monkeypatch.setattr(preparing, "undo_bill", undo_and_be_told)
    collect(until=BILLED + timedelta(minutes=1))
    assert status_of(invoice) == InvoiceStatus.PAID
    assert [charge["amount"] for charge in stripe.charges()] == [3000]
