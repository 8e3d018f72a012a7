"""Prepaid credit that is left over of money that went back, at the provider or by a dispute."""

from __future__ import annotations

from datetime import datetime

from billing.money import Money
from payments.models import Difference, Payment
from payments.services.differences import Found, note_difference, settle_gone
from payments.services.refundable import had_twice, refundable


def note_credit_left(payment: Payment, *, now: datetime) -> None:
    """List what a customer has twice of a payment, or settle it when it is gone. Repeatable."""
    subject = str(payment.provider_id or payment.pk)
    twice = had_twice(payment)
    if not twice:
        settle_gone(
            Difference.Kind.REFUND_DIFFERS, subject, reason="No credit is left over", now=now
        )
        return
    went_back = Money(payment.amount, payment.currency) - refundable(payment).amount
    found = Found(
        kind=Difference.Kind.REFUND_DIFFERS,
        subject=subject,
        account_id=payment.account_id,
        ours=f"{twice} that went back are prepaid credit all the same",
        theirs=f"{went_back} of the payment went back, by refunds and disputes",
        proposed_action=f"Take {twice} of prepaid credit back: with the refund, or revoke it. Or "
        "leave it to the customer: settle this and say why.",
    )
    note_difference(found, now=now)
