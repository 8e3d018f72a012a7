"""Invoices of both sides, one beside the other: read again where they differ, else listed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.db.models import Sum

from billing.money import Money
from payments.models import Collection, Customer, Difference, Payment
from payments.provider import (
    BillStatus,
    BusyError,
    NoAnswerError,
    NotFoundError,
    NotSetUpError,
    ProviderBill,
)
from payments.services.calling import make_call
from payments.services.differences import Found, note_difference
from payments.services.mirroring import take_fee_bill
from payments.services.providing import provider
from payments.services.refusing import call_of, undo_bill
from payments.services.settling import collection_of, settle

OUT_OF_REACH = (NoAnswerError, BusyError, NotSetUpError)
"""These say nothing about what was to be compared."""
Status = Collection.Status
Kind = Difference.Kind
_ALIKE: Mapping[Status, frozenset[BillStatus]] = {
    # It is being made, a step at a time.
    Status.PREPARING: frozenset({BillStatus.DRAFT, BillStatus.OPEN}),
    Status.OPEN: frozenset({BillStatus.OPEN, BillStatus.UNCOLLECTIBLE}),
    Status.PAID: frozenset({BillStatus.PAID}),
    Status.VOID: frozenset({BillStatus.VOID, BillStatus.DELETED}),
    Status.REFUSED: frozenset({BillStatus.VOID, BillStatus.DELETED}),
}
_CAN_BE_PAID = frozenset({BillStatus.DRAFT, BillStatus.OPEN, BillStatus.UNCOLLECTIBLE})


def compare_bill(bill: ProviderBill, *, now: datetime) -> bool:
    """Take over how a provider's invoice stands, and list what differs all the same.

    Returns whether anything was put right. Safe to repeat. Raises ProviderError.
    """
    collection = collection_of(bill)
    if collection is None:
        return _compare_other(bill, now=now)
    is_healed = False
    if not _is_alike(collection, bill):
        is_healed = _heal(collection, bill, now=now)
        bill = provider().bill(bill.id)
    _note(collection, bill, now=now)
    return is_healed


def look_for_bill(collection: Collection, *, now: datetime) -> bool:
    """Compare a collection whose invoice was not among those that the provider told of.

    Returns whether anything was put right. Raises ProviderError.
    """
    try:
        bill = provider().bill(str(collection.provider_id))
    except NotFoundError:
        if collection.status not in {Status.VOID, Status.REFUSED}:
            # A draft that was deleted cannot be read any more; what is open or paid stays.
            _note_missing(collection, now=now)
        return False
    return compare_bill(bill, now=now)


def is_of_ours(customer_id: str) -> bool:
    """Return whether the provider's customer is an account of ours."""
    return bool(customer_id) and Customer.objects.filter(provider_id=customer_id).exists()


def account_of(customer_id: str) -> UUID | None:
    """Return the account that a provider's customer is, if it is one of ours."""
    found = Customer.objects.filter(provider_id=customer_id).values_list("account_id", flat=True)
    return found.first()


def _is_alike(collection: Collection, bill: ProviderBill) -> bool:
    paid = {payment.payment_id for payment in bill.payments if payment.is_paid}
    known = Payment.objects.filter(provider_id__in=paid).count()
    is_settled = bill.status is not BillStatus.PAID or not _came(collection) < _asked(collection)
    alike = _ALIKE[Status(collection.status)]
    return bill.status in alike and known == len(paid) and is_settled


def _heal(collection: Collection, bill: ProviderBill, *, now: datetime) -> bool:
    before = _standing(collection)
    settle(collection, bill, now=now)
    collection.refresh_from_db()
    is_over = collection.status in {Status.VOID, Status.REFUSED}
    if is_over and bill.status in _CAN_BE_PAID:
        # Nobody expects its money here, and it can be paid there.
        undo_bill(collection, bill, now=now)
        return True
    return _standing(collection) != before


