from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from django.db.models import Sum
from pytest_django.fixtures import Settings
from stripe import StripeClient

from billing.lifecycle import InvoiceStatus
from billing.models import Account, Invoice
from billing.services import Author, Because, credit_amount, retry_payment
from payments import tasks
from payments.models import (
    Allocation,
    Collection,
    Customer,
    Difference,
    Payment,
    PaymentAttempt,
    ProviderCall,
)
from payments.provider import NotSetUpError
from payments.services.collecting import take_step
from payments.services.providing import provider
from payments.services.settling import settle_bill
from payments.services.sweeps import begin_due_collections, due_steps
from tests.billing.usage import JUNE, OPENED, bill, open_account, record_usage
from tests.local_stripe import API_KEY, LocalStripe
from tests.payments.month import BILLED, account_with_card, collect, collection_of, invoice_of

pytestmark = pytest.mark.django_db
SOON = timedelta(hours=1)
DAY = timedelta(days=1)
HELD_S = 0.6
LOST = ("timeout_after_success", "timeout_before", "reset_before", "reset_after_success")
FAILING = (*LOST, "500_after_success", "500_before", "409", "429")
OPERATIONS = (
    "PostCustomers",
    "PostInvoices",
    "PostInvoicesInvoiceAddLines",
    "PostInvoicesInvoiceFinalize",
    "PostInvoicesInvoicePay",
    "GetInvoicesInvoice",
)


def status_of(invoice: Invoice) -> str:
    invoice.refresh_from_db()
    return invoice.status


def customer_id(account: Account) -> str:
    return str(Customer.objects.get(account=account).provider_id)


def test_a_final_invoice_is_collected_to_the_cent(stripe: LocalStripe) -> None:
    invoice = invoice_of(account_with_card(stripe, plan_code="professional"))
    collect()
    assert status_of(invoice) == InvoiceStatus.PAID
    [charge] = stripe.charges()
    assert charge["amount"] == int(invoice.amount_due * 100)
    payment = Payment.objects.get()
    assert payment.amount == invoice.amount_due
    assert payment.allocations.get().invoice == invoice
    collection = collection_of(invoice)
    assert collection.status == Collection.Status.PAID
    assert collection.attempts.get().status == PaymentAttempt.Status.SUCCEEDED


def test_the_providers_invoice_has_our_lines_and_says_what_it_is_made_of(
    stripe: LocalStripe,
) -> None:
    account = account_with_card(stripe, plan_code="professional")
    invoice = invoice_of(account, cpu_s=12_000_000)
    collect()
    made = stripe.log("PostInvoices")[0]["given"]
    assert made["auto_advance"] is False
    assert made["pending_invoice_items_behavior"] == "exclude"
    assert made["metadata"]["account_id"] == str(account.pk)
    assert made["metadata"]["cpu"] == "144.00 USD"
    assert made["metadata"]["credits"] == "-100.00 USD"
    assert made["metadata"]["fees"] == "99.00 USD"
    lines = stripe.log("PostInvoicesInvoiceAddLines")[0]["given"]["lines"]
    assert sum(line["amount"] for line in lines) == int(invoice.amount_due * 100)
    assert [line["amount"] for line in lines] == [9900, 14400, -10000]
    assert all(line["period"]["start"] < line["period"]["end"] for line in lines)


def test_collecting_again_changes_nothing(stripe: LocalStripe) -> None:
    invoice = invoice_of(account_with_card(stripe))
    collect()
    collection = collection_of(invoice)
    calls = ProviderCall.objects.count()
    for _ in range(3):
        collect(BILLED + DAY)
        settle_bill(str(collection.provider_id), now=BILLED + DAY)
    assert len(stripe.charges()) == 1
    assert ProviderCall.objects.count() == calls
    assert Payment.objects.count() == 1
    assert invoice.transitions.filter(to_status=InvoiceStatus.PAID).count() == 1


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("kind", FAILING)
def test_a_call_that_goes_wrong_is_made_up_for_without_charging_twice(
    stripe: LocalStripe, kind: str, operation: str
) -> None:
    account = open_account()
    invoice = invoice_of(account)
    stripe.fault(kind, operation, seconds=HELD_S)
    # As long as a search at the provider may not know what was just made.
    collect(until=BILLED + timedelta(minutes=4))
    # It has a customer by now, which has no card yet.
    stripe.attach(customer_id(account), "pm_card_visa")
    if status_of(invoice) == InvoiceStatus.PAYMENT_FAILED:
        retry_payment(invoice.pk, because=Because("A card was added"), now=BILLED + SOON)
        if operation == "PostInvoicesInvoicePay":
            stripe.clear_faults()
            stripe.fault(kind, operation, seconds=HELD_S)
    collect(BILLED + SOON, until=BILLED + SOON + timedelta(minutes=3))
    assert status_of(invoice) == InvoiceStatus.PAID
    [charge] = stripe.charges()
    assert charge["amount"] == int(invoice.amount_due * 100)
    assert stripe.ledger()["usd"]["charged"] == charge["amount"]
    assert Payment.objects.aggregate(sum=Sum("amount"))["sum"] == invoice.amount_due
    assert not Difference.objects.exists()


