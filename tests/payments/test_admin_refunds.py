"""Refunds at the desk: asked for by one person, decided by another."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from pytest_django.fixtures import Settings

from billing.models import AuditTrail
from payments.models import Payment, Refund
from payments.services.refunding import due_refunds, take_refund_step, take_refunds
from soulbox.staff.roles import Role
from tests.billing.admin_pages import page, press, text_of
from tests.billing.usage import open_account
from tests.local_stripe import LocalStripe
from tests.payments.month import account_with_card, collect, invoice_of
from tests.payments.test_offline import record

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _threshold(settings: Settings) -> None:
    settings.REFUND_APPROVAL_THRESHOLD = 20


def client_of(role: Role, name: str = "") -> Client:
    user = User.objects.create_user(name or role.value, is_staff=True)
    user.groups.add(Group.objects.get(name=role.value))
    client = Client()
    client.force_login(user)
    return client


def propose(client: Client, payment: Payment, amount: str, **said: str) -> str:
    asked = {"amount": amount, "reason": "Outage", "reference": "r-1", **said}
    return text_of(press(client, payment, "give_back", **asked))


def paid_by_card(stripe: LocalStripe) -> Payment:
    invoice_of(account_with_card(stripe))
    collect()
    return Payment.objects.get()


def send() -> None:
    now = datetime.now(UTC)
    for refund_id in due_refunds(now):
        take_refund_step(refund_id, now=now)


def test_a_large_one_is_approved_by_a_second_person(stripe: LocalStripe) -> None:
    finance, manager = client_of(Role.FINANCE), client_of(Role.FINANCE_MANAGER)
    payment = paid_by_card(stripe)
    said = propose(finance, payment, "30")
    assert "The refund of 30.00 USD waits for a second person's approval." in said
    refund = Refund.objects.get()
    assert press(finance, refund, "approve").status_code == 403
    assert "30.00 USD go back by the provider within a minute." in text_of(
        press(manager, refund, "approve")
    )
    send()
    refund.refresh_from_db()
    assert refund.status == Refund.Status.SUCCEEDED
    assert (str(refund.author), str(refund.decided_by)) == ("finance", "finance manager")
    text = text_of(manager.get(page(Refund, refund.pk, "change")))
    assert "1. refunds.create" in text
    assert stripe.ledger()["usd"]["refunded"] == -3000
    kept = AuditTrail.objects.filter(table_name="payments_refund").order_by("at")
    states = [(str(row.actor or ""), (row.after or {}).get("status", "")) for row in kept]
    assert states[0] == ("finance", "proposed")
    assert states[1] == ("finance manager", "approved")
    assert states[-1][1] == "succeeded"


def test_who_asked_for_it_does_not_approve_it_whatever_their_rights(stripe: LocalStripe) -> None:
    manager = client_of(Role.FINANCE_MANAGER)
    propose(manager, paid_by_card(stripe), "30")
    refund = Refund.objects.get()
    shown = text_of(manager.get(page(Refund, refund.pk, "change")))
    assert page(Refund, refund.pk, "approve") not in shown
    assert page(Refund, refund.pk, "reject") in shown
    assert "Its author cannot approve it." in text_of(press(manager, refund, "approve"))
    refund.refresh_from_db()
    assert refund.status == Refund.Status.PROPOSED
    press(manager, refund, "reject")
    refund.refresh_from_db()
    assert refund.status == Refund.Status.REJECTED


def test_a_small_one_goes_back_at_once(stripe: LocalStripe) -> None:
    finance = client_of(Role.FINANCE)
    said = propose(finance, paid_by_card(stripe), "5")
    assert "5.00 USD go back by the provider within a minute." in said
    send()
    assert Refund.objects.get().status == Refund.Status.SUCCEEDED


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ({"amount": "36.01"}, "Use one above 0, up to 36.00 USD"),
        ({"amount": "1.001"}, "Use whole cents"),
        ({"amount": "0"}, "greater than or equal to"),
        ({"credit": "7"}, "credit is 7.00 USD"),
        ({"reason": ""}, "This field is required"),
        ({"reference": ""}, "This field is required"),
    ],
)
def test_what_cannot_go_back_is_refused_with_all_that_was_typed(
    stripe: LocalStripe, said: dict[str, str], answer: str
) -> None:
    text = propose(client_of(Role.FINANCE), paid_by_card(stripe), **{"amount": "6", **said})
    assert answer in text
    assert not Refund.objects.exists()


def test_money_of_a_transfer_is_sent_by_hand_and_marked_as_done() -> None:
    account = open_account()
    invoice_of(account)
    payment = record(account, "50")
    finance, manager = client_of(Role.FINANCE), client_of(Role.FINANCE_MANAGER)
    asked = text_of(finance.get(page(Payment, payment.pk, "give_back")))
    assert "Up to 50.00 USD of the payment can go back; 14.00 USD of it are prepaid" in asked
    propose(finance, payment, "50")
    refund = Refund.objects.get()
    said = text_of(press(manager, refund, "approve"))
    assert "Send 50.00 USD to the customer, and mark the refund as done then." in said
    press(finance, refund, "mark_done", bank_reference="BACK-1")
    refund.refresh_from_db()
    assert (refund.status, refund.bank_reference) == (Refund.Status.SUCCEEDED, "BACK-1")
    assert refund.credit_taken == 14


def test_a_refund_that_was_made_at_the_provider_offers_only_to_take_its_credit(
    stripe: LocalStripe,
) -> None:
    payment = paid_by_card(stripe)
    stripe.refund(payment.charge_id, 500)
    take_refunds(str(payment.provider_id), now=datetime.now(UTC))
    refund = Refund.objects.get()
    finance = client_of(Role.FINANCE)
    shown = text_of(finance.get(page(Refund, refund.pk, "change")))
    assert page(Refund, refund.pk, "take_credit") in shown
    assert page(Refund, refund.pk, "mark_done") not in shown
    # Nothing of it became credit, so there is none to take.
    assert "cannot" in text_of(press(finance, refund, "take_credit", credit="5"))
    refund.refresh_from_db()
    assert refund.credit_taken == 0


def test_refunds_are_listed_and_added_up(stripe: LocalStripe) -> None:
    finance = client_of(Role.FINANCE)
    payment = paid_by_card(stripe)
    for at, amount in enumerate(("5", "6.50")):
        propose(finance, payment, amount, reference=f"r-{at}")
    text = text_of(finance.get(page(Refund)))
    assert "11.50 USD" in text
    shown = text_of(finance.get(page(Payment, payment.pk, "change")))
    for refund in Refund.objects.all():
        assert page(Refund, refund.pk, "change") in shown
