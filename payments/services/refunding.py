"""Refunds at the provider: asked for once, and taken over as they stand there. Forward only."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Q

from billing.money import Money
from billing.services import lock_account
from metering.log_lines import log_committed
from payments.models import Difference, Payment, Refund
from payments.provider import (
    DeclinedError,
    NotFoundError,
    NotSetUpError,
    ProviderError,
    ProviderRefund,
    RefundState,
    RefusedError,
)
from payments.services.calling import Call, is_repeatable, last_call, make_call
from payments.services.credit_left import note_credit_left
from payments.services.differences import Found, note_difference
from payments.services.providing import is_set_up, provider
from payments.services.refunds import give_credit_back
from payments.services.restorations import was_restored_after
from payments.services.settling import settle_bill

logger = logging.getLogger(__name__)

LEASE = timedelta(seconds=45)
"""Longer than a step."""
REFUNDS_A_SWEEP = 500
AFTER_FAILURE = timedelta(minutes=1)
LOOK_AGAIN = timedelta(hours=1)
"""When a refund that the provider has under way is looked at again, should no webhook come."""
THERE = "Made at the provider"
Status = Refund.Status
STATES: Mapping[RefundState, Status] = {
    RefundState.PENDING: Status.PENDING,
    RefundState.SUCCEEDED: Status.SUCCEEDED,
    RefundState.FAILED: Status.FAILED,
}
# What may become of a refund: also of one that the card's bank sends back after all.
_BEFORE: Mapping[Status, tuple[Status, ...]] = {
    Status.PENDING: (Status.APPROVED,),
    Status.SUCCEEDED: (Status.APPROVED, Status.PENDING),
    Status.FAILED: (Status.APPROVED, Status.PENDING, Status.SUCCEEDED),
}


def due_refunds(now: datetime) -> list[UUID]:
    """Return the refunds that are to be asked for or looked at, those that wait longest first."""
    if not is_set_up():
        return []
    rows = Refund.objects.filter(_due(now)).order_by("try_at")
    return list(rows.values_list("pk", flat=True)[:REFUNDS_A_SWEEP])


def take_refund_step(refund_id: UUID, *, now: datetime) -> bool:
    """Ask the provider for a refund, or what became of it, if it is due and nobody has it.

    Returns whether anything was done. Safe to repeat; a worker that dies in it is followed by
    another when its lease is over. Raises NotSetUpError.
    """
    claimed = Refund.objects.filter(_due(now), pk=refund_id).update(claimed_until=now + LEASE)
    if not claimed:
        return False
    refund = Refund.objects.select_related("payment").get(pk=refund_id)
    try:
        if refund.status == Status.APPROVED:
            _ask(refund, now=now)
        else:
            _take_over(provider().refund(str(refund.provider_id)), refund.payment, now=now)
    except NotSetUpError:
        _let_go(refund, try_at=refund.try_at)
        raise
    except (RefusedError, NotFoundError, DeclinedError) as error:
        _fail(refund, str(error), now=now)
    except ProviderError as error:
        logger.warning("refund waits: %s", error, extra={"refund_id": str(refund.pk)})
        _let_go(refund, try_at=now + AFTER_FAILURE)
    else:
        _let_go(refund, try_at=now + LOOK_AGAIN)
    return True


def take_refunds(provider_payment_id: str, *, now: datetime) -> bool:
    """Take over all refunds of a payment as they stand there, also those that were made there.

    Returns whether the payment is one of ours. Safe to repeat. Raises ProviderError.
    """
    payment = payment_of(provider_payment_id, now=now)
    if payment is None:
        return False
    for told in provider().refunds_of(provider_payment_id):
        _take_over(told, payment, now=now)
    note_credit_left(payment, now=now)
    return True


def payment_of(provider_payment_id: str, *, now: datetime) -> Payment | None:
    """Return the payment that the provider names so, if it is one of ours. Raises ProviderError."""
    found = Payment.objects.filter(provider_id=provider_payment_id).first()
    if found:
        return found
    # That it was paid may not have been heard of yet.
    bill_id = provider().bill_of_payment(provider_payment_id)
    if bill_id is None or not settle_bill(bill_id, now=now):
        return None
    return Payment.objects.filter(provider_id=provider_payment_id).first()


def _ask(refund: Refund, *, now: datetime) -> None:
    payment = refund.payment
    key = f"refund-{refund.pk}"
    amount = Money(refund.amount, payment.currency)
    was_asked = last_call(key) and not is_repeatable(key, now=now)
    if (was_asked or was_restored_after(refund.proposed_at)) and _find(refund, now=now):
        return
    metadata = {"refund_id": str(refund.pk), "account_id": str(payment.account_id)}
    asked = {"payment": payment.provider_id, "amount": amount, "metadata": metadata}
    call = Call(key, "refunds.create", payment.account_id, asked, refund_id=refund.pk)
    try:
        told = make_call(
            call,
            lambda once: provider().create_refund(
                str(payment.provider_id), amount, metadata=metadata, key=once
            ),
            now=now,
        )
    except RefusedError:
        # It may be that we were not told of the first time.
        if _find(refund, now=now):
            return
        raise
    _take_over(told, payment, now=now)


def _find(refund: Refund, *, now: datetime) -> bool:
    """Look for a refund at the provider that may have been made; return whether it was."""
    take_refunds(str(refund.payment.provider_id), now=now)
    return Refund.objects.filter(pk=refund.pk, provider_id__isnull=False).exists()


def _take_over(told: ProviderRefund, payment: Payment, *, now: datetime) -> None:
    with transaction.atomic():
        lock_account(payment.account_id)
        refund = _ours(told, payment)
        if refund is None:
            refund = _made_there(told, payment, now=now)
        _move(refund, told, now=now)
        _note_amount(refund, told, now=now)


def _ours(told: ProviderRefund, payment: Payment) -> Refund | None:
    if found := Refund.objects.filter(provider_id=told.id).first():
        return found
    try:
        named = UUID(told.metadata.get("refund_id", ""))
    except ValueError:
        return None
    refund = Refund.objects.filter(
        pk=named, payment=payment, provider_id__isnull=True, status=Status.APPROVED
    ).first()
    if refund:
        refund.provider_id = told.id
        refund.save(update_fields=["provider_id"])
    return refund


def _made_there(told: ProviderRefund, payment: Payment, *, now: datetime) -> Refund:
    return Refund.objects.create(
        payment=payment,
        amount=told.amount.amount,
        status=Status.PENDING,
        reason=f"{THERE}: {told.reason}" if told.reason else THERE,
        proposed_at=told.created_at,
        provider_id=told.id,
        try_at=now + LOOK_AGAIN,
    )


def _move(refund: Refund, told: ProviderRefund, *, now: datetime) -> None:
    status = STATES[told.state]
    if refund.status not in _BEFORE[status]:
        return
    refund.status, refund.failure = status, told.failure
    refund.ended_at = None if status is Status.PENDING else now
    refund.save(update_fields=["status", "failure", "ended_at"])
    _log(refund)
    if status is Status.FAILED:
        give_credit_back(refund, now=now)


def _log(refund: Refund) -> None:
    log_committed(
        logger,
        f"refund is {refund.status}",
        refund_id=str(refund.pk),
        account_id=refund.payment.account_id,
        amount=f"{refund.amount:.2f}",
        currency=refund.payment.currency,
    )


def _note_amount(refund: Refund, told: ProviderRefund, *, now: datetime) -> None:
    ours = Money(refund.amount, refund.payment.currency)
    if told.amount == ours:
        return
    found = Found(
        kind=Difference.Kind.REFUND_DIFFERS,
        subject=told.id,
        account_id=refund.payment.account_id,
        ours=f"Refund of {ours}",
        theirs=f"Refund {told.id} of {told.amount}",
        proposed_action="Look at both. Ours was asked for under its key, and cannot be changed.",
    )
    note_difference(found, now=now)


def _fail(refund: Refund, failure: str, *, now: datetime) -> None:
    with transaction.atomic():
        lock_account(refund.payment.account_id)
        refund.refresh_from_db()
        if refund.status != Status.APPROVED:
            return
        refund.status, refund.failure, refund.ended_at = Status.FAILED, failure, now
        refund.claimed_until = None
        refund.save(update_fields=["status", "failure", "ended_at", "claimed_until"])
        _log(refund)
        give_credit_back(refund, now=now)


def _let_go(refund: Refund, *, try_at: datetime) -> None:
    Refund.objects.filter(pk=refund.pk).update(claimed_until=None, try_at=try_at)


def _due(now: datetime) -> Q:
    return (
        Q(status__in=[Status.APPROVED, Status.PENDING], try_at__lte=now)
        & Q(payment__method=Payment.Method.PROVIDER)
        & (Q(claimed_until__isnull=True) | Q(claimed_until__lte=now))
    )
