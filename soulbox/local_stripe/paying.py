"""Paying an invoice: its one payment intent, and each attempt's charge."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from soulbox.local_stripe import charges, disputes, lists, standing
from soulbox.local_stripe.cards import MESSAGES
from soulbox.local_stripe.customers import mark_delinquent
from soulbox.local_stripe.errors import CARD, INVALID, StripeError, invalid
from soulbox.local_stripe.payment_methods import card_of
from soulbox.local_stripe.state import Obj
from soulbox.local_stripe.world import Call, Served, World, served


def open_payment(world: World, invoice: Obj) -> None:
    """Make the invoice's payment intent and the record that ties the two."""
    intent_id = world.state.new_id("pi")
    intent: Obj = {
        "id": intent_id,
        "object": "payment_intent",
        "amount": invoice["amount_due"],
        "amount_capturable": 0,
        "amount_details": {"tip": {}},
        "amount_received": 0,
        "application": None,
        "application_fee_amount": None,
        "automatic_payment_methods": None,
        "canceled_at": None,
        "cancellation_reason": None,
        "capture_method": "automatic",
        "client_secret": world.state.new_id(f"{intent_id}_secret"),
        "confirmation_method": "automatic",
        "created": world.now,
        "currency": invoice["currency"],
        "customer": invoice["customer"],
        "customer_account": None,
        "description": invoice["description"],
        "excluded_payment_method_types": None,
        "last_payment_error": None,
        "latest_charge": None,
        "livemode": False,
        "metadata": {},
        "next_action": None,
        "on_behalf_of": None,
        "payment_method": None,
        "payment_method_configuration_details": None,
        "payment_method_options": {
            "card": {
                "installments": None,
                "mandate_options": None,
                "network": None,
                "request_three_d_secure": "automatic",
            }
        },
        "payment_method_types": ["card"],
        "processing": None,
        "receipt_email": None,
        "review": None,
        "setup_future_usage": None,
        "shipping": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": None,
        "status": "requires_payment_method",
        "transfer_data": None,
        "transfer_group": None,
    }
    world.add(intent)
    world.emit("payment_intent.created", intent)
    world.add(
        {
            "id": world.state.new_id("inpay"),
            "object": "invoice_payment",
            "amount_paid": None,
            "amount_requested": invoice["amount_due"],
            "created": world.now,
            "currency": invoice["currency"],
            "invoice": invoice["id"],
            "is_default": True,
            "livemode": False,
            "payment": {"payment_intent": intent_id, "type": "payment_intent"},
            "status": "open",
            "status_transitions": {"canceled_at": None, "paid_at": None},
        }
    )


def payment_of(world: World, invoice: Obj) -> tuple[Obj, Obj]:
    """Return the invoice's payment record and payment intent."""
    record = next(
        one
        for one in world.state.table("invoice_payment").values()
        if one["invoice"] == invoice["id"]
    )
    return record, world.get("payment_intent", record["payment"]["payment_intent"])


def method_to_charge(world: World, invoice: Obj, asked: str | None) -> Obj:
    """Return the card to charge: the one asked for, the invoice's, or the customer's default."""
    customer = world.get("customer", invoice["customer"])
    subscription = world.state.find(standing.subscription_of(invoice) or "") or {}
    chosen = (
        asked
        or invoice["default_payment_method"]
        or subscription.get("default_payment_method")
        or customer["invoice_settings"]["default_payment_method"]
    )
    if chosen is None:
        raise invalid(
            "There is no `default_payment_method` set on this Customer or Invoice. Please set "
            "either field in order to pay this invoice."
        )
    method = world.get("payment_method", chosen, param="payment_method")
    if method["customer"] != customer["id"]:
        raise invalid(
            f"The customer does not have a payment method with the ID {chosen}. The payment method "
            "must be attached to the customer.",
            code="resource_missing",
            param="payment_method",
        )
    return method


def attempt(
    world: World, invoice: Obj, method: Obj, *, off_session: bool, is_authenticated: bool = False
) -> None:
    """Charge the card for an open invoice. Raises Stripe's 402 when the card is declined."""
    _record, intent = payment_of(world, invoice)
    if intent["amount"] > charges.LARGEST:
        raise invalid(
            f"Amount must be no more than {charges.LARGEST}",
            code="amount_too_large",
            param="amount",
        )
    card = card_of(world, method)
    decline = card.decline
    before = deepcopy(invoice)
    invoice["attempted"] = True
    # Only Stripe's own retries count on: attempts by hand leave its schedule alone.
    invoice["attempt_count"] = max(invoice["attempt_count"], 1)
    if card.authenticates and not is_authenticated:
        if not off_session:
            _ask_to_authenticate(world, invoice, intent, method, before)
        decline = "authentication_required"
    charge = charges.new_charge(world, intent, method, decline=decline)
    intent["latest_charge"] = charge["id"]
    if decline is not None:
        _refuse(world, invoice, intent, method, decline, before)
    _succeed(world, invoice, intent, charge)
    if card.is_disputed:
        disputes.open_dispute(world, charge, "fraudulent")


