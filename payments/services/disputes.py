"""Payments that the customer's bank takes back, as they stand at the provider."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from django.db import transaction

from billing.services import lock_account
from payments.models import Dispute, Payment
from payments.provider import ProviderDispute
from payments.services.credit_left import note_credit_left
from payments.services.providing import provider
from payments.services.refunding import payment_of

Status = Dispute.Status
CLOSED = (Status.WON, Status.LOST)
# What may become of one: a question of the bank's may become a dispute, and both are decided once.
_BEFORE: Mapping[Status, tuple[Status, ...]] = {
    Status.INQUIRY: (Status.INQUIRY,),
    Status.OPEN: (Status.INQUIRY, Status.OPEN),
    Status.WON: (Status.INQUIRY, Status.OPEN),
    Status.LOST: (Status.INQUIRY, Status.OPEN),
}


def take_dispute(dispute_id: str, *, now: datetime) -> bool:
    """Take over a dispute as it stands at the provider; return whether it is of a payment of ours.

    Safe to repeat, in any order. Raises ProviderError.
    """
    told = provider().dispute(dispute_id)
    payment = payment_of(told.payment_id, now=now) if told.payment_id else None
    if payment is None:
        return False
    with transaction.atomic():
        lock_account(payment.account_id)
        _write(told, payment, now=now)
        note_credit_left(payment, now=now)
    return True


def _write(told: ProviderDispute, payment: Payment, *, now: datetime) -> None:
    status = Status(told.status)
    columns = {
        "amount": told.amount.amount,
        "status": status,
        "reason": told.reason[:64],
        # Decided, nothing can be answered any more.
        "answer_by": None if status in CLOSED else told.answer_by,
        "closed_at": now if status in CLOSED else None,
    }
    dispute, is_new = Dispute.objects.get_or_create(
        provider_id=told.id,
        defaults={"payment": payment, "opened_at": told.opened_at, **columns},
    )
    if not is_new and dispute.status in _BEFORE[status]:
        Dispute.objects.filter(pk=dispute.pk).update(**columns)
