from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import transaction
from django.test import Client
from pytest_django.fixtures import Settings

from billing import services
from billing.models import Account
from payments.models import Customer, PaymentMethod
from payments.provider import CustomerMethods
from payments.services import methods
from payments.services.customers import ensure_customer
from payments.services.method_changes import (
    DETACH_AGAIN,
    MOST_METHODS,
    SETUPS_AN_HOUR,
    NoSuchMethodError,
    detach_removed,
    finish_adding,
    leads_back,
)
from payments.services.methods import take_methods
from payments.services.providing import provider
from tests.billing.usage import NOON, open_account
from tests.local_stripe import LocalStripe
from tests.payments.month import collect, invoice_of

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 6, 2, tzinfo=UTC)
SITE = "https://pay.example.com/billing"


class Api:
    """An account's way into the API."""

    def __init__(self, account: Account) -> None:
        self.key = services.issue_api_key(account.pk, name="test", now=NOON).key

    def ask(self, method: str, path: str = "", **body: Any) -> Any:
        return Client().generic(
            method,
            f"/api/v1/payment-methods{path}",
            data=json.dumps(body) if body else "",
            content_type="application/json",
            headers={"Authorization": f"Bearer {self.key}"},
        )

    def listed(self) -> list[dict[str, Any]]:
        answer = self.ask("GET")
        assert answer.status_code == 200
        return list(answer.json())


def account_with(stripe: LocalStripe, *tokens: str) -> tuple[Account, str, list[str]]:
    """Open an account with these cards, the last the default; return it, its customer and cards."""
    account = open_account()
    customer_id = ensure_customer(account.pk, now=NOW)
    cards = [stripe.attach(customer_id, token)["id"] for token in tokens]
    take_methods(customer_id, now=NOW)
    return account, customer_id, cards


def id_of(card: str) -> int:
    return int(PaymentMethod.objects.get(provider_id=card).pk)


def test_an_account_without_payment_methods_has_an_empty_list() -> None:
    assert Api(open_account()).listed() == []


def test_without_a_key_nothing_is_shown() -> None:
    assert Client().get("/api/v1/payment-methods").status_code == 401


def test_a_card_is_listed_by_brand_last_four_and_expiry(stripe: LocalStripe) -> None:
    account, _, _ = account_with(stripe, "pm_card_visa", "pm_card_mastercard")
    first, second = Api(account).listed()
    assert set(first) == {"id", "kind", "brand", "last4", "expires", "is_default", "added_at"}
    assert (first["kind"], first["brand"], first["is_default"]) == ("card", "mastercard", True)
    assert (second["brand"], second["last4"], second["is_default"]) == ("visa", "4242", False)
    assert len(first["expires"]) == len("2028-09")
    columns = {field.name for field in PaymentMethod._meta.get_fields()}
    assert not columns & {"number", "cvc", "fingerprint"}


@pytest.mark.usefixtures("stripe")
def test_a_card_is_added_by_a_setup_intent() -> None:
    account = open_account()
    api = Api(account)
    begun = api.ask("POST")
    assert begun.status_code == 201
    body = begun.json()
    assert body["setup_intent"].startswith("seti_")
    assert body["client_secret"].startswith(f"{body['setup_intent']}_secret_")
    assert body["portal_url"] is None
    # Nothing is kept of the secret.
    calls = account.provider_calls.filter(operation="setup_intents.create")
    assert body["client_secret"] not in str(calls.values_list("asked", "answered"))


def test_a_confirmed_setup_intent_shows_its_card_at_once(stripe: LocalStripe) -> None:
    account = open_account()
    api = Api(account)
    intent = api.ask("POST").json()["setup_intent"]
    stripe.attach(str(account.customer.provider_id))
    shown = api.ask("POST", setup_intent=intent)
    assert shown.status_code == 200
    assert [(card["last4"], card["is_default"]) for card in shown.json()] == [("4242", True)]
    assert api.listed() == shown.json()


