"""Setting up a card for later payments, with nobody charged."""

from __future__ import annotations

from soulbox.local_stripe import lists, payment_methods
from soulbox.local_stripe.cards import MESSAGES
from soulbox.local_stripe.errors import CARD, INVALID, StripeError, invalid
from soulbox.local_stripe.state import Obj
from soulbox.local_stripe.world import Call, Served, World, served, with_metadata

CONFIRMABLE = ("requires_payment_method", "requires_confirmation")


def create(call: Call) -> Obj:
    """Make a SetupIntent, confirmed at once where the call says so."""
    world = call.world
    customer_id = call.get("customer")
    if customer_id:
        world.get("customer", customer_id, param="customer")
    intent_id = world.state.new_id("seti")
    types = call.get("payment_method_types")
    intent: Obj = {
        "id": intent_id,
        "object": "setup_intent",
        "application": None,
        "automatic_payment_methods": None
        if types
        else {"enabled": True, "allow_redirects": "always"},
        "cancellation_reason": None,
        "client_secret": world.state.new_id(f"{intent_id}_secret"),
        "created": world.now,
        "customer": customer_id,
        "customer_account": None,
        "description": call.get("description"),
        "excluded_payment_method_types": None,
        "flow_directions": None,
        "last_setup_error": None,
        "latest_attempt": None,
        "livemode": False,
        "mandate": None,
        "metadata": with_metadata(None, call.given.get("metadata", {})),
        "next_action": None,
        "on_behalf_of": None,
        "payment_method": None,
        "payment_method_configuration_details": None,
        "payment_method_options": {
            "card": {
                "mandate_options": None,
                "network": None,
                "request_three_d_secure": "automatic",
            }
        },
        "payment_method_types": types or ["card"],
        "single_use_mandate": None,
        "status": "requires_payment_method",
        "usage": call.get("usage") or "off_session",
    }
    if call.get("automatic_payment_methods"):
        intent["automatic_payment_methods"].update(call.get("automatic_payment_methods"))
    world.add(intent)
    world.emit("setup_intent.created", intent)
    if method_id := call.get("payment_method"):
        intent["payment_method"] = payment_methods.found(world, method_id)["id"]
        intent["status"] = "requires_confirmation"
    return _confirmed(world, intent, intent["payment_method"]) if call.get("confirm") else intent


def confirm(call: Call) -> Obj:
    """Set the card up, and attach it to the intent's customer."""
    intent = call.world.get("setup_intent", call.id)
    method_id = call.get("payment_method") or intent["payment_method"]
    return _confirmed(call.world, intent, method_id)


def _confirmed(world: World, intent: Obj, method_id: str | None) -> Obj:
    if intent["status"] not in CONFIRMABLE:
        raise StripeError(
            400,
            INVALID,
            f"You cannot confirm this SetupIntent because it has a status of {intent['status']}.",
            code="setup_intent_unexpected_state",
            setup_intent=intent,
        )
    if method_id is None:
        raise invalid(
            "You cannot confirm this SetupIntent because it's missing a payment method.",
            code="setup_intent_unexpected_state",
        )
    method = payment_methods.found(world, method_id)
    card = payment_methods.card_of(world, method)
    if card.decline and not card.attaches:
        error: Obj = {
            "code": card.code,
            "decline_code": card.decline,
            "message": MESSAGES[card.decline],
            "payment_method": method,
            "type": CARD,
        }
        intent.update(last_setup_error=error, status="requires_payment_method")
        world.emit("setup_intent.setup_failed", intent)
        raise StripeError(
            402,
            CARD,
            error["message"],
            code=card.code,
            decline_code=card.decline,
            payment_method=method,
            setup_intent=intent,
        )
    if intent["customer"]:
        payment_methods.attach_to(world, method, intent["customer"])
    intent.update(payment_method=method["id"], status="succeeded", last_setup_error=None)
    world.emit("setup_intent.succeeded", intent)
    return intent


def cancel(call: Call) -> Obj:
    """Give up on an intent."""
    intent = call.world.get("setup_intent", call.id)
    if intent["status"] in ("succeeded", "canceled"):
        raise invalid(
            f"You cannot cancel this SetupIntent because it has a status of {intent['status']}.",
            code="setup_intent_unexpected_state",
        )
    intent.update(status="canceled", cancellation_reason=call.get("cancellation_reason"))
    call.world.emit("setup_intent.canceled", intent)
    return intent


def retrieve(call: Call) -> Obj:
    """Return an intent."""
    return call.world.get("setup_intent", call.id)


def list_page(call: Call) -> Obj:
    """Return intents, of one customer or of one payment method."""
    found = [
        one
        for one in call.world.all("setup_intent")
        if call.get("customer") in (None, one["customer"])
        and call.get("payment_method") in (None, one["payment_method"])
    ]
    return lists.page(call, found, "/v1/setup_intents")


OPERATIONS: dict[str, Served] = {
    "PostSetupIntents": served(
        create,
        "customer",
        "description",
        "metadata",
        "usage",
        "confirm",
        "payment_method",
        "payment_method_types",
        "automatic_payment_methods",
    ),
    "PostSetupIntentsIntentConfirm": served(confirm, "payment_method"),
    "PostSetupIntentsIntentCancel": served(cancel, "cancellation_reason"),
    "GetSetupIntentsIntent": served(retrieve),
    "GetSetupIntents": served(list_page, "customer", "payment_method", *lists.PAGING),
}
