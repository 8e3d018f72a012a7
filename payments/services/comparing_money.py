"""Payments and refunds of both sides, one beside the other."""

from __future__ import annotations

from datetime import datetime

from billing.money import Money
from payments.models import Difference, Payment, Refund
from payments.provider import (
    NotFoundError,
    PaymentState,
    ProviderPayment,
    ProviderRefund,
)
from payments.services.comparing import account_of, is_of_ours
from payments.services.differences import Found, note_difference
from payments.services.providing import provider
from payments.services.refunding import STATES, payment_of, take_refunds

Kind = Difference.Kind


def compare_payment(told: ProviderPayment, *, now: datetime) -> bool:
    """Record a payment that we did not hear of, and list what differs all the same.

    Returns whether anything was put right. Safe to repeat. Raises ProviderError.
    """
    if told.state is not PaymentState.SUCCEEDED:
        return False
    known = Payment.objects.filter(provider_id=told.id).first()
    payment = known or payment_of(told.id, now=now)
    if payment is None:
        if is_of_ours(told.customer_id):
            _note_payment_there(told, now=now)
        return False
    ours = Money(payment.amount, payment.currency)
    if ours != told.received:
        found = Found(
            kind=Kind.PAYMENT_AMOUNT_DIFFERS,
            subject=told.id,
            account_id=payment.account_id,
            ours=f"Payment of {ours}",
            theirs=f"Payment {told.id} of {told.received}",
            proposed_action="Ours cannot be changed. Record or refund the rest under a reference.",
        )
        note_difference(found, now=now)
    return known is None


def look_for_payment(payment: Payment, *, now: datetime) -> bool:
    """Compare a payment that was not among those that the provider told of. Raises ProviderError.

    Returns whether anything was put right.
    """
    try:
        told = provider().payment(str(payment.provider_id))
    except NotFoundError:
        told = None
    if told and told.state is PaymentState.SUCCEEDED:
        return compare_payment(told, now=now)
    ours = Money(payment.amount, payment.currency)
    found = Found(
        kind=Kind.PAYMENT_ONLY_HERE,
        subject=str(payment.provider_id),
        account_id=payment.account_id,
        ours=f"Payment of {ours}, received {payment.received_at:%Y-%m-%d}",
        theirs=f"It is {told.state}" if told else "There is no such payment",
        proposed_action="Look whether STRIPE_API_KEY is the key of the right account and mode.",
    )
    note_difference(found, now=now)
    return False


def compare_refund(told: ProviderRefund, *, now: datetime) -> bool:
    """Take over a refund where ours is not as it stands there; list one that is of nothing.

    Returns whether anything was put right. Safe to repeat. Raises ProviderError.
    """
    known = Refund.objects.filter(provider_id=told.id).first()
    if known and _is_alike(known, told):
        return False
    before = (known.status, known.amount) if known else None
    if told.payment_id and take_refunds(told.payment_id, now=now):
        after = Refund.objects.get(provider_id=told.id)
        if after.status != STATES[told.state]:
            _note_refund_state(after, told, now=now)
        return (after.status, after.amount) != before
    customer_id = provider().payment(told.payment_id).customer_id if told.payment_id else ""
    if is_of_ours(customer_id):
        found = Found(
            kind=Kind.REFUND_ONLY_THERE,
            subject=told.id,
            account_id=account_of(customer_id),
            ours="We know nothing of its payment",
            theirs=f"Refund of {told.amount} is {told.state}",
            proposed_action="Find out what was paid, as the payment's difference says.",
        )
        note_difference(found, now=now)
    return False


def look_for_refund(refund: Refund, *, now: datetime) -> bool:
    """Compare a refund that was not among those that the provider told of. Raises ProviderError.

    Returns whether anything was put right.
    """
    try:
        return compare_refund(provider().refund(str(refund.provider_id)), now=now)
    except NotFoundError:
        found = Found(
            kind=Kind.REFUND_ONLY_HERE,
            subject=str(refund.provider_id),
            account_id=refund.payment.account_id,
            ours=f"Refund of {Money(refund.amount, refund.payment.currency)} is {refund.status}",
            theirs="There is no such refund",
            proposed_action="Look whether STRIPE_API_KEY is the key of the right account and mode.",
        )
        note_difference(found, now=now)
        return False


def _is_alike(refund: Refund, told: ProviderRefund) -> bool:
    ours = Money(refund.amount, refund.payment.currency)
    return ours == told.amount and refund.status == STATES[told.state]


def _note_refund_state(refund: Refund, told: ProviderRefund, *, now: datetime) -> None:
    found = Found(
        kind=Kind.REFUND_DIFFERS,
        subject=told.id,
        account_id=refund.payment.account_id,
        ours=f"Refund of {Money(refund.amount, refund.payment.currency)} is {refund.status}",
        theirs=f"Refund {told.id} of {told.amount} is {told.state}",
        proposed_action="Look at both, and at the refund's calls.",
    )
    note_difference(found, now=now)


def _note_payment_there(told: ProviderPayment, *, now: datetime) -> None:
    found = Found(
        kind=Kind.PAYMENT_ONLY_THERE,
        subject=told.id,
        account_id=account_of(told.customer_id),
        ours="We know nothing of it",
        theirs=f"Payment of {told.received} succeeded, for no invoice of ours",
        proposed_action="Find out what it was for. Give it back there, or record it as an offline "
        "payment under the reference "
        f"{told.id}, and settle this.",
    )
    note_difference(found, now=now)
