"""What the provider asks for that is not owed any more, or not as much: it is taken back."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from billing.lifecycle import InvoiceStatus
from billing.models import Account, CreditNote
from billing.services import lock_account
from payments.models import (
    LIVE_ATTEMPT,
    LIVE_COLLECTION,
    Allocation,
    Collection,
    PaymentAttempt,
)
from payments.services.collections import CHANGED, still_asks_for_what_is_owed, take_back

COLLECTIONS_A_SWEEP = 500
SLACK = timedelta(hours=1)
"""Two workers' times of one moment differ by less, and a task's time is when it began."""


def take_back_changed(now: datetime) -> int:
    """Take back what asks for other than is owed by now; return how many collections.

    Invoices were paid in another way, in part too, credited or voided. Not while a payment is
    tried: what becomes of it is known first. Safe to repeat.
    """
    asked = _resting().filter(_paid_or_void() | _paid_in_part() | _credited()).distinct()
    taken = 0
    for collection in asked[:COLLECTIONS_A_SWEEP]:
        with transaction.atomic():
            lock_account(collection.account_id)
            taken += _take_back(collection, now=now)
    return taken


def take_back_of(account: Account, *, now: datetime) -> None:
    """Do what `take_back_changed` does for one account, which the caller has locked."""
    for collection in _resting().filter(account=account):
        _take_back(collection, now=now)


def _take_back(collection: Collection, *, now: datetime) -> bool:
    if still_asks_for_what_is_owed(collection):
        return False
    take_back(collection, reason=CHANGED, now=now)
    return True


def _resting() -> QuerySet[Collection]:
    """Return collections that are to be paid, and that nobody tries to have paid just now."""
    tried = PaymentAttempt.objects.filter(LIVE_ATTEMPT, collection=OuterRef("pk"))
    return Collection.objects.filter(LIVE_COLLECTION, ~Exists(tried), void_reason="")


def _paid_or_void() -> Q:
    return Q(parts__invoice__status__in=[InvoiceStatus.PAID, InvoiceStatus.VOID])


def _paid_in_part() -> Exists:
    """Return whether money came since the collection began."""
    since = Allocation.objects.filter(
        invoice__collection_parts__collection=OuterRef("pk"),
        payment__recorded_at__gte=OuterRef("started_at") - SLACK,
    )
    return Exists(since)


def _credited() -> Exists:
    since = CreditNote.objects.filter(
        invoice__collection_parts__collection=OuterRef("pk"),
        issued_at__gte=OuterRef("started_at") - SLACK,
        off_due__gt=0,
    )
    return Exists(since)
