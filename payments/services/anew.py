"""Collecting what the provider refused, once a person has put right what stood in the way."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import transaction

from billing.services import lock_account
from payments.models import Collection
from payments.services.preparing import bill_there
from payments.services.refusing import undo_bill


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
