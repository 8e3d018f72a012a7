"""Stripe's answers, as our own values. They come from outside: what is missing is an error."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from metering.period import Period
from payments.provider import (
    BillLine,
    BillPayment,
    BillStatus,
    Card,
    PaymentState,
    ProviderBill,
    ProviderDispute,
    ProviderEvent,
    ProviderPayment,
    ProviderRefund,
    ProviderSubscription,
    RefundState,
)
from payments.stripe.minor_units import from_minor_units

Json = Mapping[str, Any]

_PAYMENT_STATES = {
    "succeeded": PaymentState.SUCCEEDED,
    "processing": PaymentState.PROCESSING,
    "requires_action": PaymentState.NEEDS_CUSTOMER,
    "requires_confirmation": PaymentState.NOT_PAID,
    "requires_payment_method": PaymentState.NOT_PAID,
    "requires_capture": PaymentState.PROCESSING,
    "canceled": PaymentState.CANCELLED,
}
_REFUND_STATES = {
    "succeeded": RefundState.SUCCEEDED,
    "pending": RefundState.PENDING,
    "requires_action": RefundState.PENDING,
    "failed": RefundState.FAILED,
    "canceled": RefundState.FAILED,
}
_DISPUTE_STATES = {
    "needs_response": "open",
    "under_review": "open",
    "warning_needs_response": "inquiry",
    "warning_under_review": "inquiry",
    "warning_closed": "won",
    "prevented": "won",
    "won": "won",
    "lost": "lost",
}


def moment(seconds: int) -> datetime:
    """Return Stripe's time as ours."""
    return datetime.fromtimestamp(seconds, UTC)


def id_of(value: Any) -> str:
    """Return the id of what is named or, where it was expanded, held; empty: nothing."""
    if value is None:
        return ""
    return value if isinstance(value, str) else str(value["id"])


def card_of(method: Json) -> Card:
    """Return a payment method."""
    card = method.get("card") or {}
    return Card(
        id=method["id"],
        customer_id=id_of(method.get("customer")),
        kind=method["type"],
        brand=card.get("brand", ""),
        last4=card.get("last4") or "",
        expires_month=card.get("exp_month"),
        expires_year=card.get("exp_year"),
    )


def bill_of(invoice: Json) -> ProviderBill:
    """Return an invoice with as many of its lines and payments as the answer holds."""
    currency = invoice["currency"]
    parent = invoice.get("parent") or {}
    subscription = (parent.get("subscription_details") or {}).get("subscription")
    taxes = invoice.get("total_taxes") or []
    return ProviderBill(
        id=invoice["id"],
        number=invoice.get("number") or "",
        customer_id=id_of(invoice["customer"]),
        status=BillStatus(invoice["status"]),
        total=from_minor_units(invoice["total"], currency),
        amount_due=from_minor_units(invoice["amount_due"], currency),
        amount_paid=from_minor_units(invoice["amount_paid"], currency),
        starting_balance=from_minor_units(invoice["starting_balance"], currency),
        tax=from_minor_units(sum(tax["amount"] for tax in taxes), currency),
        has_lines=bool(invoice["lines"]["data"]),
        attempt_count=invoice["attempt_count"],
        hosted_url=invoice.get("hosted_invoice_url") or "",
        created_at=moment(invoice["created"]),
        metadata=dict(invoice.get("metadata") or {}),
        subscription_id=id_of(subscription),
        lines=tuple(_line_of(line) for line in invoice["lines"]["data"]),
        payments=tuple(
            _bill_payment_of(payment) for payment in (invoice.get("payments") or {}).get("data", ())
        ),
    )


def payment_of(intent: Json) -> ProviderPayment:
    """Return a payment intent; its latest charge has to be expanded for `paid_at`."""
    error = intent.get("last_payment_error") or {}
    charge = intent.get("latest_charge")
    state = _PAYMENT_STATES[intent["status"]]
    paid_at = None
    if state is PaymentState.SUCCEEDED:
        paid_at = moment(charge["created"] if isinstance(charge, Mapping) else intent["created"])
    return ProviderPayment(
        id=intent["id"],
        customer_id=id_of(intent.get("customer")),
        state=state,
        amount=from_minor_units(intent["amount"], intent["currency"]),
        received=from_minor_units(intent["amount_received"], intent["currency"]),
        charge_id=id_of(charge),
        paid_at=paid_at,
        created_at=moment(intent["created"]),
        failure_code=error.get("code") or "",
        decline_code=error.get("decline_code") or "",
        failure_message=error.get("message") or "",
    )


def refund_of(refund: Json) -> ProviderRefund:
    """Return a refund."""
    return ProviderRefund(
        id=refund["id"],
        payment_id=id_of(refund.get("payment_intent")),
        amount=from_minor_units(refund["amount"], refund["currency"]),
        state=_REFUND_STATES[refund.get("status") or "pending"],
        reason=refund.get("reason") or "",
        created_at=moment(refund["created"]),
        failure=refund.get("failure_reason") or "",
        metadata=dict(refund.get("metadata") or {}),
    )


def dispute_of(dispute: Json) -> ProviderDispute:
    """Return a dispute."""
    due_by = dispute["evidence_details"].get("due_by")
    return ProviderDispute(
        id=dispute["id"],
        payment_id=id_of(dispute.get("payment_intent")),
        amount=from_minor_units(dispute["amount"], dispute["currency"]),
        status=_DISPUTE_STATES[dispute["status"]],
        reason=dispute["reason"],
        opened_at=moment(dispute["created"]),
        answer_by=moment(due_by) if due_by else None,
    )


def subscription_of(subscription: Json) -> ProviderSubscription:
    """Return a subscription of one item, whose period it has."""
    item = subscription["items"]["data"][0]
    ended_at = subscription.get("ended_at")
    return ProviderSubscription(
        id=subscription["id"],
        customer_id=id_of(subscription["customer"]),
        item_id=item["id"],
        price_id=item["price"]["id"],
        status=subscription["status"],
        period=Period(moment(item["current_period_start"]), moment(item["current_period_end"])),
        cancels_at_period_end=subscription["cancel_at_period_end"],
        ended_at=moment(ended_at) if ended_at else None,
        metadata=dict(subscription.get("metadata") or {}),
    )


def event_of(event: Json) -> ProviderEvent:
    """Return an event, as a webhook brings it or the list of events has it."""
    about = event["data"]["object"]
    return ProviderEvent(
        id=event["id"],
        type=event["type"],
        object_type=about.get("object") or "",
        object_id=about.get("id") or "",
        api_version=event.get("api_version") or "",
        is_live_mode=event["livemode"],
        happened_at=moment(event["created"]),
        body=event,
    )


def _line_of(line: Json) -> BillLine:
    start, end = line["period"]["start"], line["period"]["end"]
    return BillLine(
        description=line.get("description") or "",
        amount=from_minor_units(line["amount"], line["currency"]),
        # An item of one moment has equal bounds.
        period=Period(moment(start), moment(max(end, start + 1))),
        metadata=dict(line.get("metadata") or {}),
        price_id=_price_of(line),
    )


def _price_of(line: Json) -> str:
    details = (line.get("pricing") or {}).get("price_details") or {}
    return id_of(details.get("price"))


def _bill_payment_of(payment: Json) -> BillPayment:
    return BillPayment(
        payment_id=id_of(payment["payment"].get("payment_intent")),
        amount=from_minor_units(payment.get("amount_paid") or 0, payment["currency"]),
        is_paid=payment["status"] == "paid",
    )
