from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User

from billing import services
from billing.lifecycle import InvoiceStatus
from billing.models import Account, CreditGrant, Invoice
from billing.services.top_ups import prepaid_balance
from payments.models import Allocation, Collection, Payment, PaymentAttempt
from payments.owed import owed
from payments.services.changed import take_back_changed
from payments.services.collecting import take_step
from payments.services.offline import PaymentRefusedError, Transfer, record_offline_payment
from payments.services.overpaid import settle_credited
from payments.services.settling import settle_bill
from payments.services.sweeps import begin_due_collections
from tests.billing.usage import JUNE, bill, open_account, record_usage
from tests.local_stripe import LocalStripe
from tests.payments.month import BILLED, CARD, account_with_card, collect, collection_of, invoice_of
from tests.payments.test_collecting import HELD_S, customer_id, status_of

pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)
LATER = BILLED + DAY
RETRY = services.Because("Try again")


def transfer(amount: str, reference: str = "TX-1", at: datetime = BILLED) -> Transfer:
    return Transfer(Decimal(amount), reference, at)


def record(account: Account, amount: str, reference: str = "TX-1", **more: Any) -> Payment:
    given = {"user_id": None, "now": LATER, **more}
    return record_offline_payment(account.pk, transfer(amount, reference), **given)


def prepaid(account: Account) -> Decimal:
    return prepaid_balance(account)


def credit(invoice: Invoice, amount: str, reference: str) -> None:
    by = services.Author("Too much", reference=reference)
    services.credit_amount(invoice.pk, Decimal(amount), by=by, now=LATER)


def test_a_transfer_pays_its_invoice_and_says_who_recorded_it() -> None:
    account = open_account()
    invoice = invoice_of(account)
    clerk = User.objects.create_user("clerk")
    payment = record(account, "36", user_id=clerk.pk)
    assert status_of(invoice) == InvoiceStatus.PAID
    assert (payment.method, payment.reference, payment.recorded_by) == ("offline", "TX-1", clerk)
    assert payment.allocations.get().invoice == invoice
    last = invoice.transitions.last()
    assert last is not None
    assert (last.by, last.reason) == (clerk, "Paid another way: TX-1")


def test_the_same_transfer_twice_is_one_payment() -> None:
    account = open_account()
    invoice_of(account)
    first = record(account, "36")
    assert record(account, "36.00") == first
    assert record(account, "36", " TX-1 ") == first
    assert Payment.objects.count() == Allocation.objects.count() == 1
    assert prepaid(account) == 0


@pytest.mark.parametrize(
    ("amount", "reference", "at", "message"),
    [
        ("36", "TX-1", BILLED, "TX-1' is a payment of 12.00"),
        ("0", "TX-2", BILLED, "above 0"),
        ("-1", "TX-2", BILLED, "above 0"),
        ("NaN", "TX-2", BILLED, "above 0"),
        ("1.001", "TX-2", BILLED, "whole cents"),
        ("1", "  ", BILLED, "bank's reference"),
        ("1", "x" * 101, BILLED, "100 characters"),
        ("1", "TX-2", LATER + DAY, "Record it then"),
    ],
)
def test_a_transfer_that_cannot_be_is_refused(
    amount: str, reference: str, at: datetime, message: str
) -> None:
    account = open_account()
    invoice_of(account)
    record(account, "12")
    with pytest.raises(PaymentRefusedError, match=message):
        record_offline_payment(account.pk, transfer(amount, reference, at), user_id=None, now=LATER)
    assert Payment.objects.count() == 1


def test_invoices_of_others_and_paid_ones_are_not_named() -> None:
    account, other = open_account(), open_account("Bob")
    invoice, foreign = invoice_of(account), invoice_of(other)
    with pytest.raises(PaymentRefusedError, match="not one of this account's"):
        record(account, "36", invoice_ids=[foreign.pk])
    record(account, "36")
    with pytest.raises(PaymentRefusedError, match="is paid"):
        record(account, "1", "TX-2", invoice_ids=[invoice.pk])
    assert status_of(foreign) == InvoiceStatus.PENDING


