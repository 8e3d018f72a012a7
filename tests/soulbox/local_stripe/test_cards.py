from __future__ import annotations

import pytest
import stripe
from stripe import StripeClient

from tests.local_stripe import LocalStripe

REFUSED = "pm_card_visa_chargeDeclinedInsufficientFunds"


@pytest.fixture
def customer(client: StripeClient) -> str:
    return client.v1.customers.create({"name": "Ada"}).id


def default_of(client: StripeClient, customer: str) -> object:
    settings = client.v1.customers.retrieve(customer).invoice_settings
    assert settings is not None
    return settings.default_payment_method


def test_a_token_becomes_a_card_of_its_own(client: StripeClient, customer: str) -> None:
    methods = [
        client.v1.payment_methods.attach("pm_card_visa", {"customer": customer})
        for _card in range(2)
    ]
    assert len({method.id for method in methods}) == 2
    cards = [method.card for method in methods]
    assert all(card is not None for card in cards)
    assert len({card.fingerprint for card in cards if card}) == 1
    assert [(card.brand, card.last4, card.exp_month) for card in cards if card] == [
        ("visa", "4242", 12)
    ] * 2
    listed = client.v1.customers.payment_methods.list(customer).data
    assert [one.id for one in listed] == [method.id for method in reversed(methods)]
    also = client.v1.payment_methods.list({"customer": customer, "type": "card"}).data
    assert [one.id for one in also] == [one.id for one in listed]


def test_a_card_belongs_to_one_customer(client: StripeClient, customer: str) -> None:
    method = client.v1.payment_methods.attach("pm_card_visa", {"customer": customer})
    other = client.v1.customers.create({})
    with pytest.raises(stripe.InvalidRequestError, match="already been attached"):
        client.v1.payment_methods.attach(method.id, {"customer": other.id})
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.customers.update(
            other.id, {"invoice_settings": {"default_payment_method": method.id}}
        )
    assert refused.value.code == "resource_missing"


def test_a_detached_card_is_nobodys_and_no_default(
    client: StripeClient, local: LocalStripe, customer: str
) -> None:
    method = local.attach(customer)
    assert default_of(client, customer) == method["id"]
    assert client.v1.payment_methods.detach(method["id"]).customer is None
    assert default_of(client, customer) is None
    assert client.v1.customers.payment_methods.list(customer).data == []
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.payment_methods.detach(method["id"])
    [event] = client.v1.events.list({"type": "payment_method.detached"}).data
    assert event.to_dict()["data"]["previous_attributes"] == {"customer": customer}


def test_a_bad_card_is_refused_by_the_api_and_yet_may_be_on_file(
    client: StripeClient, local: LocalStripe, customer: str
) -> None:
    with pytest.raises(stripe.CardError) as refused:
        client.v1.payment_methods.attach(REFUSED, {"customer": customer})
    assert refused.value.code == "card_declined"
    assert local.attach(customer, REFUSED)["customer"] == customer


def test_a_card_is_updated(client: StripeClient, local: LocalStripe, customer: str) -> None:
    method = local.attach(customer, card={"exp_year": 2026, "exp_month": 1})
    assert (method["card"]["exp_year"], method["card"]["exp_month"]) == (2026, 1)
    updated = client.v1.payment_methods.update(method["id"], {"card": {"exp_year": 2031}})
    assert updated.card is not None
    assert (updated.card.exp_year, updated.card.exp_month) == (2031, 1)
    assert client.v1.payment_methods.retrieve(method["id"]).card == updated.card
    held = client.v1.customers.payment_methods.retrieve(customer, method["id"])
    assert held.id == method["id"]


def test_a_setup_intent_attaches_the_card(client: StripeClient, customer: str) -> None:
    intent = client.v1.setup_intents.create(
        {"customer": customer, "usage": "off_session", "payment_method_types": ["card"]}
    )
    assert intent.status == "requires_payment_method"
    assert intent.client_secret is not None
    assert intent.client_secret.startswith(f"{intent.id}_secret_")
    done = client.v1.setup_intents.confirm(intent.id, {"payment_method": "pm_card_visa"})
    assert done.status == "succeeded"
    [method] = client.v1.customers.payment_methods.list(customer).data
    assert done.payment_method == method.id
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.setup_intents.confirm(intent.id, {"payment_method": "pm_card_visa"})
    assert refused.value.code == "setup_intent_unexpected_state"
    assert client.v1.setup_intents.retrieve(intent.id).status == "succeeded"
    assert len(client.v1.setup_intents.list({"customer": customer}).data) == 1
    assert client.v1.events.list({"type": "setup_intent.succeeded"}).data != []


def test_a_setup_intent_with_a_bad_card_may_be_tried_with_another(
    client: StripeClient, customer: str
) -> None:
    with pytest.raises(stripe.CardError):
        client.v1.setup_intents.create(
            {"customer": customer, "payment_method": REFUSED, "confirm": True}
        )
    [intent] = client.v1.setup_intents.list({"customer": customer}).data
    assert intent.status == "requires_payment_method"
    assert intent.last_setup_error is not None
    assert intent.last_setup_error.decline_code == "insufficient_funds"
    client.v1.setup_intents.confirm(intent.id, {"payment_method": "pm_card_mastercard"})
    other = client.v1.setup_intents.create({"customer": customer})
    assert client.v1.setup_intents.cancel(other.id).status == "canceled"
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.setup_intents.cancel(intent.id)


def test_a_card_is_made_the_default(
    client: StripeClient, local: LocalStripe, customer: str
) -> None:
    first, second = local.attach(customer), local.attach(customer, default=False)
    assert default_of(client, customer) == first["id"]
    local.make_default(second["id"])
    assert default_of(client, customer) == second["id"]
    client.v1.customers.update(
        customer, {"invoice_settings": {"default_payment_method": first["id"]}}
    )
    assert default_of(client, customer) == first["id"]


def test_a_bank_tells_of_a_new_expiry(
    client: StripeClient, local: LocalStripe, customer: str
) -> None:
    method = local.attach(customer, card={"exp_year": 2026})
    local.become(method["id"], exp_year=2031)
    card = client.v1.payment_methods.retrieve(method["id"]).card
    assert card is not None
    assert card.exp_year == 2031
    assert client.v1.events.list({"type": "payment_method.automatically_updated"}).data != []
