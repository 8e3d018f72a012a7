"""What was asked at the provider, as staff read it; and what they do about what it refused."""

from __future__ import annotations

import json

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django.fixtures import Settings
from stripe import StripeClient

from billing.lifecycle import InvoiceStatus
from billing.models import Invoice
from payments.models import Collection, Difference, PaymentAttempt, ProviderCall
from payments.services.anew import NotRefusedError, collect_by_hand
from payments.services.method_changes import begin_adding, portal_url
from payments.services.settling import settle_bill
from tests.billing import admin_pages
from tests.billing.admin_pages import page, press, text_of, viewer
from tests.local_stripe import API_KEY, SECRET, LocalStripe
from tests.payments.month import BILLED, account_with_card, collect, collection_of, invoice_of
from tests.payments.test_collecting import status_of
from tests.payments.test_voiding import LATER, refused, set_balance

pytestmark = pytest.mark.django_db
DECLINED = "pm_card_chargeCustomerFail"


@pytest.fixture
def finance() -> Client:
    return admin_pages.finance()


def shown(client: Client, row: Collection | PaymentAttempt) -> str:
    response = client.get(page(type(row), row.pk, "change"))
    assert response.status_code == 200
    return text_of(response).replace("&quot;", '"')


def declined(stripe: LocalStripe) -> Invoice:
    invoice = invoice_of(account_with_card(stripe, DECLINED))
    collect()
    assert status_of(invoice) == InvoiceStatus.PAYMENT_FAILED
    return invoice


def test_the_whole_conversation_is_there_in_order(stripe: LocalStripe, finance: Client) -> None:
    collection = collection_of(declined(stripe))
    text = shown(finance, collection)
    made = ["invoices.create", "invoices.add_lines", "invoices.finalize", "invoices.pay"]
    places = [text.index(f". {operation}") for operation in made]
    assert places == sorted(places)
    assert ProviderCall.objects.filter(collection=collection).count() == len(made)
    for said in ('"message": "Your card was declined.', '"amount": "36.00 USD"', "4. invoices.pay"):
        assert said in text
    for call in ProviderCall.objects.filter(collection=collection):
        assert call.key in text


def test_an_attempt_shows_what_was_said_about_it(stripe: LocalStripe, finance: Client) -> None:
    attempt = collection_of(declined(stripe)).attempts.get()
    text = shown(finance, attempt)
    assert "1. invoices.pay" in text
    assert "2. " not in text.split("Conversation with the provider")[-1]
    listed = text_of(finance.get(page(PaymentAttempt)))
    assert "generic_decline: Your card was declined." in listed
    assert "visa …0341" in listed


def test_no_secret_reaches_the_table(stripe: LocalStripe, settings: Settings) -> None:
    settings.PAYMENTS_RETURN_URL = "https://billing.example/cards"
    invoice = invoice_of(account_with_card(stripe))
    collect()
    begin_adding(invoice.account_id, now=BILLED)
    portal_url(invoice.account_id, return_url="", now=BILLED)
    hosted = collection_of(invoice).hosted_url
    secrets = [API_KEY, SECRET, "_secret_", hosted]
    kept = [
        json.dumps([call.asked, call.answered], ensure_ascii=False)
        for call in ProviderCall.objects.all()
    ]
    assert any("seti_" in text for text in kept)
    assert len(kept) > 5
    for secret in secrets:
        assert len(secret) > 5
        assert not [text for text in kept if secret in text], secret


def test_what_the_provider_says_is_shown_as_text(stripe: LocalStripe, finance: Client) -> None:
    collection = collection_of(declined(stripe))
    call = ProviderCall.objects.filter(collection=collection)[0]
    ProviderCall.objects.filter(pk=call.pk).update(answered={"message": "<script>1</script>"})
    response = finance.get(page(Collection, collection.pk, "change"))
    assert "<script>1" not in response.content.decode()


def test_what_was_refused_is_collected_anew_by_a_person_who_says_why(
    stripe: LocalStripe, finance: Client
) -> None:
    invoice = refused(stripe)
    collection = collection_of(invoice)
    set_balance(stripe, invoice.account, 0)
    said = text_of(press(finance, collection, "collect_anew", reason="Balance set to 0"))
    assert "36.00 USD are asked for again at the provider within a minute." in said
    difference = Difference.objects.get()
    assert difference.settled_by == User.objects.get(username="finance")
    assert difference.settled_reason == "Balance set to 0"
    collect(LATER)
    assert status_of(invoice) == InvoiceStatus.PAID
    assert len(stripe.charges()) == 1
    again = text_of(press(finance, collection, "collect_anew", reason="Once more"))
    assert "Nothing of it was refused" in again


def test_one_that_failed_before_it_was_void_there_is_tried_again(
    stripe: LocalStripe, finance: Client
) -> None:
    invoice = declined(stripe)
    bill_id = str(collection_of(invoice).provider_id)
    StripeClient(API_KEY, base_addresses={"api": stripe.url}).v1.invoices.void_invoice(bill_id)
    settle_bill(bill_id, now=LATER)
    collection = collection_of(invoice)
    assert collection.status == Collection.Status.REFUSED
    press(finance, invoice, "collect_anew", reason="Voided by mistake")
    assert status_of(invoice) == InvoiceStatus.PENDING_RETRY
    last = invoice.transitions.last()
    assert last is not None
    assert (last.by and last.by.username, last.reason) == ("finance", "Voided by mistake")


def test_an_invoice_of_which_nothing_was_refused_is_not_collected_anew(
    stripe: LocalStripe, finance: Client
) -> None:
    invoice = declined(stripe)
    said = text_of(press(finance, invoice, "collect_anew", reason="Why not"))
    assert "The provider refused nothing of this invoice." in said
    assert "Why not" in said
    with pytest.raises(NotRefusedError):
        collect_by_hand(collection_of(invoice).pk, reason="x", user_id=1, now=LATER)


def test_collections_are_found_and_added_up(stripe: LocalStripe, finance: Client) -> None:
    invoice = declined(stripe)
    listed = text_of(finance.get(page(Collection), {"q": str(invoice.number), "status": "open"}))
    assert str(collection_of(invoice)) in listed
    assert "36.00 USD" in listed
    nothing = text_of(finance.get(page(Collection), {"q": "2099-000001"}))
    assert str(collection_of(invoice)) not in nothing


def test_who_may_only_look_collects_nothing_anew(stripe: LocalStripe) -> None:
    collection = collection_of(refused(stripe))
    assert press(viewer(), collection, "collect_anew", reason="x").status_code == 403
    assert collection.parts.filter(is_live=True).exists()
