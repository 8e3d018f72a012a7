"""What is done about an event: the object that it names is read again, and taken over as it is.

So events may come twice, late and in any order. An event of a kind that is not in the table is
kept, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from payments.models import WebhookEvent
from payments.services.disputes import take_dispute
from payments.services.methods import take_methods
from payments.services.provider_subscriptions import take_subscription
from payments.services.providing import provider
from payments.services.refunding import take_refunds
from payments.services.settling import settle_bill


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an event, in words. Not applied: it is about nothing of ours."""

    is_applied: bool
    result: str


Step = Callable[[WebhookEvent, datetime], Outcome]


def is_known(event_type: str) -> bool:
    """Return whether an event of this kind may change something."""
    return event_type in _STEPS


def apply(event: WebhookEvent, *, now: datetime) -> Outcome:
    """Take over how the object that an event names stands now. Safe to repeat, in any order.

    Raises ProviderError.
    """
    return _STEPS[event.type](event, now)


def _take_bill(event: WebhookEvent, now: datetime) -> Outcome:
    return _settled(event.object_id, event, now=now)


def _take_payment(event: WebhookEvent, now: datetime) -> Outcome:
    bill_id = provider().bill_of_payment(event.object_id)
    if bill_id is None:
        return Outcome(is_applied=False, result=f"Payment {event.object_id} is for no invoice.")
    return _settled(bill_id, event, now=now)


def _settled(bill_id: str, event: WebhookEvent, *, now: datetime) -> Outcome:
    if settle_bill(bill_id, now=now, because=f"Webhook {event.type}"):
        return Outcome(is_applied=True, result=f"Taken over: invoice {bill_id}.")
    return Outcome(is_applied=False, result=f"Invoice {bill_id} is not one of ours.")


def _take_refunds_of_charge(event: WebhookEvent, now: datetime) -> Outcome:
    return _refunds(provider().payment_of_charge(event.object_id), now=now)


def _take_refunds_beside(event: WebhookEvent, now: datetime) -> Outcome:
    return _refunds(provider().refund(event.object_id).payment_id, now=now)


def _refunds(payment_id: str | None, *, now: datetime) -> Outcome:
    if payment_id and take_refunds(payment_id, now=now):
        result = f"Taken over: refunds of payment {payment_id}."
        return Outcome(is_applied=True, result=result)
    return Outcome(is_applied=False, result="It is of no payment of ours.")


def _take_dispute(event: WebhookEvent, now: datetime) -> Outcome:
    if take_dispute(event.object_id, now=now):
        return Outcome(is_applied=True, result=f"Taken over: dispute {event.object_id}.")
    return Outcome(is_applied=False, result="It is of no payment of ours.")


def _take_methods_of_object(event: WebhookEvent, now: datetime) -> Outcome:
    return _methods(_customer_in(event), now=now)


def _take_methods_of_customer(event: WebhookEvent, now: datetime) -> Outcome:
    return _methods(event.object_id, now=now)


def _take_methods_of_setup(event: WebhookEvent, now: datetime) -> Outcome:
    return _methods(provider().setup_customer(event.object_id), now=now)


def _methods(customer_id: str, *, now: datetime) -> Outcome:
    if customer_id and take_methods(customer_id, now=now):
        result = f"Taken over: payment methods of customer {customer_id}."
        return Outcome(is_applied=True, result=result)
    who = f"Customer {customer_id} is not one of ours." if customer_id else "It names no customer."
    return Outcome(is_applied=False, result=who)


def _customer_in(event: WebhookEvent) -> str:
    """Return the customer that a payment method is of, or was of until this event."""
    told: Mapping[str, Any] = event.body["data"]
    before: Mapping[str, Any] = told.get("previous_attributes") or {}
    customer = told["object"].get("customer") or before.get("customer") or ""
    return str(customer["id"]) if isinstance(customer, Mapping) else str(customer)


def _take_subscription(event: WebhookEvent, now: datetime) -> Outcome:
    if take_subscription(event.object_id, now=now):
        return Outcome(is_applied=True, result=f"Taken over: subscription {event.object_id}.")
    return Outcome(is_applied=False, result=f"{event.object_id} is not one of ours.")


_STEPS: Mapping[str, Step] = {
    "invoice.finalized": _take_bill,
    "invoice.paid": _take_bill,
    "invoice.payment_failed": _take_bill,
    "invoice.voided": _take_bill,
    "payment_intent.succeeded": _take_payment,
    "payment_intent.payment_failed": _take_payment,
    "charge.refunded": _take_refunds_of_charge,
    "charge.refund.updated": _take_refunds_beside,
    "refund.created": _take_refunds_beside,
    "refund.updated": _take_refunds_beside,
    "refund.failed": _take_refunds_beside,
    "charge.dispute.created": _take_dispute,
    "charge.dispute.updated": _take_dispute,
    "charge.dispute.closed": _take_dispute,
    "charge.dispute.funds_withdrawn": _take_dispute,
    "charge.dispute.funds_reinstated": _take_dispute,
    "payment_method.attached": _take_methods_of_object,
    "payment_method.detached": _take_methods_of_object,
    "payment_method.updated": _take_methods_of_object,
    "payment_method.automatically_updated": _take_methods_of_object,
    "setup_intent.succeeded": _take_methods_of_setup,
    "customer.updated": _take_methods_of_customer,
    "customer.subscription.created": _take_subscription,
    "customer.subscription.updated": _take_subscription,
    "customer.subscription.deleted": _take_subscription,
    "invoice.marked_uncollectible": _take_bill,
}