def test_a_second_card_has_a_setup_intent_of_its_own(stripe: LocalStripe) -> None:
    api = Api(open_account())
    first, second = api.ask("POST").json(), api.ask("POST").json()
    assert first["setup_intent"] != second["setup_intent"]
    assert len(stripe.log("PostSetupIntents")) == 2


def test_a_setup_intent_that_was_not_answered_is_not_made_twice(stripe: LocalStripe) -> None:
    account = open_account()
    ensure_customer(account.pk, now=NOW)
    stripe.fault("reset_after_success", "PostSetupIntents")
    api = Api(account)
    lost = api.ask("POST")
    assert lost.status_code == 503
    assert "ask again" in lost.json()["detail"]
    assert api.ask("POST").status_code == 201
    keys = [call["key"] for call in stripe.log("PostSetupIntents")]
    assert len(keys) == 2
    assert len(set(keys)) == 1


@pytest.mark.usefixtures("stripe")
def test_another_accounts_setup_intent_is_not_found() -> None:
    theirs = Api(open_account("Bob")).ask("POST").json()["setup_intent"]
    mine = open_account()
    ensure_customer(mine.pk, now=NOW)
    assert Api(mine).ask("POST", setup_intent=theirs).status_code == 404
    assert Api(mine).ask("POST", setup_intent="seti_unknown").status_code == 404
    assert Api(open_account("New")).ask("POST", setup_intent=theirs).status_code == 404
    with pytest.raises(NoSuchMethodError):
        finish_adding(mine.pk, theirs, now=NOW)


@pytest.mark.usefixtures("stripe")
def test_what_is_no_setup_intent_is_refused() -> None:
    for text in ("pm_1", "seti_../customers", "seti_1?expand=x", ""):
        assert Api(open_account()).ask("POST", setup_intent=text).status_code == 400


@pytest.mark.usefixtures("stripe")
def test_setups_are_limited_by_the_hour() -> None:
    account = open_account()
    api = Api(account)
    for _ in range(SETUPS_AN_HOUR):
        assert api.ask("POST").status_code == 201
    refused = api.ask("POST")
    assert refused.status_code == 429
    account.provider_calls.update(first_at=datetime.now(UTC) - timedelta(hours=1))
    assert api.ask("POST").status_code == 201


@pytest.mark.usefixtures("stripe")
def test_an_account_cannot_hoard_payment_methods() -> None:
    account = open_account()
    PaymentMethod.objects.bulk_create(
        PaymentMethod(account=account, provider_id=f"pm_{number}", kind="card", added_at=NOW)
        for number in range(MOST_METHODS)
    )
    refused = Api(account).ask("POST")
    assert (refused.status_code, "Remove one" in refused.json()["detail"]) == (409, True)


def test_the_portal_leads_back_to_this_site(stripe: LocalStripe, settings: Settings) -> None:
    settings.PAYMENTS_RETURN_URL = SITE
    answer = Api(open_account()).ask("POST", flow="portal")
    assert answer.status_code == 201
    assert answer.json()["portal_url"].startswith("http")
    (asked,) = stripe.log("PostBillingPortalSessions")
    assert asked["given"]["return_url"] == SITE
    other = Api(open_account()).ask("POST", flow="portal", return_url=f"{SITE}/cards?a=1")
    assert other.status_code == 201


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example/",
        "https://pay.example.com.evil.example/",
        "https://pay.example.com@evil.example/",
        "https://evil.example\\@pay.example.com/",
        "http://pay.example.com/",
        "https://pay.example.com:8443/",
        "//pay.example.com/",
        "javascript:alert(1)//pay.example.com",
        "https://pay.example.com:port/",
        "https://[pay.example.com/",
        " https://pay.example.com/",
    ],
)
def test_the_portal_leads_nowhere_else(
    stripe: LocalStripe, settings: Settings, elsewhere: str
) -> None:
    settings.PAYMENTS_RETURN_URL = SITE
    assert not leads_back(elsewhere)
    # DRF takes spaces off a text's ends, and what is left is checked.
    if elsewhere == elsewhere.strip():
        answer = Api(open_account()).ask("POST", flow="portal", return_url=elsewhere)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "return_url")
        assert stripe.log("PostBillingPortalSessions") == []


