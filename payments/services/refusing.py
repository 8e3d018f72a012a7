"""Provider's invoices that must not be paid: listed, taken back, and left to a person."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime

from django.db import transaction

from billing.money import Money
from billing.services import lock_account
from payments.models import LIVE_ATTEMPT, Collection, Difference, PaymentAttempt
from payments.provider import BillStatus, BusyError, ProviderBill, RefusedError
from payments.services.calling import Call, make_call
from payments.services.differences import Found, note_difference
from payments.services.providing import provider
from payments.services.settling import is_under_way, settle

logger = logging.getLogger(__name__)


def call_of(
    collection: Collection,
    key: str,
    operation: str,
    asked: Mapping[str, object],
    *,
    attempt: PaymentAttempt | None = None,
) -> Call:
    """Return a call about a collection, named by `key`."""
    return Call(
        key,
        operation,
        collection.account_id,
        asked,
        collection_id=collection.pk,
        attempt_id=attempt.pk if attempt else None,
    )


def fault_of(collection: Collection, bill: ProviderBill) -> str:
    """Return what keeps the provider's invoice from being paid; empty: it is ours to the cent."""
    ours = Money(collection.amount, collection.currency)
    zero = Money.zero(collection.currency)
    if bill.total != ours:
        return f"its total is {bill.total}"
    if bill.starting_balance != zero:
        return f"the customer's balance there is {bill.starting_balance}"
    if bill.status is not BillStatus.DRAFT and bill.amount_due != ours:
        return f"it asks for {bill.amount_due}"
    return ""


def report_fault(collection: Collection, bill: ProviderBill, fault: str, *, now: datetime) -> None:
    """List a provider's invoice that is not ours to the cent, and take it back there."""
    note_difference(
        Found(
            kind=Difference.Kind.TOTALS_DIFFER,
            subject=bill.id,
            account_id=collection.account_id,
            ours=f"{collection} asks for {Money(collection.amount, collection.currency)}",
            theirs=f"Of invoice {bill.number or bill.id} {fault}",
            proposed_action="Nothing was paid. Bring the customer's balance or tax settings at "
            "the provider to nothing, then collect it anew.",
        ),
        now=now,
    )
    undo_bill(collection, bill, now=now)
    _end(collection, f"Of the provider's invoice {fault}.", now=now)


def undo_bill(collection: Collection, bill: ProviderBill, *, now: datetime) -> None:
    """Take a provider's invoice back, however it stands; one that was paid is settled instead.

    Raises ProviderError, BusyError while a payment of it is under way.
    """
    asked = {"invoice": bill.id}
    if bill.status is BillStatus.DRAFT:
        call = call_of(collection, f"{collection.pk}-delete", "invoices.delete", asked)
        make_call(call, lambda once: provider().delete_draft(bill.id, key=once), now=now)
    elif bill.status in {BillStatus.OPEN, BillStatus.UNCOLLECTIBLE}:
        call = call_of(collection, f"{collection.pk}-void", "invoices.void", asked)
        try:
            make_call(call, lambda once: provider().void_bill(bill.id, key=once), now=now)
        except RefusedError:
            # It may have been paid, or voided, in this moment.
            if not _is_over(collection, bill.id, now=now):
                raise
    elif bill.status is BillStatus.PAID:
        settle(collection, bill, now=now)


def _is_over(collection: Collection, bill_id: str, *, now: datetime) -> bool:
    """Return whether nobody can pay an invoice any more that the provider would not void."""
    bill = provider().bill(bill_id)
    if bill.status is BillStatus.PAID:
        settle(collection, bill, now=now)
    elif any(is_under_way(provider().payment(p.payment_id)) for p in bill.payments if p.payment_id):
        raise BusyError("A payment of it is under way. It is taken back if that fails.")
    return bill.status in {BillStatus.PAID, BillStatus.VOID}


def refuse(collection: Collection, reason: str, *, now: datetime) -> None:
    """Stop: the provider will not have it. A person has to look."""
    logger.error("collecting is refused: %s", reason, extra={"collection_id": str(collection.pk)})
    note_difference(
        Found(
            kind=Difference.Kind.INVOICE_ONLY_HERE,
            subject=str(collection.pk),
            account_id=collection.account_id,
            ours=f"{collection} asks for {Money(collection.amount, collection.currency)}",
            theirs=f"The provider refuses: {reason}",
            proposed_action="Put right what the provider names, then collect it anew.",
        ),
        now=now,
    )
    _end(collection, reason, now=now)


def _end(collection: Collection, reason: str, *, now: datetime) -> None:
    with transaction.atomic():
        lock_account(collection.account_id)
        Collection.objects.filter(pk=collection.pk, ended_at__isnull=True).update(
            status=Collection.Status.REFUSED,
            ended_at=now,
            try_at=None,
            claimed_until=None,
            waiting_for=reason,
        )
        collection.attempts.filter(LIVE_ATTEMPT).update(
            status=PaymentAttempt.Status.ABANDONED, ended_at=now
        )