def _standing(collection: Collection) -> tuple[str, int]:
    status = Collection.objects.values_list("status", flat=True).get(pk=collection.pk)
    return status, collection.payments.count()


def _asked(collection: Collection) -> Money:
    return Money(collection.amount, collection.currency)


def _came(collection: Collection) -> Money:
    came = collection.payments.aggregate(sum=Sum("amount"))["sum"]
    return Money(came or Decimal(0), collection.currency)


def _note(collection: Collection, bill: ProviderBill, *, now: datetime) -> None:
    ours = f"{collection} of {_asked(collection)} is {collection.status}"
    theirs = f"Invoice {bill.number or bill.id} of {bill.total} is {bill.status}"
    is_final = collection.status in {Status.OPEN, Status.PAID}
    if bill.status not in _ALIKE[Status(collection.status)]:
        action = "Look at both. Void our invoice, or collect it anew."
        _found(Kind.INVOICE_STATE_DIFFERS, collection, bill.id, ours, theirs, action, now=now)
    if is_final and bill.total != _asked(collection):
        action = "Somebody changed it there. Void it there, then collect it anew."
        _found(Kind.TOTALS_DIFFER, collection, bill.id, ours, theirs, action, now=now)


def _note_missing(collection: Collection, *, now: datetime) -> None:
    _found(
        Kind.INVOICE_ONLY_HERE,
        collection,
        str(collection.provider_id),
        f"{collection} of {_asked(collection)} is {collection.status}",
        "There is no such invoice",
        "Look whether STRIPE_API_KEY is the key of the right account and mode.",
        now=now,
    )


def _found(
    kind: Difference.Kind,
    collection: Collection,
    subject: str,
    ours: str,
    theirs: str,
    action: str,
    *,
    now: datetime,
) -> None:
    found = Found(
        kind=kind,
        subject=subject,
        account_id=collection.account_id,
        ours=ours,
        theirs=theirs,
        proposed_action=action,
    )
    note_difference(found, now=now)


def _compare_other(bill: ProviderBill, *, now: datetime) -> bool:
    """Compare an invoice that is of no collection: of a subscription's fee, or nobody's."""
    if take_fee_bill(bill, now=now):
        return False
    duplicate = _duplicate_of(bill)
    if duplicate and bill.status in _CAN_BE_PAID and bill.status is not BillStatus.UNCOLLECTIBLE:
        # It was made twice. The other one is collected, and this one must not be.
        _undo_duplicate(duplicate, bill, now=now)
        return True
    asks = bill.status in _CAN_BE_PAID | {BillStatus.PAID} and bill.total
    is_draft = bill.status is BillStatus.DRAFT
    if not asks or is_draft or not (duplicate or is_of_ours(bill.customer_id)):
        return False
    found = Found(
        kind=Kind.INVOICE_ONLY_THERE,
        subject=bill.id,
        account_id=account_of(bill.customer_id),
        ours="We know nothing of it",
        theirs=f"Invoice {bill.number or bill.id} of {bill.total} is {bill.status}",
        proposed_action="Find out who made it. Void it there, or give back what was paid; a sale "
        "belongs on an invoice of ours.",
    )
    note_difference(found, now=now)
    return False


def _duplicate_of(bill: ProviderBill) -> Collection | None:
    try:
        named = UUID(bill.metadata.get("collection_id", ""))
    except ValueError:
        return None
    return Collection.objects.filter(pk=named).exclude(provider_id=bill.id).first()


def _undo_duplicate(collection: Collection, bill: ProviderBill, *, now: datetime) -> None:
    asked = {"invoice": bill.id}
    if bill.status is BillStatus.DRAFT:
        call = call_of(collection, f"duplicate-{bill.id}", "invoices.delete", asked)
        make_call(call, lambda once: provider().delete_draft(bill.id, key=once), now=now)
    else:
        call = call_of(collection, f"duplicate-{bill.id}", "invoices.void", asked)
        make_call(call, lambda once: provider().void_bill(bill.id, key=once), now=now)