@pytest.mark.usefixtures("stripe")
def test_a_portal_without_a_way_back_names_the_setting(settings: Settings) -> None:
    settings.PAYMENTS_RETURN_URL = ""
    answer = Api(open_account()).ask("POST", flow="portal")
    assert answer.status_code == 503
    assert "PAYMENTS_RETURN_URL" in answer.json()["detail"]


def test_another_method_becomes_the_default(stripe: LocalStripe) -> None:
    account, customer_id, (visa, amex) = account_with(stripe, "pm_card_visa", "pm_card_amex")
    api = Api(account)
    answer = api.ask("POST", f"/{id_of(visa)}/default")
    assert (answer.status_code, answer.json()["is_default"]) == (200, True)
    assert [card["id"] for card in api.listed()] == [id_of(visa), id_of(amex)]
    # Back and forth within a minute: the provider is told each time.
    assert api.ask("POST", f"/{id_of(amex)}/default").status_code == 200
    assert api.ask("POST", f"/{id_of(visa)}/default").status_code == 200
    assert methods.default_method(account.pk) == visa
    assert provider().methods_of(customer_id).default_id == visa


def test_a_removed_method_is_detached_and_the_newest_left_is_the_default(
    stripe: LocalStripe,
) -> None:
    account, customer_id, (visa, amex) = account_with(stripe, "pm_card_visa", "pm_card_amex")
    api = Api(account)
    assert api.ask("DELETE", f"/{id_of(amex)}").status_code == 204
    assert [(card["id"], card["is_default"]) for card in api.listed()] == [(id_of(visa), True)]
    assert [card.id for card in provider().methods_of(customer_id).cards] == [visa]
    assert api.ask("DELETE", f"/{id_of(amex)}").status_code == 404
    assert api.ask("DELETE", f"/{id_of(visa)}").status_code == 204
    assert api.listed() == []


def test_the_only_method_of_an_account_that_owes_stays(stripe: LocalStripe) -> None:
    account, customer_id, (card,) = account_with(stripe, "pm_card_visa")
    stripe.become(card, "pm_card_chargeCustomerFail")
    invoice = invoice_of(account)
    api = Api(account)
    refused = api.ask("DELETE", f"/{id_of(card)}")
    assert refused.status_code == 409
    assert "only payment method" in refused.json()["detail"]
    collect()
    assert api.ask("DELETE", f"/{id_of(card)}").status_code == 409
    # With another one it may go, and once nothing is owed too.
    other = stripe.attach(customer_id, "pm_card_chargeCustomerFail")["id"]
    take_methods(customer_id, now=NOW)
    collect(NOW)
    assert api.ask("DELETE", f"/{id_of(card)}").status_code == 204
    assert api.ask("DELETE", f"/{id_of(other)}").status_code == 409
    services.write_off(invoice.pk, because=services.Because("test"), now=NOW)
    assert api.ask("DELETE", f"/{id_of(other)}").status_code == 409
    services.mark_paid(invoice.pk, because=services.Because("test"), now=NOW)
    assert api.ask("DELETE", f"/{id_of(other)}").status_code == 204


def test_another_accounts_method_is_not_found(stripe: LocalStripe) -> None:
    _, _, (card,) = account_with(stripe, "pm_card_visa")
    stranger = Api(open_account("Mallory"))
    assert stranger.listed() == []
    assert stranger.ask("DELETE", f"/{id_of(card)}").status_code == 404
    assert stranger.ask("POST", f"/{id_of(card)}/default").status_code == 404
    assert PaymentMethod.objects.get(provider_id=card).removed_at is None


def test_a_card_that_is_detached_at_the_provider_is_removed_here(stripe: LocalStripe) -> None:
    account, customer_id, (visa, amex) = account_with(stripe, "pm_card_visa", "pm_card_amex")
    stripe.detach(amex)
    take_methods(customer_id, now=NOW)
    assert [card["id"] for card in Api(account).listed()] == [id_of(visa)]
    assert PaymentMethod.objects.get(provider_id=amex).removed_at == NOW