def _succeed(world: World, invoice: Obj, intent: Obj, charge: Obj) -> None:
    intent.update(
        amount_received=intent["amount"],
        last_payment_error=None,
        next_action=None,
        payment_method=charge["payment_method"],
        status="succeeded",
    )
    world.emit("payment_intent.succeeded", intent)
    record, _intent = payment_of(world, invoice)
    record.update(amount_paid=intent["amount"], status="paid")
    record["status_transitions"]["paid_at"] = world.now
    mark_paid(world, invoice, paid=intent["amount"])
    world.emit("invoice_payment.paid", record)


def mark_paid(world: World, invoice: Obj, *, paid: int) -> None:
    """Close the invoice as paid, with so many minor units."""
    before = deepcopy(invoice)
    invoice.update(
        amount_paid=paid,
        amount_remaining=0,
        attempted=True,
        next_payment_attempt=None,
        status="paid",
    )
    invoice["status_transitions"]["paid_at"] = world.now
    world.state.due.pop(invoice["id"], None)
    tell_update(world, invoice, before)
    world.emit("invoice.paid", invoice)
    mark_delinquent(world, invoice["customer"], is_so=False)
    world.emit("invoice.payment_succeeded", invoice)
    standing.after_payment(world, invoice)


def tell_update(world: World, invoice: Obj, before: Obj) -> None:
    """Emit invoice.updated with what changed."""
    previous = {name: value for name, value in before.items() if invoice[name] != value}
    if previous:
        world.emit("invoice.updated", invoice, previous=previous)


def _refuse(
    world: World, invoice: Obj, intent: Obj, method: Obj, decline: str, before: Obj
) -> None:
    card = card_of(world, method)
    code = charges.card_code(card, decline)
    error: Obj = {
        "charge": intent["latest_charge"],
        "code": code,
        "decline_code": decline,
        "message": MESSAGES[decline],
        "payment_method": deepcopy(method),
        "type": CARD,
    }
    intent.update(
        last_payment_error=error,
        next_action=None,
        payment_method=None,
        status="requires_payment_method",
    )
    world.emit("payment_intent.payment_failed", intent)
    tell_failure(world, invoice, before)
    if decline == "authentication_required":
        world.emit("invoice.payment_action_required", invoice)
    raise StripeError(
        402,
        CARD,
        error["message"],
        charge=intent["latest_charge"],
        code=code,
        decline_code=decline,
        payment_intent=deepcopy(intent),
        payment_method=error["payment_method"],
    )


def tell_failure(world: World, invoice: Obj, before: Obj) -> None:
    """Emit what follows an attempt that failed."""
    tell_update(world, invoice, before)
    world.emit("invoice.payment_failed", invoice)
    standing.after_failure(world, invoice)


def _ask_to_authenticate(world: World, invoice: Obj, intent: Obj, method: Obj, before: Obj) -> None:
    intent.update(
        next_action={
            "redirect_to_url": {"return_url": None, "url": invoice["hosted_invoice_url"]},
            "type": "redirect_to_url",
        },
        payment_method=method["id"],
        status="requires_action",
    )
    world.emit("payment_intent.requires_action", intent)
    tell_failure(world, invoice, before)
    world.emit("invoice.payment_action_required", invoice)
    raise StripeError(
        402,
        CARD,
        "This payment requires additional user action before it can be completed successfully. "
        "Payment can be completed using the PaymentIntent associated with the invoice.",
        code="invoice_payment_intent_requires_action",
        payment_intent=deepcopy(intent),
    )


def cancel_payment(world: World, invoice: Obj, reason: str) -> None:
    """Cancel what would pay a void invoice, or one paid in another way."""
    if not any(
        one["invoice"] == invoice["id"] for one in world.state.table("invoice_payment").values()
    ):
        return
    record, intent = payment_of(world, invoice)
    record["status"] = "canceled"
    record["status_transitions"]["canceled_at"] = world.now
    intent.update(
        canceled_at=world.now, cancellation_reason=reason, next_action=None, status="canceled"
    )
    world.emit("payment_intent.canceled", intent)


def retrieve_intent(call: Call) -> Obj:
    """Return a payment intent."""
    return call.world.get("payment_intent", call.id)


def intent_page(call: Call) -> Obj:
    """Return payment intents."""
    customer = call.get("customer")
    found = [one for one in call.world.all("payment_intent") if customer in (None, one["customer"])]
    return lists.page(call, found, "/v1/payment_intents")


def retrieve_payment(call: Call) -> Obj:
    """Return the tie of an invoice to its payment intent."""
    return call.world.get("invoice_payment", call.id)


def payment_page(call: Call) -> Obj:
    """Return ties of invoices to payments, found from either side."""
    paid_by: dict[str, Any] = call.get("payment") or {}
    if paid_by and "payment_intent" not in paid_by:
        raise StripeError(
            400, INVALID, "Only payments by payment_intent are here.", param="payment"
        )
    found = [
        one
        for one in call.world.all("invoice_payment")
        if call.get("invoice") in (None, one["invoice"])
        and call.get("status") in (None, one["status"])
        and paid_by.get("payment_intent") in (None, one["payment"]["payment_intent"])
    ]
    return lists.page(call, found, "/v1/invoice_payments")


OPERATIONS: dict[str, Served] = {
    "GetPaymentIntentsIntent": served(retrieve_intent),
    "GetPaymentIntents": served(intent_page, "customer", *lists.PAGING),
    "GetInvoicePaymentsInvoicePayment": served(retrieve_payment),
    "GetInvoicePayments": served(payment_page, "invoice", "payment", "status", *lists.PAGING),
}
