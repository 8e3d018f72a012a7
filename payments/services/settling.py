"""What became of a provider's invoice, taken from how it stands there now. Forward only."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from django.db import transaction

from billing.lifecycle import InvoiceStatus
from billing.models import Invoice, TopUp
from billing.money import Money
from billing.services import Because, lock_account, mark_payment_failed
from metering.log_lines import log_committed
from payments.models import LIVE_ATTEMPT, Collection, CollectionPart, Difference, PaymentAttempt
from payments.provider import BillStatus, PaymentState, ProviderBill, ProviderPayment
from payments.services.differences import Found, note_difference
from payments.services.dunning import refresh_account
from payments.services.mirroring import take_fee_bill
from payments.services.notices import tell_of_failures
from payments.services.providing import provider
from payments.services.receiving import Received, record_payment

logger = logging.getLogger(__name__)

BY_PROVIDER = "Paid at the provider"


def settle_bill(bill_id: str, *, now: datetime, because: str = BY_PROVIDER) -> bool:
    """Take over how a provider's invoice stands; return whether it is one of ours.

    Its payments are recorded, and put to what it asks for. Safe to repeat, in any order: what
    counts is how it stands at the provider at this moment. Raises ProviderError.
    """
    bill = provider().bill(bill_id)
    collection = collection_of(bill)
    if collection is None:
        return take_fee_bill(bill, now=now)
    settle(collection, bill, now=now, because=because)
    return True


def collection_of(bill: ProviderBill) -> Collection | None:
    """Return the collection that a provider's invoice is of, if it is one of ours."""
    if found := Collection.objects.filter(provider_id=bill.id).first():
        return found
    # It was made, and we were not told: what made it looks for it under the same name.
    try:
        named = UUID(bill.metadata.get("collection_id", ""))
    except ValueError:
        return None
    return Collection.objects.filter(pk=named, provider_id__isnull=True).first()


def settle(
    collection: Collection, bill: ProviderBill, *, now: datetime, because: str = BY_PROVIDER
) -> None:
    """Take over how `bill`, the collection's invoice at the provider, stands. Repeatable."""
    payments = [
        provider().payment(payment.payment_id)
        for payment in bill.payments
        if payment.is_paid and payment.payment_id
    ]
    with transaction.atomic():
        account = lock_account(collection.account_id)
        collection.refresh_from_db()
        targets = _targets(collection)
        for payment in payments:
            record_payment(
                account, _received(payment, collection), targets, because=Because(because), now=now
            )
        if bill.status is BillStatus.PAID:
            _end_paid(collection, bill, payments, now=now)
        elif bill.status in {BillStatus.VOID, BillStatus.DELETED} and not collection.void_reason:
            _note_void(collection, bill, now=now)
        refresh_account(account.pk, now=now)


def fail_attempt(
    attempt: PaymentAttempt,
    status: PaymentAttempt.Status,
    *,
    code: str,
    decline_code: str = "",
    message: str = "",
    now: datetime,
) -> bool:
    """Note that an attempt failed, and with it the payment of its invoices. Repeatable.

    Returns False when the attempt had ended before.
    """
    collection = attempt.collection
    with transaction.atomic():
        lock_account(collection.account_id)
        ended = PaymentAttempt.objects.filter(LIVE_ATTEMPT, pk=attempt.pk).update(
            status=status,
            ended_at=now,
            failure_code=code[:64],
            decline_code=decline_code[:64],
            failure_message=message,
        )
        if not ended:
            return False
        because = Because(f"Payment attempt {attempt.number}: {decline_code or code}"[:200])
        failed = [
            mark_payment_failed(invoice.pk, because=because, now=now)
            for invoice in _invoices(collection)
            if invoice.status in {InvoiceStatus.PENDING, InvoiceStatus.PENDING_RETRY}
        ]
        refresh_account(collection.account_id, now=now)
        attempt.refresh_from_db()
        tell_of_failures(failed, attempt, now=now)
        log_committed(
            logger,
            "payment failed",
            attempt_id=attempt.pk,
            collection_id=str(collection.pk),
            account_id=collection.account_id,
            status=status.value,
            code=decline_code or code,
        )
    return True


def _received(payment: ProviderPayment, collection: Collection) -> Received:
    return Received(
        amount=payment.received,
        received_at=payment.paid_at or payment.created_at,
        provider_id=payment.id,
        charge_id=payment.charge_id,
        collection_id=collection.pk,
    )


def _targets(collection: Collection) -> list[Invoice | TopUp]:
    parts = CollectionPart.objects.filter(collection=collection).select_related("invoice", "top_up")
    return [target for part in parts if (target := part.invoice or part.top_up)]


def _invoices(collection: Collection) -> list[Invoice]:
    return list(Invoice.objects.filter(collection_parts__collection=collection).order_by("pk"))


def _end_paid(
    collection: Collection,
    bill: ProviderBill,
    payments: Sequence[ProviderPayment],
    *,
    now: datetime,
) -> None:
    received = Money.total((payment.received for payment in payments), collection.currency)
    if received < Money(collection.amount, collection.currency):
        # Marked paid there by hand, or out of a balance: no money that we know of.
        note_difference(
            Found(
                kind=Difference.Kind.PAYMENT_ONLY_THERE,
                subject=bill.id,
                account_id=collection.account_id,
                ours=f"{collection} asks for {Money(collection.amount, collection.currency)}, "
                f"of which {received} came",
                theirs=f"Invoice {bill.number or bill.id} is paid",
                proposed_action="If its money came another way, record an offline payment with "
                "its reference; else open it again at the provider.",
            ),
            now=now,
        )
    Collection.objects.filter(pk=collection.pk, ended_at__isnull=True).update(
        status=Collection.Status.PAID,
        provider_id=bill.id,
        provider_number=bill.number,
        opened_at=collection.opened_at or now,
        ended_at=now,
        try_at=None,
        waiting_for="",
    )
    collection.parts.update(is_live=False)
    collection.attempts.filter(LIVE_ATTEMPT).update(
        status=PaymentAttempt.Status.SUCCEEDED, ended_at=now
    )


def _note_void(collection: Collection, bill: ProviderBill, *, now: datetime) -> None:
    """Stop collecting what was voided at the provider. Its parts stay live: a person decides."""
    ended = Collection.objects.filter(pk=collection.pk, ended_at__isnull=True).update(
        status=Collection.Status.REFUSED, ended_at=now, try_at=None
    )
    if not ended:
        return
    collection.attempts.filter(LIVE_ATTEMPT).update(
        status=PaymentAttempt.Status.ABANDONED, ended_at=now
    )
    note_difference(
        Found(
            kind=Difference.Kind.INVOICE_STATE_DIFFERS,
            subject=bill.id,
            account_id=collection.account_id,
            ours=f"{collection} is being collected",
            theirs=f"Invoice {bill.number or bill.id} is {bill.status}",
            proposed_action="Void our invoice, or collect it anew.",
        ),
        now=now,
    )


def is_under_way(payment: ProviderPayment) -> bool:
    """Return whether the provider will still say what became of a payment."""
    return payment.state is PaymentState.PROCESSING
