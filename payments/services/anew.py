"""Collecting what the provider refused, once a person has put right what stood in the way."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import transaction

from billing.lifecycle import InvoiceStatus
from billing.models import Invoice
from billing.services import Because, lock_account, retry_payment
from payments.models import Collection, Difference
from payments.services.differences import settle_difference
from payments.services.preparing import bill_there
from payments.services.refusing import undo_bill

_Kind = Difference.Kind
OF_COLLECTIONS = (_Kind.TOTALS_DIFFER, _Kind.INVOICE_ONLY_HERE, _Kind.INVOICE_STATE_DIFFERS)
"""What a collection is refused for."""


class NotRefusedError(Exception):
    """Nothing of a collection waits for a person."""


def collect_by_hand(collection_id: UUID, *, reason: str, user_id: int, now: datetime) -> Collection:
    """Let what a collection was refused for be collected anew, at a person's word.

    Its difference is settled by them, for their reason, and an invoice whose payment failed is to
    be tried again. What was paid at the provider meanwhile is settled instead. Raises
    NotRefusedError, ProviderError, Collection.DoesNotExist.
    """
    if not collect_anew(collection_id, now=now):
        raise NotRefusedError("Nothing of it was refused, or it is collected anew already.")
    collection = Collection.objects.get(pk=collection_id)
    with transaction.atomic():
        lock_account(collection.account_id)
        subjects = [str(collection.pk), *filter(None, [collection.provider_id])]
        for difference in Difference.objects.filter(
            subject__in=subjects, kind__in=OF_COLLECTIONS, settled_at__isnull=True
        ):
            settle_difference(difference.pk, reason=reason, user_id=user_id, now=now)
        failed = Invoice.objects.filter(
            collection_parts__collection=collection, status=InvoiceStatus.PAYMENT_FAILED
        )
        for invoice_id in failed.values_list("pk", flat=True):
            retry_payment(invoice_id, because=Because(reason, user_id), now=now)
    return collection


def collect_anew(collection_id: UUID, *, now: datetime) -> bool:
    """Let the parts of a refused collection be collected by another; return whether they were not.

    Nothing of it can be paid at the provider then: it is taken back there first, and one that was
    paid is settled. Safe to repeat. Raises ProviderError, Collection.DoesNotExist.
    """
    collection = Collection.objects.get(pk=collection_id)
    is_held = collection.parts.filter(is_live=True).exists()
    if collection.status != Collection.Status.REFUSED or not is_held:
        return False
    if bill := bill_there(collection, now=now):
        undo_bill(collection, bill, now=now)
    with transaction.atomic():
        lock_account(collection.account_id)
        return bool(collection.parts.filter(is_live=True).update(is_live=False))
