"""Collecting, a step at a time: each is one call that changes something at the provider.

A step begins by looking how things stand there, so that it may follow any other, done or half
done; the row says what is to come about, and the provider what has.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import F

from billing.lifecycle import InvoiceStatus
from billing.services import lock_account
from payments.models import LIVE_ATTEMPT, Collection, PaymentAttempt
from payments.provider import (
    BillStatus,
    BusyError,
    NoAnswerError,
    NotFoundError,
    NotSetUpError,
    ProviderBill,
    ProviderError,
    RefusedError,
)
from payments.services.calling import make_call
from payments.services.collections import due_collections, release
from payments.services.pausing import pause_after
from payments.services.paying import look_up, pay
from payments.services.preparing import prepare
from payments.services.providing import provider
from payments.services.refusing import call_of, refuse, undo_bill
from payments.services.settling import settle

logger = logging.getLogger(__name__)

LEASE = timedelta(seconds=45)
"""Longer than a step: the longest time-out of a read and of a write, and their work."""
Status = Collection.Status
Try = PaymentAttempt.Status


def take_step(collection_id: UUID, *, now: datetime) -> bool:
    """Do the next thing to a collection, if it is due and nobody has it.

    Returns whether there is more to do at once. Safe to repeat; a worker that dies in it is
    followed by another when its lease is over. Raises NotSetUpError.
    """
    claimed = Collection.objects.filter(due_collections(now), pk=collection_id).update(
        claimed_until=now + LEASE
    )
    if not claimed:
        return False
    collection = Collection.objects.get(pk=collection_id)
    try:
        has_more = _step(collection, now=now)
    except NotSetUpError:
        _let_go(collection)
        raise
    except (RefusedError, NotFoundError) as error:
        refuse(collection, str(error), now=now)
        return False
    except ProviderError as error:
        _pause(collection, error, now=now)
        return False
    _let_go(collection)
    return has_more


def set_aside(collection_id: UUID, error: Exception, *, now: datetime) -> None:
    """Leave a collection alone for a while whose step failed in a way that nobody expected."""
    _pause(Collection.objects.get(pk=collection_id), error, now=now)


def due(now: datetime, *, most: int) -> list[UUID]:
    """Return the collections whose next step is due, those that wait longest first."""
    rows = Collection.objects.filter(due_collections(now)).order_by("try_at")
    return list(rows.values_list("pk", flat=True)[:most])


def _step(collection: Collection, *, now: datetime) -> bool:
    if collection.status == Status.PREPARING:
        return prepare(collection, now=now)
    bill = provider().bill(str(collection.provider_id))
    settle(collection, bill, now=now)
    collection.refresh_from_db()
    if collection.status != Status.OPEN:
        return False
    if collection.void_reason:
        _void(collection, bill, now=now)
        return False
    attempt = collection.attempts.filter(LIVE_ATTEMPT).first()
    if attempt is None:
        return _rest(collection, bill, now=now)
    if attempt.status == Try.PENDING:
        return pay(collection, bill, attempt, now=now)
    return look_up(collection, bill, attempt, now=now)


def _rest(collection: Collection, bill: ProviderBill, *, now: datetime) -> bool:
    """Do what is left to a collection that nobody tries to have paid."""
    statuses = {
        part.invoice.status for part in collection.parts.select_related("invoice") if part.invoice
    }
    if statuses == {InvoiceStatus.UNCOLLECTIBLE} and collection.written_off_at is None:
        if bill.status is BillStatus.OPEN:
            call = call_of(
                collection,
                f"{collection.pk}-write-off",
                "invoices.mark_uncollectible",
                {"invoice": bill.id},
            )
            make_call(call, lambda once: provider().write_off_bill(bill.id, key=once), now=now)
        Collection.objects.filter(pk=collection.pk).update(written_off_at=now)
    with transaction.atomic():
        # Another try, or that it is to be taken back, may have been asked for since we looked.
        lock_account(collection.account_id)
        if not collection.attempts.filter(LIVE_ATTEMPT).exists():
            Collection.objects.filter(pk=collection.pk, void_reason="").update(try_at=None)
    return False


def _void(collection: Collection, bill: ProviderBill, *, now: datetime) -> None:
    undo_bill(collection, bill, now=now)
    with transaction.atomic():
        lock_account(collection.account_id)
        release(collection, Status.VOID, now=now)


def _let_go(collection: Collection) -> None:
    # It may be another's by now, whose lease began when ours was over.
    Collection.objects.filter(pk=collection.pk, claimed_until=collection.claimed_until).update(
        claimed_until=None
    )


def _pause(collection: Collection, error: Exception, *, now: datetime) -> None:
    """Leave a collection alone for a while: the provider did not answer, or is busy."""
    level = logging.WARNING if isinstance(error, NoAnswerError | BusyError) else logging.ERROR
    logger.log(level, "collecting waits: %s", error, extra={"collection_id": str(collection.pk)})
    Collection.objects.filter(pk=collection.pk).update(
        failures=F("failures") + 1,
        try_at=now + pause_after(collection.failures),
        waiting_for=str(error),
        claimed_until=None,
    )