def test_a_declined_card_fails_the_payment_and_another_try_is_another_attempt(
    stripe: LocalStripe,
) -> None:
    account = account_with_card(stripe, "pm_card_chargeCustomerFail")
    invoice = invoice_of(account)
    collect()
    assert status_of(invoice) == InvoiceStatus.PAYMENT_FAILED
    attempt = PaymentAttempt.objects.get()
    assert (attempt.status, attempt.failure_code) == ("failed", "card_declined")
    assert attempt.decline_code
    # Nobody asks again by himself.
    collect(BILLED + DAY)
    assert PaymentAttempt.objects.count() == 1
    stripe.attach(customer_id(account), "pm_card_visa")
    account.payment_methods.update(is_default=False)
    retry_payment(invoice.pk, because=Because("Another card"), now=BILLED + DAY)
    collect(BILLED + DAY)
    assert status_of(invoice) == InvoiceStatus.PAID
    assert [a.number for a in PaymentAttempt.objects.order_by("pk")] == [1, 2]
    assert Collection.objects.count() == 1
    assert len(stripe.charges()) == 1


def test_a_payment_that_the_customer_must_confirm_is_paid_on_the_providers_page(
    stripe: LocalStripe,
) -> None:
    invoice = invoice_of(account_with_card(stripe, "pm_card_authenticationRequired"))
    collect()
    assert status_of(invoice) == InvoiceStatus.PAYMENT_FAILED
    collection = collection_of(invoice)
    assert collection.attempts.get().status == PaymentAttempt.Status.ACTION_REQUIRED
    assert collection.hosted_url
    stripe.authenticate(str(collection.provider_id))
    assert settle_bill(str(collection.provider_id), now=BILLED + DAY)
    assert status_of(invoice) == InvoiceStatus.PAID
    assert len(stripe.charges()) == 1


def test_without_a_payment_method_the_invoice_waits_on_the_providers_page(
    stripe: LocalStripe,
) -> None:
    invoice = invoice_of(open_account())
    collect()
    assert status_of(invoice) == InvoiceStatus.PAYMENT_FAILED
    assert PaymentAttempt.objects.get().failure_code == "no_payment_method"
    collection = collection_of(invoice)
    assert collection.status == Collection.Status.OPEN
    stripe.pay(str(collection.provider_id), token="pm_card_visa")  # noqa: S106 - a test card
    settle_bill(str(collection.provider_id), now=BILLED + DAY)
    assert status_of(invoice) == InvoiceStatus.PAID


def test_a_customers_balance_at_the_provider_stops_the_payment_and_is_listed(
    stripe: LocalStripe,
) -> None:
    account = account_with_card(stripe)
    invoice = invoice_of(account)
    sdk = StripeClient(API_KEY, base_addresses={"api": stripe.url})
    sdk.v1.customers.update(customer_id(account), {"balance": -500})
    collect()
    assert status_of(invoice) == InvoiceStatus.PENDING
    assert stripe.charges() == []
    difference = Difference.objects.get()
    assert difference.kind == Difference.Kind.TOTALS_DIFFER
    assert "balance" in difference.theirs
    collection = collection_of(invoice)
    assert collection.status == Collection.Status.REFUSED
    # Nothing is collected until a person has looked.
    collect(BILLED + DAY)
    assert Collection.objects.count() == 1