@pytest.mark.parametrize("fault", ["reset_after_success", "reset_before", "500_before", "429"])
def test_a_removal_that_is_not_answered_is_done_later(stripe: LocalStripe, fault: str) -> None:
    account, customer_id, (visa, amex) = account_with(stripe, "pm_card_visa", "pm_card_amex")
    stripe.fault(fault, "PostPaymentMethodsPaymentMethodDetach")
    api = Api(account)
    assert api.ask("DELETE", f"/{id_of(amex)}").status_code == 204
    # It is not charged any more, whatever the provider still has.
    assert [card["id"] for card in api.listed()] == [id_of(visa)]
    take_methods(customer_id, now=NOW)
    assert [card["id"] for card in api.listed()] == [id_of(visa)]
    later = datetime.now(UTC) + DETACH_AGAIN
    assert detach_removed(later) == 1
    assert detach_removed(later) == 0
    assert [card.id for card in provider().methods_of(customer_id).cards] == [visa]
    assert methods.default_method(account.pk) == visa
    assert PaymentMethod.objects.get(provider_id=amex).detach_at is None


def test_an_answer_that_is_older_than_what_is_known_is_not_kept(
    stripe: LocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    account, customer_id, (_,) = account_with(stripe, "pm_card_visa")
    overtaken_by(monkeypatch, stripe, customer_id)
    take_methods(customer_id, now=NOW)
    assert len(Api(account).listed()) == 2


def test_control_without_turns_the_older_answer_would_be_kept(
    stripe: LocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    account, customer_id, (_,) = account_with(stripe, "pm_card_visa")
    overtaken_by(monkeypatch, stripe, customer_id)
    # As if the answer that was overtaken had been asked for last.
    turns = iter([20_000, 10_000])
    monkeypatch.setattr(methods, "_next_turn", lambda _customer: next(turns))
    take_methods(customer_id, now=NOW)
    assert len(Api(account).listed()) == 1


def overtaken_by(monkeypatch: pytest.MonkeyPatch, stripe: LocalStripe, customer_id: str) -> None:
    """Let the next answer be overtaken: a card is added, and another worker keeps it first."""
    real = methods._without_detached
    is_first = iter([True])

    def overtaken(found: CustomerMethods) -> CustomerMethods:
        if next(is_first, False):
            stripe.attach(customer_id, "pm_card_amex")
            take_methods(customer_id, now=NOW)
        return real(found)

    monkeypatch.setattr(methods, "_without_detached", overtaken)


def test_without_a_provider_the_missing_setting_is_named(settings: Settings) -> None:
    settings.STRIPE_API_KEY = ""
    account = open_account()
    card = PaymentMethod.objects.create(
        account=account, provider_id="pm_1", kind="card", is_default=True, added_at=NOW
    )
    Customer.objects.create(account=account, provider_id="cus_1", standing_since=NOW)
    api = Api(account)
    assert len(api.listed()) == 1
    for answer in (
        api.ask("POST"),
        api.ask("POST", flow="portal"),
        api.ask("DELETE", f"/{card.pk}"),
        api.ask("POST", f"/{card.pk}/default"),
    ):
        assert answer.status_code == 503
        assert "STRIPE_API_KEY" in answer.json()["detail"] or "RETURN" in answer.json()["detail"]
    assert len(api.listed()) == 1
    assert transaction.get_connection().is_usable()


def test_a_silent_provider_is_503_and_not_an_error_of_ours(stripe: LocalStripe) -> None:
    account, _, (card,) = account_with(stripe, "pm_card_visa")
    stripe.fault("reset_before", "PostCustomersCustomer", times=9)
    answer = Api(account).ask("POST", f"/{id_of(card)}/default")
    assert answer.status_code == 503
    assert answer.json()["detail"] == (
        "Stripe does not answer. Nothing is lost: ask again in a minute."
    )
    assert answer.json()["code"] == "provider_silent"