def two_invoices(account: Account) -> tuple[Invoice, Invoice]:
    first = invoice_of(account)
    record_usage(account.pk, JUNE.start + DAY, cpu_s=1_000_000)
    return first, bill(account, JUNE)


def test_money_goes_to_the_oldest_first_and_the_rest_becomes_credit() -> None:
    account = open_account()
    first, second = two_invoices(account)
    record(account, "50", now=JUNE.end + DAY)
    assert status_of(first) == status_of(second) == InvoiceStatus.PAID
    assert prepaid(account) == 2
    amounts = sorted(Allocation.objects.values_list("amount", flat=True))
    assert amounts == [2, 12, 36]


def test_money_goes_to_the_invoices_named_in_their_order() -> None:
    account = open_account()
    first, second = two_invoices(account)
    record(account, "20", invoice_ids=[second.pk, first.pk, second.pk], now=JUNE.end + DAY)
    assert status_of(second) == InvoiceStatus.PAID
    assert status_of(first) == InvoiceStatus.PENDING
    assert owed(first).amount == 28


def test_a_payment_in_part_lowers_what_is_owed_until_all_is_paid() -> None:
    account = open_account()
    invoice = invoice_of(account)
    record(account, "10")
    assert status_of(invoice) == InvoiceStatus.PENDING
    assert owed(invoice).amount == 26
    record(account, "26", "TX-2")
    assert status_of(invoice) == InvoiceStatus.PAID
    assert owed(invoice).amount == 0


def test_what_is_written_off_may_be_paid_all_the_same() -> None:
    account = open_account()
    invoice = invoice_of(account)
    services.write_off(invoice.pk, because=services.Because("Gone"), now=BILLED)
    record(account, "36")
    assert status_of(invoice) == InvoiceStatus.PAID


def test_the_card_is_charged_for_the_rest_only(stripe: LocalStripe) -> None:
    account = account_with_card(stripe)
    invoice = invoice_of(account)
    record(account, "10")
    collect(LATER)
    assert status_of(invoice) == InvoiceStatus.PAID
    assert [charge["amount"] for charge in stripe.charges()] == [2600]


def test_what_waits_at_the_provider_is_taken_back_and_asked_for_anew(stripe: LocalStripe) -> None:
    account = account_with_card(stripe, "pm_card_chargeCustomerFail")
    invoice = invoice_of(account)
    collect()
    first = collection_of(invoice)
    record(account, "10")
    collect(LATER)
    first.refresh_from_db()
    assert first.status == Collection.Status.VOID
    with pytest.raises(RuntimeError, match="void"):
        stripe.pay(str(first.provider_id), token=CARD)
    stripe.attach(customer_id(account), CARD)
    account.payment_methods.update(is_default=False)
    services.retry_payment(invoice.pk, because=RETRY, now=LATER)
    collect(LATER)
    assert status_of(invoice) == InvoiceStatus.PAID
    assert [charge["amount"] for charge in stripe.charges()] == [2600]


def test_what_is_paid_another_way_is_not_asked_for_at_the_provider(stripe: LocalStripe) -> None:
    account = account_with_card(stripe)
    invoice = invoice_of(account)
    begin_due_collections(BILLED)
    # One step is taken, and its invoice is a draft there.
    assert take_step(collection_of(invoice).pk, now=BILLED)
    record(account, "36")
    collect(LATER)
    assert collection_of(invoice).status == Collection.Status.VOID
    assert stripe.charges() == []
    assert status_of(invoice) == InvoiceStatus.PAID


@pytest.mark.parametrize("kind", ["timeout_after_success", "reset_after_success"])
def test_a_draft_whose_deletion_was_not_answered_is_gone(stripe: LocalStripe, kind: str) -> None:
    account = account_with_card(stripe)
    invoice = invoice_of(account)
    begin_due_collections(BILLED)
    take_step(collection_of(invoice).pk, now=BILLED)
    record(account, "36")
    stripe.fault(kind, "DeleteInvoicesInvoice", seconds=HELD_S)
    collect(LATER, until=LATER + timedelta(minutes=1))
    assert collection_of(invoice).status == Collection.Status.VOID


