"""Making a provider's invoice of a collection, until it asks for exactly what we ask for."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction

from billing.services import lock_account
from payments.bill_lines import bill_lines, breakdown
from payments.models import Collection
from payments.provider import BillStatus, NotFoundError, ProviderBill
from payments.services.calling import is_repeatable, last_call, make_call
from payments.services.charges import bill_of, charges_of
from payments.services.collections import (
    CHANGED,
    release,
    still_asks_for_what_is_owed,
    take_back,
)
from payments.services.customers import ensure_customer
from payments.services.forgotten import asked_since, find_forgotten_bill
from payments.services.providing import provider
from payments.services.refusing import call_of, fault_of, report_fault, undo_bill
from payments.services.restorations import was_restored_after

Status = Collection.Status


def prepare(collection: Collection, *, now: datetime) -> bool:
    """Bring a collection closer to being open; return whether there is more to do at once.

    The caller has claimed it. Raises ProviderError.
    """
    if collection.void_reason or not still_asks_for_what_is_owed(collection):
        return _drop(collection, now=now)
    stripe = provider()
    charges = charges_of(collection)
    if collection.provider_id is None:
        _make(collection, breakdown(charges), now=now)
        return True
    bill = stripe.bill(collection.provider_id)
    key = f"{collection.pk}"
    if bill.status is BillStatus.DRAFT and not bill.has_lines:
        lines = bill_lines(charges)
        asked = {"lines": lines}
        call = call_of(collection, f"{key}-lines", "invoices.add_lines", asked)
        bill = make_call(call, lambda once: stripe.add_lines(bill.id, lines, key=once), now=now)
    if bill.status is BillStatus.DRAFT:
        if fault := fault_of(collection, bill):
            report_fault(collection, bill, fault, now=now)
            return False
        call = call_of(collection, f"{key}-finalise", "invoices.finalize", {"invoice": bill.id})
        bill = make_call(call, lambda once: stripe.finalise_bill(bill.id, key=once), now=now)
    if fault := fault_of(collection, bill):
        report_fault(collection, bill, fault, now=now)
        return False
    Collection.objects.filter(pk=collection.pk, status=Status.PREPARING).update(
        status=Status.OPEN,
        provider_number=bill.number,
        hosted_url=bill.hosted_url,
        opened_at=now,
        failures=0,
        waiting_for="",
    )
    return True


def _make(collection: Collection, parts: dict[str, str], *, now: datetime) -> None:
    stripe = provider()
    customer_id = ensure_customer(collection.account_id, now=now)
    key = f"{collection.pk}-create"
    made = None
    if last_call(key) and not is_repeatable(key, now=now):
        found = stripe.find_bills(customer_id, {"collection_id": str(collection.pk)})
        made = found[0] if found else None
    elif was_restored_after(asked_since(collection)):
        made = find_forgotten_bill(collection, customer_id, now=now)
    if made is None:
        bill = bill_of(collection, customer_id=customer_id, breakdown=parts)
        call = call_of(collection, key, "invoices.create", {"bill": bill})
        made = make_call(call, lambda once: stripe.create_bill(bill, key=once), now=now)
    Collection.objects.filter(pk=collection.pk, provider_id__isnull=True).update(
        provider_id=made.id
    )


def _drop(collection: Collection, *, now: datetime) -> bool:
    """Take back a collection that is not open yet."""
    if not collection.void_reason:
        # Before it is void there, so that who hears of that knows it for our doing.
        with transaction.atomic():
            lock_account(collection.account_id)
            take_back(collection, reason=CHANGED, now=now)
    if bill := bill_there(collection, now=now):
        undo_bill(collection, bill, now=now)
    with transaction.atomic():
        lock_account(collection.account_id)
        release(collection, Status.VOID, now=now)
    return False


def bill_there(collection: Collection, *, now: datetime) -> ProviderBill | None:
    """Return the collection's invoice at the provider, if there is one. Raises ProviderError."""
    if collection.provider_id:
        try:
            return provider().bill(collection.provider_id)
        except NotFoundError:
            # It was a draft, and was deleted.
            return None
    if not last_call(f"{collection.pk}-create"):
        return None
    customer_id = ensure_customer(collection.account_id, now=now)
    found = provider().find_bills(customer_id, {"collection_id": str(collection.pk)})
    return found[0] if found else None
