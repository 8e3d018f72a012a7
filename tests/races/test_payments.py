"""A card that is charged while its invoice is voided, or paid by a bank transfer."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import psycopg
import pytest
from django.db import connections, transaction
from django.db.models import Sum

from billing.lifecycle import InvoiceStatus, TransitionRefusedError
from billing.models import Invoice
from billing.services import Because
from billing.services.top_ups import prepaid_balance
from payments.models import Allocation, Collection, Payment, PaymentAttempt
from payments.owed import owed
from payments.services import providing
from payments.services.collecting import take_step
from payments.services.offline import Transfer, record_offline_payment
from payments.services.sweeps import begin_due_collections
from payments.services.voiding import void_invoice
from tests.local_stripe import LocalStripe
from tests.payments.month import BILLED, account_with_card, collect, invoice_of
from tests.races.workers import TIMEOUT_S, run_at_once

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(600)]

INVOICES = int(os.environ.get("PAYMENT_RACES", "12"))
LATER = BILLED + timedelta(hours=1)
DUE = Decimal(36)
WRONG = Because("Wrong customer")


def being_collected(stripe: LocalStripe) -> list[Invoice]:
    """Return invoices that are open at the provider, and whose cards are about to be charged."""
    invoices = [
        invoice_of(account_with_card(stripe, name=f"Ada {number}")) for number in range(INVOICES)
    ]
    begin_due_collections(BILLED)
    for collection in Collection.objects.all():
        while Collection.objects.get(pk=collection.pk).status != Collection.Status.OPEN:
            take_step(collection.pk, now=BILLED)
    assert set(PaymentAttempt.objects.values_list("status", flat=True)) == {"pending"}
    return invoices


def race(
    invoices: list[Invoice],
    other: Callable[[Invoice], object],
    *lost: type[Exception],
) -> None:
    """Charge the invoices' cards in one process, and do the other thing in another.

    Both begin each invoice at the same moment. Only a control's charging may end in an error.
    """
    start = multiprocessing.get_context("fork").Barrier(2)

    def work(worker: int) -> None:
        # A connection to the provider that both sides of a fork used would be spoilt for both.
        providing._stripe.cache_clear()
        for invoice in invoices:
            start.wait(TIMEOUT_S)
            if worker:
                other(invoice)
            else:
                part = invoice.collection_parts.order_by("pk")[0]
                with contextlib.suppress(*lost):
                    while take_step(part.collection_id, now=BILLED):
                        pass

    assert run_at_once(work, workers=2) == [0, 0]
    providing._stripe.cache_clear()


def charged(stripe: LocalStripe, invoice: Invoice) -> int:
    bills = Collection.objects.filter(parts__invoice=invoice).values_list("provider_id", flat=True)
    return sum(one["invoice"] in bills for one in stripe.charges())


def void(invoice: Invoice) -> None:
    # Refused when the card was quicker, or is being charged.
    with contextlib.suppress(TransitionRefusedError):
        void_invoice(invoice.pk, because=WRONG, now=BILLED)


def test_an_invoice_is_voided_or_its_card_is_charged(stripe: LocalStripe) -> None:
    invoices = being_collected(stripe)
    race(invoices, void)
    collect(LATER, until=LATER + timedelta(minutes=1))
    for invoice in invoices:
        invoice.refresh_from_db()
        is_paid = invoice.status == InvoiceStatus.PAID
        assert is_paid or invoice.status == InvoiceStatus.VOID
        assert charged(stripe, invoice) == is_paid


def set_trigger(state: str) -> None:
    """Enable or disable the database's own guard, as the owner."""
    parameters = {**connections["owner"].get_connection_params()}
    parameters["dbname"] = connections["default"].settings_dict["NAME"]
    with psycopg.connect(**parameters) as connection:
        connection.execute(
            f"ALTER TABLE billing_invoice {state} TRIGGER void_invoice_is_not_collected"
        )


def void_without_asking(invoice: Invoice) -> None:
    """What voiding would be without the provider: look, then void."""
    if Allocation.objects.filter(invoice=invoice).exists():
        return
    time.sleep(0.05)  # as long as the guard's own work and the credits take
    Invoice.objects.filter(pk=invoice.pk).exclude(status=InvoiceStatus.PAID).update(status="void")


def test_control_without_the_provider_a_void_invoice_is_charged(stripe: LocalStripe) -> None:
    invoices = being_collected(stripe)
    set_trigger("DISABLE")
    try:
        # A void that comes between its look and its update ends the payment, after the charge.
        race(invoices, void_without_asking, TransitionRefusedError)
    finally:
        set_trigger("ENABLE")
    voided = Invoice.objects.filter(status=InvoiceStatus.VOID)
    assert any(charged(stripe, invoice) for invoice in voided)


def transfer(invoice: Invoice) -> None:
    money = Transfer(DUE, f"TX {invoice.pk}", BILLED)
    record_offline_payment(invoice.account_id, money, user_id=None, now=BILLED)


def test_money_that_comes_both_ways_is_counted_once_each(stripe: LocalStripe) -> None:
    invoices = being_collected(stripe)
    race(invoices, transfer)
    collect(LATER, until=LATER + timedelta(minutes=1))
    for invoice in invoices:
        invoice.refresh_from_db()
        assert invoice.status == InvoiceStatus.PAID
        came = invoice.account.payments.aggregate(sum=Sum("amount"))["sum"]
        assert came == DUE * (1 + charged(stripe, invoice))
        paid = Allocation.objects.filter(invoice=invoice).aggregate(sum=Sum("amount"))["sum"]
        assert paid == DUE
        # What is too much is the customer's.
        assert prepaid_balance(invoice.account) == came - DUE
    ledger = stripe.ledger().get("usd", {"charged": 0})
    provided = Payment.objects.filter(method="provider").aggregate(sum=Sum("amount"))["sum"]
    assert ledger["charged"] == int((provided or 0) * 100)


def test_a_customer_who_pays_while_the_card_is_charged_pays_once(stripe: LocalStripe) -> None:
    invoices = being_collected(stripe)

    def pay(invoice: Invoice) -> None:
        part = invoice.collection_parts.order_by("pk")[0]
        # It is refused when the charge was quicker.
        with contextlib.suppress(RuntimeError):
            stripe.pay(str(part.collection.provider_id), token="pm_card_visa")  # noqa: S106 - a test card

    race(invoices, pay)
    collect(LATER, until=LATER + timedelta(minutes=1))
    for invoice in invoices:
        invoice.refresh_from_db()
        assert (invoice.status, charged(stripe, invoice)) == (InvoiceStatus.PAID, 1)
        assert invoice.account.payments.aggregate(sum=Sum("amount"))["sum"] == DUE


def transfer_without_lock(invoice: Invoice) -> None:
    """What recording would be without the account's lock: look, then write."""
    due = owed(Invoice.objects.get(pk=invoice.pk))
    time.sleep(0.3)  # as long as charging the card takes
    if not due:
        return
    with transaction.atomic():
        payment = Payment.objects.create(
            account_id=invoice.account_id,
            method="offline",
            amount=due.amount,
            currency="USD",
            received_at=BILLED,
            recorded_at=BILLED,
            reference=f"TX {invoice.pk}",
        )
        Allocation.objects.create(payment=payment, invoice=invoice, amount=due.amount)


def test_control_without_the_lock_an_invoice_is_paid_twice(stripe: LocalStripe) -> None:
    invoices = being_collected(stripe)
    race(invoices, transfer_without_lock)
    paid = Allocation.objects.values("invoice").annotate(sum=Sum("amount"))
    assert any(row["sum"] > DUE for row in paid)