def unknown_attempt(stripe: LocalStripe, kind: str) -> tuple[Account, Invoice]:
    """Leave a payment by card that was asked for, and not answered."""
    account = account_with_card(stripe)
    invoice = invoice_of(account)
    stripe.fault(kind, "PostInvoicesInvoicePay", seconds=HELD_S)
    collect()
    assert PaymentAttempt.objects.get().status == PaymentAttempt.Status.UNKNOWN
    return account, invoice


def test_a_card_that_was_charged_meanwhile_makes_credit_of_what_is_too_much(
    stripe: LocalStripe,
) -> None:
    account, invoice = unknown_attempt(stripe, "timeout_after_success")
    record(account, "36")
    assert status_of(invoice) == InvoiceStatus.PAID
    collect(LATER, until=LATER + timedelta(minutes=1))
    assert len(stripe.charges()) == 1
    # Both sides took 36: one for the invoice, one is the customer's.
    assert prepaid(account) == 36
    assert collection_of(invoice).status == Collection.Status.PAID


@pytest.mark.parametrize("kind", ["timeout_before", "500_before"])
def test_a_charge_that_never_arrived_is_not_asked_for_again(stripe: LocalStripe, kind: str) -> None:
    account, invoice = unknown_attempt(stripe, kind)
    record(account, "36")
    collect(LATER, until=LATER + timedelta(minutes=1))
    assert stripe.charges() == []
    assert prepaid(account) == 0
    collection = collection_of(invoice)
    assert collection.status == Collection.Status.VOID
    assert collection.attempts.get().status == PaymentAttempt.Status.ABANDONED


def test_what_the_customer_pays_while_it_is_taken_back_is_settled(stripe: LocalStripe) -> None:
    account = account_with_card(stripe, "pm_card_chargeCustomerFail")
    invoice = invoice_of(account)
    collect()
    collection = collection_of(invoice)
    record(account, "10")
    stripe.pay(str(collection.provider_id), token=CARD)
    collect(LATER)
    collection.refresh_from_db()
    assert collection.status == Collection.Status.PAID
    assert status_of(invoice) == InvoiceStatus.PAID
    assert prepaid(account) == 10
    assert settle_bill(str(collection.provider_id), now=LATER)
    assert prepaid(account) == 10


def test_what_is_credited_is_taken_back_at_the_provider_before_anybody_pays(
    stripe: LocalStripe,
) -> None:
    invoice = invoice_of(account_with_card(stripe, "pm_card_chargeCustomerFail"))
    collect()
    credit(invoice, "6", "c1")
    assert take_back_changed(LATER) == 1
    assert take_back_changed(LATER) == 0
    collect(LATER)
    assert collection_of(invoice).status == Collection.Status.VOID


def test_a_note_over_what_was_paid_gives_the_rest_back_as_credit() -> None:
    account = open_account()
    invoice = invoice_of(account)
    record(account, "20")
    credit(invoice, "16", "c1")
    settle_credited(LATER)
    assert status_of(invoice) == InvoiceStatus.PAID
    assert prepaid(account) == 0
    # It is paid, so billing gives this one by itself.
    credit(invoice, "5", "c2")
    settle_credited(LATER)
    assert prepaid(account) == 5


def test_notes_over_what_was_paid_give_each_what_it_is_too_much() -> None:
    account = open_account()
    invoice = invoice_of(account)
    record(account, "30")
    credit(invoice, "10", "c1")
    for _ in range(3):
        settle_credited(LATER)
    assert status_of(invoice) == InvoiceStatus.PAID
    assert prepaid(account) == 4
    assert CreditGrant.objects.filter(reference__startswith="overpaid:").count() == 1
    assert settle_credited(LATER) == 0


def test_notes_that_come_before_the_sweep_are_added_up() -> None:
    account = open_account()
    invoice = invoice_of(account)
    record(account, "30")
    # 10 are owed as billing knows it after the first, and the second takes them.
    credit(invoice, "26", "c1")
    credit(invoice, "10", "c2")
    settle_credited(LATER)
    settle_credited(LATER)
    assert status_of(invoice) == InvoiceStatus.PAID
    assert prepaid(account) == 30
