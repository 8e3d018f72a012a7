"""Every page of payments opens, with a row of each kind; and what staff do on the smaller ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.contrib.auth.models import User
from django.db.models import Model
from django.test import Client
from pytest_django.fixtures import Settings

from billing.models import Account, AuditTrail
from payments.models import (
    Collection,
    Customer,
    Difference,
    Dispute,
    DunningCase,
    DunningStep,
    Payment,
    PaymentAttempt,
    PaymentMethod,
    PlatformRequest,
    Reconciliation,
)
from payments.services.differences import Found, note_difference
from payments.services.dunning import refresh_account
from payments.services.methods import take_methods
from tests.billing import admin_pages
from tests.billing.admin_pages import ANSWERED, page, press, text_of
from tests.billing.usage import NOON, open_account
from tests.local_stripe import LocalStripe
from tests.payments.month import BILLED, account_with_card, collect, invoice_of

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)


@pytest.fixture
def finance() -> Client:
    return admin_pages.finance()


def difference(subject: str = "in_1", kind: str = "invoice_only_there") -> Difference:
    found = Found(
        kind=Difference.Kind(kind),
        subject=subject,
        account_id=None,
        ours="We know of none",
        theirs=f"Invoice {subject} asks for 5.00 USD",
        proposed_action="Void it there.",
    )
    return note_difference(found, now=NOON)


def test_each_list_and_each_row_opens(stripe: LocalStripe, finance: Client) -> None:
    account = account_with_card(stripe)
    invoice_of(account)
    collect()
    take_methods(str(Customer.objects.get().provider_id), now=BILLED)
    payment = Payment.objects.get()
    rows: list[Model] = [
        payment,
        *(model.objects.all()[0] for model in (Collection, PaymentAttempt, Customer)),
        PaymentMethod.objects.get(),
        DunningStep.objects.all()[0],
        difference(),
        Dispute.objects.create(
            provider_id="dp_1",
            payment=payment,
            amount=5,
            status=Dispute.Status.OPEN,
            reason="fraudulent",
            opened_at=NOON,
        ),
        PlatformRequest.objects.create(
            account=account, action="stop", reason="Unpaid", requested_at=NOON, try_at=NOON
        ),
        Reconciliation.objects.create(
            started_at=NOON, since=NOON - HOUR, reached=NOON, ended_at=NOON + HOUR
        ),
    ]
    for row in rows:
        listed = text_of(finance.get(page(type(row))))
        assert page(type(row), row.pk, "change") in listed
        searched = finance.get(page(type(row)), {"q": "Ada"})
        assert searched.status_code == 200
        shown = finance.get(page(type(row), row.pk, "change"))
        assert shown.status_code == 200
        assert str(row) in text_of(shown)


def test_open_differences_are_listed_with_what_is_proposed(finance: Client) -> None:
    difference("in_1")
    gone = difference("in_2")
    Difference.objects.filter(pk=gone.pk).update(settled_at=NOON)

    def listed(**query: str) -> tuple[bool, bool]:
        text = text_of(finance.get(page(Difference), query))
        return "Invoice in_1 asks" in text, "Invoice in_2 asks" in text

    assert "Void it there." in text_of(finance.get(page(Difference)))
    assert listed() == (True, False)
    assert listed(state="settled") == (False, True)
    assert listed(state="all") == (True, True)
    assert listed(state="x") == (True, False)


def test_a_difference_is_settled_by_a_person_who_says_how(finance: Client) -> None:
    row = difference()
    assert "This field is required" in text_of(press(finance, row, "settle", reason=""))
    row.refresh_from_db()
    assert row.settled_at is None
    assert "It is settled." in text_of(press(finance, row, "settle", reason="Voided it"))
    row.refresh_from_db()
    assert row.settled_by == User.objects.get()
    assert row.settled_reason == "Voided it"
    assert row.settled_at is not None


def test_money_of_an_account_is_recorded_and_goes_to_its_oldest_invoice(finance: Client) -> None:
    account = open_account()
    invoice = invoice_of(account)
    said = {"account": str(account.pk), "amount": "40", "reference": "TX-1"}
    text = text_of(
        finance.post(page(Payment, "add"), {**said, "received_on": "2026-06-02"}, follow=True)
    )
    assert "was added successfully" in text
    invoice.refresh_from_db()
    assert invoice.status == "paid"
    payment = Payment.objects.get()
    assert (payment.amount, payment.method) == (40, "offline")
    assert payment.recorded_by == User.objects.get()
    shown = text_of(finance.get(page(Payment, payment.pk, "change")))
    for part in ("Invoice 2026-000001", "36.00 USD", "Too much, as credit", "4.00 USD"):
        assert part in shown


def test_money_that_cannot_be_recorded_is_refused_on_the_form(finance: Client) -> None:
    account = open_account()
    invoice_of(account)
    said = {"account": str(account.pk), "amount": "40", "reference": "TX-1"}
    day = {"received_on": "2026-06-02"}
    finance.post(page(Payment, "add"), {**said, **day})
    again = text_of(finance.post(page(Payment, "add"), {**said, **day, "amount": "41"}))
    assert "is a payment of 40.00 USD already" in again
    assert 'value="41"' in again
    assert Payment.objects.count() == 1


def test_a_customer_is_brought_up_to_date(stripe: LocalStripe, finance: Client) -> None:
    account = account_with_card(stripe)
    customer = Customer.objects.get()
    assert not PaymentMethod.objects.exists()
    Account.objects.filter(pk=account.pk).update(name="Ada Ltd")
    said = text_of(press(finance, customer, "bring_up_to_date"))
    assert f"{customer.provider_id} is up to date. Payment methods: visa …4242 (" in said
    told = stripe.log("PostCustomersCustomer")[0]["given"]
    assert told["name"] == "Ada Ltd"
    assert PaymentMethod.objects.get().is_default


def test_without_a_key_it_is_said_what_is_missing(finance: Client, settings: Settings) -> None:
    settings.STRIPE_API_KEY = ""
    customer = Customer.objects.create(account=open_account(), standing_since=NOON)
    assert "STRIPE_API_KEY is not set" in text_of(press(finance, customer, "bring_up_to_date"))


def test_a_card_that_expired_says_so(finance: Client) -> None:
    card = PaymentMethod.objects.create(
        account=open_account(),
        provider_id="pm_1",
        kind="card",
        brand="visa",
        last4="4242",
        expires_month=4,
        expires_year=2020,
        added_at=NOON,
    )
    assert "04/2020, expired" in text_of(finance.get(page(PaymentMethod)))
    PaymentMethod.objects.filter(pk=card.pk).update(expires_year=2099)
    assert "expired" not in text_of(finance.get(page(PaymentMethod, card.pk, "change")))


def test_the_schedule_is_changed_in_rows(finance: Client) -> None:
    finance.post(page(DunningStep, "add"), {"after_days": "21", "action": "retry"})
    step = DunningStep.objects.get(after_days=21)
    said = {"after_days": "22", "action": "retry", "change_reason": "Agreed"}
    finance.post(page(DunningStep, step.pk, "change"), said)
    step.refresh_from_db()
    assert step.after_days == 22
    kept = AuditTrail.objects.filter(table_name="payments_dunningstep").order_by("at")
    assert [(entry.operation, entry.after) for entry in kept] == [
        ("insert", {"id": step.pk, "after_days": 21, "action": "retry"}),
        ("update", {"after_days": 22}),
    ]
    assert [(str(entry.actor), entry.reason) for entry in kept][1] == ("finance", "Agreed")
    listed = text_of(finance.get(page(AuditTrail), {"table_name": "payments_dunningstep"}))
    assert "after_days: 21 → 22" in listed
    refused = finance.post(page(DunningStep, "add"), {"after_days": "0", "action": "retry"})
    assert "Use 1 to 365 days." in text_of(refused)
    finance.post(page(DunningStep, step.pk, "delete"), {**ANSWERED, "post": "yes"})
    assert not DunningStep.objects.filter(pk=step.pk).exists()


def test_totals_stand_above_payments(finance: Client) -> None:
    account = open_account()
    for at, amount in enumerate(("10", "2.50")):
        said = {"account": str(account.pk), "amount": amount, "reference": f"TX-{at}"}
        finance.post(page(Payment, "add"), {**said, "received_on": "2026-06-02"})
    assert sum(Payment.objects.values_list("amount", flat=True)) == Decimal("12.5")
    text = text_of(finance.get(page(Payment)))
    assert "12.50 USD" in text


@pytest.mark.usefixtures("stripe")
def test_a_comparison_is_begun_by_whom_it_occurs_to(finance: Client) -> None:
    compare = page(Reconciliation, "compare_now")
    assert "once a day by itself" in text_of(finance.get(compare))
    assert not Reconciliation.objects.exists()
    said = text_of(finance.post(compare, ANSWERED, follow=True))
    row = Reconciliation.objects.get()
    assert f"{row} is under way." in said
    finance.post(compare, ANSWERED)
    assert Reconciliation.objects.count() == 1


def test_without_a_key_nothing_is_compared(finance: Client, settings: Settings) -> None:
    settings.STRIPE_API_KEY = ""
    said = text_of(finance.post(page(Reconciliation, "compare_now"), ANSWERED, follow=True))
    assert "STRIPE_API_KEY is not set" in said
    assert not Reconciliation.objects.exists()


def test_the_home_page_says_how_payments_go(stripe: LocalStripe, finance: Client) -> None:
    for name, token in (("Ada", "pm_card_visa"), ("Bob", "pm_card_chargeCustomerFail")):
        invoice_of(account_with_card(stripe, token, name=name))
    collect()
    refresh_account(Account.objects.get(name="Bob").pk, now=BILLED)
    PaymentAttempt.objects.update(ended_at=datetime.now(UTC))
    difference()
    text = text_of(finance.get("/admin/"))
    for said in (
        "50.0 %",
        "1 of 2 attempts",
        "Past due",
        "36.00 USD",
        "1 account past due",
        "Invoice Only There",
    ):
        assert said in text, said
    for listed in (PaymentAttempt, DunningCase, Difference):
        assert f'href="{page(listed)}' in text


def test_who_sees_no_payments_has_no_card_of_them() -> None:
    client = Client()
    client.force_login(User.objects.create_user("clerk", is_staff=True))
    assert "Past due" not in text_of(client.get("/admin/"))
