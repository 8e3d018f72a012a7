from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from pytest_django.fixtures import Settings
from stripe import StripeClient

from billing import services
from billing.lifecycle import InvoiceStatus, TransitionRefusedError
from billing.models import Account, Invoice
from payments.models import Collection, Difference, Payment, PaymentAttempt
from payments.services.anew import collect_anew
from payments.services.collecting import take_step
from payments.services.sweeps import begin_due_collections
from payments.services.voiding import reissue_invoice, void_invoice, why_not_void
from tests.billing.usage import open_account
from tests.local_stripe import API_KEY, LocalStripe
from tests.payments.month import BILLED, CARD, account_with_card, collect, collection_of, invoice_of
from tests.payments.test_collecting import HELD_S, customer_id, status_of
from tests.payments.test_offline import record, unknown_attempt

pytestmark = pytest.mark.django_db
LATER = BILLED + timedelta(days=1)
WRONG = services.Because("Wrong customer")


def declined(stripe: LocalStripe) -> Invoice:
    invoice = invoice_of(account_with_card(stripe, "pm_card_chargeCustomerFail"))
    collect()
    return invoice


def test_an_invoice_that_nobody_collects_is_voided() -> None:
    invoice = invoice_of(open_account())
    assert void_invoice(invoice.pk, because=WRONG, now=LATER).status == InvoiceStatus.VOID
    assert void_invoice(invoice.pk, because=WRONG, now=LATER).status == InvoiceStatus.VOID
    assert invoice.transitions.filter(to_status=InvoiceStatus.VOID).count() == 1


def test_it_is_voided_at_the_provider_first(stripe: LocalStripe) -> None:
    invoice = declined(stripe)
    collection = collection_of(invoice)
    for _ in range(2):
        void_invoice(invoice.pk, because=WRONG, now=LATER)
    collection.refresh_from_db()
    assert collection.status == Collection.Status.VOID
    assert collection.void_reason == "Void: Wrong customer"
    assert status_of(invoice) == InvoiceStatus.VOID
    assert len(stripe.log("PostInvoicesInvoiceVoid")) == 1
    with pytest.raises(RuntimeError, match="void"):
        stripe.pay(str(collection.provider_id))
    collect(LATER)
    assert Collection.objects.count() == 1


def test_what_is_half_made_there_is_deleted(stripe: LocalStripe) -> None:
    invoice = invoice_of(account_with_card(stripe))
    begin_due_collections(BILLED)
    take_step(collection_of(invoice).pk, now=BILLED)
    void_invoice(invoice.pk, because=WRONG, now=LATER)
    assert status_of(invoice) == InvoiceStatus.VOID
    assert len(stripe.log("DeleteInvoicesInvoice")) == 1
    assert stripe.charges() == []


def test_what_is_not_begun_there_is_dropped(stripe: LocalStripe) -> None:
    invoice = invoice_of(account_with_card(stripe))
    begin_due_collections(BILLED)
    void_invoice(invoice.pk, because=WRONG, now=LATER)
    assert status_of(invoice) == InvoiceStatus.VOID
    assert stripe.log("PostInvoices") == []


def test_another_is_issued_in_its_place_and_collected(stripe: LocalStripe) -> None:
    account = account_with_card(stripe)
    invoice = invoice_of(account)
    begin_due_collections(BILLED)
    following = reissue_invoice(invoice.pk, because=WRONG, now=LATER)
    assert following.replaces == invoice
    assert reissue_invoice(invoice.pk, because=WRONG, now=LATER) == following
    collect(LATER)
    assert status_of(following) == InvoiceStatus.PAID
    assert len(stripe.charges()) == 1


def test_an_invoice_that_was_paid_in_part_is_not_voided() -> None:
    account = open_account()
    invoice = invoice_of(account)
    record(account, "10")
    for void in (void_invoice, reissue_invoice, services.void_invoice):
        with pytest.raises(TransitionRefusedError, match=r"10.00 USD of it were paid"):
            void(invoice.pk, because=WRONG, now=LATER)
    assert status_of(invoice) == InvoiceStatus.PENDING


def test_billing_asks_payments_before_it_voids(stripe: LocalStripe) -> None:
    invoice = declined(stripe)
    with pytest.raises(TransitionRefusedError, match="It is being collected"):
        services.void_invoice(invoice.pk, because=WRONG, now=LATER)
    assert status_of(invoice) == InvoiceStatus.PAYMENT_FAILED


def test_nothing_is_taken_back_of_what_cannot_be_voided(stripe: LocalStripe) -> None:
    invoice = declined(stripe)
    services.retry_payment(invoice.pk, because=WRONG, now=LATER)
    with pytest.raises(TransitionRefusedError, match="After pending_retry"):
        void_invoice(invoice.pk, because=WRONG, now=LATER)
    assert collection_of(invoice).void_reason == ""