def test_an_invoice_below_the_smallest_charge_is_collected_with_the_next(
    stripe: LocalStripe,
) -> None:
    account = account_with_card(stripe)
    small = invoice_of(account, cpu_s=25_000)
    assert small.amount_due == Decimal("0.30")
    collect()
    assert status_of(small) == InvoiceStatus.PENDING
    assert not Collection.objects.exists()
    record_usage(account.pk, JUNE.start + DAY, cpu_s=3_000_000)
    following = bill(account, JUNE)
    collect(JUNE.end + DAY)
    assert status_of(small) == status_of(following) == InvoiceStatus.PAID
    [charge] = stripe.charges()
    assert charge["amount"] == int((small.amount_due + following.amount_due) * 100)
    assert {a.invoice_id for a in Allocation.objects.all()} == {small.pk, following.pk}


def test_small_invoices_are_collected_once_they_suffice_together(stripe: LocalStripe) -> None:
    account = account_with_card(stripe)
    first = invoice_of(account, cpu_s=25_000)
    record_usage(account.pk, JUNE.start + DAY, cpu_s=25_000)
    second = bill(account, JUNE)
    collect(JUNE.end + DAY)
    assert status_of(first) == status_of(second) == InvoiceStatus.PAID
    assert [charge["amount"] for charge in stripe.charges()] == [60]


def test_an_invoice_of_nothing_is_paid_without_the_provider(stripe: LocalStripe) -> None:
    account = account_with_card(stripe, plan_code="professional")
    account.subscriptions.update(fee=0)
    invoice = invoice_of(account)
    assert invoice.amount_due == 0
    collect()
    assert status_of(invoice) == InvoiceStatus.PAID
    assert stripe.log("PostInvoices") == []


def test_what_is_credited_meanwhile_is_not_charged(stripe: LocalStripe) -> None:
    account = account_with_card(stripe, "pm_card_chargeCustomerFail")
    invoice = invoice_of(account)
    collect()
    by = Author("Too much", reference="c1")
    credit_amount(invoice.pk, Decimal("6.00"), by=by, now=BILLED + SOON)
    stripe.attach(customer_id(account), "pm_card_visa")
    account.payment_methods.update(is_default=False)
    retry_payment(invoice.pk, because=Because("Try again"), now=BILLED + DAY)
    collect(BILLED + DAY, until=BILLED + DAY + timedelta(minutes=1))
    assert status_of(invoice) == InvoiceStatus.PAID
    assert [charge["amount"] for charge in stripe.charges()] == [3000]
    assert {c.status for c in Collection.objects.all()} == {"void", "paid"}


def test_a_collection_is_one_workers_at_a_time(stripe: LocalStripe) -> None:
    invoice = invoice_of(account_with_card(stripe))
    begin_due_collections(BILLED)
    [collection_id] = due_steps(BILLED)
    Collection.objects.update(claimed_until=BILLED + timedelta(seconds=45))
    assert not take_step(collection_id, now=BILLED)
    assert due_steps(BILLED) == []
    # Its worker died: the next one goes on.
    collect(BILLED + timedelta(seconds=46))
    assert status_of(invoice) == InvoiceStatus.PAID


def test_without_a_key_invoices_wait_and_it_is_said_what_is_missing(
    settings: Settings,
) -> None:
    settings.STRIPE_API_KEY = ""
    invoice = invoice_of(open_account())
    assert begin_due_collections(OPENED) == 0
    assert due_steps(OPENED) == []
    assert status_of(invoice) == InvoiceStatus.PENDING
    with pytest.raises(NotSetUpError, match="STRIPE_API_KEY"):
        provider()


def test_a_step_that_fails_unexpectedly_is_set_aside_and_made_up_for(
    stripe: LocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    invoice = invoice_of(account_with_card(stripe))
    begin_due_collections(BILLED)
    [collection_id] = due_steps(BILLED)
    with monkeypatch.context() as broken:
        broken.setattr("payments.services.preparing.bill_lines", lambda _: 1 / 0)
        tasks.collect(str(collection_id))
    collection = Collection.objects.get()
    assert (collection.failures, collection.waiting_for) == (1, "division by zero")
    assert collection.claimed_until is None
    tasks.collect(str(collection_id))
    assert status_of(invoice) == InvoiceStatus.PENDING
    assert collection.try_at
    collect(collection.try_at)
    assert status_of(invoice) == InvoiceStatus.PAID
