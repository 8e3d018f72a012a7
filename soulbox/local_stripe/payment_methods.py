"""Cards of customers, made from the tokens of Stripe's test cards."""

from __future__ import annotations

import hashlib
from copy import deepcopy
from datetime import UTC, datetime

from soulbox.local_stripe import lists
from soulbox.local_stripe.cards import MESSAGES, TOKENS, Card
from soulbox.local_stripe.customers import tell_change
from soulbox.local_stripe.errors import CARD, StripeError, invalid
from soulbox.local_stripe.state import Obj
from soulbox.local_stripe.world import Call, Served, World, changed, served, with_metadata

FINGERPRINT_LENGTH = 16
YEARS_VALID = 4


def card_of(world: World, method: Obj) -> Card:
    """Return the test card behind a payment method."""
    return TOKENS[world.state.cards[method["id"]]]


def from_token(world: World, token: str) -> Obj:
    """Make a payment method of a test card's token, attached to nobody."""
    card = TOKENS[token]
    method: Obj = {
        "id": world.state.new_id("pm"),
        "object": "payment_method",
        "allow_redisplay": "unspecified",
        "billing_details": {
            "address": dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state")),
            "email": None,
            "name": None,
            "phone": None,
            "tax_id": None,
        },
        "card": {
            "brand": card.brand,
            "checks": {
                "address_line1_check": None,
                "address_postal_code_check": None,
                "cvc_check": "pass",
            },
            "country": "US",
            "display_brand": card.brand,
            "exp_month": 12,
            "exp_year": datetime.fromtimestamp(world.now, UTC).year + YEARS_VALID,
            "fingerprint": hashlib.sha256(card.last4.encode()).hexdigest()[:FINGERPRINT_LENGTH],
            "funding": "credit",
            "generated_from": None,
            "last4": card.last4,
            "networks": {"available": [card.brand], "preferred": None},
            "regulated_status": "unregulated",
            "three_d_secure_usage": {"supported": True},
            "wallet": None,
        },
        "created": world.now,
        "customer": None,
        "customer_account": None,
        "livemode": False,
        "metadata": {},
        "type": "card",
    }
    world.state.cards[method["id"]] = token
    return world.add(method)


def found(world: World, method_id: str, *, param: str = "payment_method") -> Obj:
    """Return a payment method by its id or, made new, by a test card's token."""
    if method_id in TOKENS:
        return from_token(world, method_id)
    if method_id not in world.state.table("payment_method"):
        raise StripeError(
            404 if param == "id" else 400,
            "invalid_request_error",
            f"No such PaymentMethod: '{method_id}'",
            code="resource_missing",
            param=None if param == "id" else param,
        )
    return world.get("payment_method", method_id)


def attach_to(world: World, method: Obj, customer_id: str) -> Obj:
    """Give the customer this card."""
    if method["customer"] not in (None, customer_id):
        raise invalid(
            "The payment method you provided has already been attached to a customer.",
            code="payment_method_unexpected_state",
        )
    method["customer"] = customer_id
    world.emit("payment_method.attached", method)
    return method


def refuse_bad_card(world: World, method: Obj) -> None:
    """Raise the decline with which Stripe answers a bad card when it is attached."""
    card = card_of(world, method)
    if card.attaches or card.decline is None:
        return
    raise StripeError(
        402,
        CARD,
        MESSAGES[card.decline],
        code=card.code,
        decline_code=card.decline,
        param="",
    )


def attach(call: Call) -> Obj:
    """Attach a card that is on nobody's account yet."""
    world = call.world
    customer = world.get("customer", call.get("customer") or "", param="customer")
    method = found(world, call.id, param="id")
    refuse_bad_card(world, method)
    return attach_to(world, method, customer["id"])


def detach(call: Call) -> Obj:
    """Take a card from its customer, for good."""
    method = found(call.world, call.id, param="id")
    if method["customer"] is None:
        raise invalid(
            "The payment method you provided is not attached to a customer so detachment is "
            "impossible."
        )
    return detach_from_customer(call.world, method)


def detach_from_customer(world: World, method: Obj) -> Obj:
    """Take a card from its customer, who may have had it as the default."""
    customer = world.get("customer", method["customer"])
    before = deepcopy(method)
    method["customer"] = None
    world.emit("payment_method.detached", method, previous=changed(before, method))
    settings = customer["invoice_settings"]
    if settings["default_payment_method"] == method["id"]:
        was = deepcopy(customer)
        settings["default_payment_method"] = None
        tell_change(world, customer, was)
    return method


def retrieve(call: Call) -> Obj:
    """Return a payment method."""
    return found(call.world, call.in_path["payment_method"], param="id")


def update(call: Call) -> Obj:
    """Change expiry, billing details or metadata."""
    method = found(call.world, call.id, param="id")
    before = deepcopy(method)
    method["card"].update(call.get("card") or {})
    method["billing_details"].update(call.get("billing_details") or {})
    if "metadata" in call.given:
        method["metadata"] = with_metadata(method["metadata"], call.given["metadata"])
    if previous := changed(before, method):
        call.world.emit("payment_method.updated", method, previous=previous)
    return method


def list_page(call: Call) -> Obj:
    """Return payment methods of one customer."""
    return _page(call, call.get("customer"), "/v1/payment_methods")


def list_of_customer(call: Call) -> Obj:
    """Return the customer's own."""
    customer = call.world.get("customer", call.id)
    return _page(call, customer["id"], f"/v1/customers/{customer['id']}/payment_methods")


def _page(call: Call, customer_id: str | None, url: str) -> Obj:
    held = [
        one
        for one in call.world.all("payment_method")
        if one["customer"] is not None
        and one["customer"] == customer_id
        and call.get("type") in (None, one["type"])
    ]
    return lists.page(call, held, url)


PAGING = ("type", "limit", "starting_after", "ending_before")
OPERATIONS: dict[str, Served] = {
    "PostPaymentMethodsPaymentMethodAttach": served(attach, "customer"),
    "PostPaymentMethodsPaymentMethodDetach": served(detach),
    "PostPaymentMethodsPaymentMethod": served(update, "card", "billing_details", "metadata"),
    "GetPaymentMethodsPaymentMethod": served(retrieve),
    "GetCustomersCustomerPaymentMethodsPaymentMethod": served(retrieve),
    "GetPaymentMethods": served(list_page, "customer", *PAGING),
    "GetCustomersCustomerPaymentMethods": served(list_of_customer, *PAGING),
}