@pytest.mark.parametrize("kind", ["timeout_before", "timeout_after_success"])
def test_not_while_it_is_unknown_whether_the_card_was_charged(
    stripe: LocalStripe, kind: str
) -> None:
    _, invoice = unknown_attempt(stripe, kind)
    for void in (void_invoice, services.void_invoice):
        with pytest.raises(TransitionRefusedError, match=r"under way|being collected"):
            void(invoice.pk, because=WRONG, now=LATER)
    assert status_of(invoice) == InvoiceStatus.PENDING
    assert PaymentAttempt.objects.get().status == PaymentAttempt.Status.UNKNOWN


def test_what_the_customer_has_just_paid_there_is_paid(stripe: LocalStripe) -> None:
    invoice = declined(stripe)
    stripe.pay(str(collection_of(invoice).provider_id), token=CARD)
    with pytest.raises(TransitionRefusedError, match="were paid"):
        void_invoice(invoice.pk, because=WRONG, now=LATER)
    assert status_of(invoice) == InvoiceStatus.PAID
    assert Payment.objects.get().amount == 36


LOST = ["timeout_after_success", "timeout_before", "500_after_success"]


@pytest.mark.parametrize("kind", LOST)
def test_an_answer_that_does_not_come_is_made_up_for(stripe: LocalStripe, kind: str) -> None:
    invoice = declined(stripe)
    stripe.fault(kind, "PostInvoicesInvoiceVoid", seconds=HELD_S)
    assert void_invoice(invoice.pk, because=WRONG, now=LATER).status == InvoiceStatus.VOID
    assert collection_of(invoice).status == Collection.Status.VOID
    assert not Difference.objects.exists()


def test_while_the_provider_does_not_answer_it_is_not_voided(stripe: LocalStripe) -> None:
    invoice = declined(stripe)
    stripe.fault("reset_before", "PostInvoicesInvoiceVoid", times=3)
    with pytest.raises(TransitionRefusedError, match=r"It is being collected(.|\n)*Network error"):
        void_invoice(invoice.pk, because=WRONG, now=LATER)
    assert status_of(invoice) == InvoiceStatus.PAYMENT_FAILED
    # What was begun is gone on with.
    collect(LATER, until=LATER + timedelta(minutes=2))
    assert collection_of(invoice).status == Collection.Status.VOID
    assert void_invoice(invoice.pk, because=WRONG, now=LATER).status == InvoiceStatus.VOID


def test_without_a_key_it_is_said_what_is_missing(stripe: LocalStripe, settings: Settings) -> None:
    invoice = declined(stripe)
    settings.STRIPE_API_KEY = ""
    with pytest.raises(TransitionRefusedError, match="STRIPE_API_KEY"):
        void_invoice(invoice.pk, because=WRONG, now=LATER)
    assert status_of(invoice) == InvoiceStatus.PAYMENT_FAILED


def set_balance(stripe: LocalStripe, account: Account, balance: int) -> None:
    sdk = StripeClient(API_KEY, base_addresses={"api": stripe.url})
    sdk.v1.customers.update(customer_id(account), {"balance": balance})


def refused(stripe: LocalStripe) -> Invoice:
    """Return an invoice that the provider would change with a balance of the customer's."""
    account = account_with_card(stripe)
    invoice = invoice_of(account)
    set_balance(stripe, account, -500)
    collect()
    assert collection_of(invoice).status == Collection.Status.REFUSED
    return invoice


def test_what_the_provider_refused_is_voided_too(stripe: LocalStripe) -> None:
    invoice = refused(stripe)
    void_invoice(invoice.pk, because=WRONG, now=LATER)
    assert status_of(invoice) == InvoiceStatus.VOID


def test_what_the_provider_refused_is_collected_anew_when_a_person_says_so(
    stripe: LocalStripe,
) -> None:
    invoice = refused(stripe)
    collection = collection_of(invoice)
    set_balance(stripe, invoice.account, 0)
    assert collect_anew(collection.pk, now=LATER)
    assert not collect_anew(collection.pk, now=LATER)
    collect(LATER)
    assert status_of(invoice) == InvoiceStatus.PAID
    assert len(stripe.charges()) == 1
    # One that is open, or paid, is none.
    assert not collect_anew(collection_of(invoice).pk, now=LATER)


def test_the_database_refuses_what_no_service_asked(stripe: LocalStripe) -> None:
    collected = declined(stripe)
    account = open_account("Bob")
    paid_in_part = invoice_of(account)
    record(account, "10")
    for invoice in (collected, paid_in_part):
        refused_by = pytest.raises(IntegrityError, match="is being collected, or was paid in part")
        with refused_by, transaction.atomic():
            Invoice.objects.filter(pk=invoice.pk).update(status=InvoiceStatus.VOID)
    free = invoice_of(open_account("Eve"))
    assert why_not_void(free) == ""
    Invoice.objects.filter(pk=free.pk).update(status=InvoiceStatus.VOID)
