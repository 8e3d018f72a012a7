"""What has stood still for too long: pushed once more, and listed if it still does."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db.models import Exists, OuterRef, Q, QuerySet

from billing.history import BILLING_A_PERIOD
from billing.models import Invoice
from billing.money import Money
from payments.models import (
    LIVE_COLLECTION,
    Collection,
    CollectionPart,
    Difference,
    Payment,
    PaymentAttempt,
    Refund,
)
from payments.owed import owed
from payments.services.collecting import take_step
from payments.services.collections import COLLECTABLE, begin_collecting
from payments.services.differences import Found, note_difference
from payments.services.providing import provider
from payments.services.refunding import take_refund_step

STUCK_AFTER = timedelta(hours=1)
"""Of what should take seconds, or minutes when the provider does not answer."""
PROCESSING_FOR = timedelta(days=14)
"""So long a bank may take over a payment that is no card's."""
WAITING_FOR = timedelta(days=1)
"""So long a final invoice may wait to be collected."""
MOST = 500
"""Of each kind in one look."""
MOST_STEPS = 20
Kind = Difference.Kind
Try = PaymentAttempt.Status


def push_stuck(*, now: datetime) -> int:
    """Push what stands still, and list what still does; return how much moved. Repeatable.

    Raises ProviderError.
    """
    return (
        _push_collections(now=now)
        + _push_invoices(now=now)
        + _push_refunds(now=now)
        + _list_refused(now=now)
    )


def _push_collections(*, now: datetime) -> int:
    stuck = list(_stuck_collections(now)[:MOST])
    for collection in stuck:
        _take_steps(collection, now=now)
    still = list(_stuck_collections(now).filter(pk__in=[one.pk for one in stuck]))
    for collection in still:
        attempt = collection.attempts.order_by("number").last()
        doing = f", {attempt} is {attempt.status}" if attempt else ", and nobody tries it"
        _list(
            Kind.INVOICE_STATE_DIFFERS,
            str(collection.pk),
            collection,
            f"{collection} is {collection.status} since {collection.started_at:%Y-%m-%d %H:%M}"
            f"{doing}",
            collection.waiting_for or "It did not say why",
            "Look at its calls. It is tried again by itself; void the invoice, or record its "
            "money as an offline payment, if it came.",
            now=now,
        )
    return len(stuck) - len(still)


def _stuck_collections(now: datetime) -> QuerySet[Collection]:
    since = now - STUCK_AFTER
    tried = PaymentAttempt.objects.filter(collection=OuterRef("pk"))
    stuck = tried.filter(
        Q(status__in=[Try.PENDING, Try.UNKNOWN], started_at__lte=since)
        | Q(status=Try.PROCESSING, started_at__lte=now - PROCESSING_FOR)
    )
    return (
        Collection.objects.filter(LIVE_COLLECTION)
        .filter(
            Exists(stuck)
            | ~Exists(tried)
            | Q(status=Collection.Status.PREPARING, started_at__lte=since)
            | (~Q(void_reason="") & Q(try_at__lte=since))
        )
        .order_by("started_at")
    )


def _take_steps(collection: Collection, *, now: datetime) -> None:
    # Now, and not when its pause is over.
    Collection.objects.filter(LIVE_COLLECTION, pk=collection.pk).update(try_at=now)
    for _ in range(MOST_STEPS):
        if not take_step(collection.pk, now=now):
            return


def _push_invoices(*, now: datetime) -> int:
    live = CollectionPart.objects.filter(invoice=OuterRef("pk"), is_live=True)
    waiting = Invoice.objects.filter(
        ~Exists(live),
        status__in=COLLECTABLE,
        kind__in=BILLING_A_PERIOD,
        account__parked_reason="",
        finalised_at__lte=now - WAITING_FOR,
    ).order_by("pk")
    begun = 0
    for invoice in waiting[:MOST]:
        due = owed(invoice)
        if due < provider().smallest_charge(invoice.currency):
            # It waits for the account's next one.
            continue
        if begin_collecting(invoice.pk, now=now):
            begun += 1
            continue
        found = Found(
            kind=Kind.INVOICE_ONLY_HERE,
            subject=str(invoice.number),
            account_id=invoice.account_id,
            ours=f"Invoice {invoice} is {invoice.status}, and {due} are owed",
            theirs="Nobody asks for it",
            proposed_action="Look at its collections, and collect it anew.",
        )
        note_difference(found, now=now)
    return begun


def _push_refunds(*, now: datetime) -> int:
    stuck = Refund.objects.filter(
        status=Refund.Status.APPROVED,
        payment__method=Payment.Method.PROVIDER,
        proposed_at__lte=now - STUCK_AFTER,
    ).select_related("payment")
    moved = 0
    for refund in stuck.order_by("proposed_at")[:MOST]:
        Refund.objects.filter(pk=refund.pk).update(try_at=now)
        take_refund_step(refund.pk, now=now)
        refund.refresh_from_db(fields=["status", "failure"])
        if refund.status != Refund.Status.APPROVED:
            moved += 1
            continue
        found = Found(
            kind=Kind.REFUND_ONLY_HERE,
            subject=str(refund.pk),
            account_id=refund.payment.account_id,
            ours=f"Refund of {Money(refund.amount, refund.payment.currency)} is approved since "
            f"{refund.proposed_at:%Y-%m-%d %H:%M}",
            theirs="It did not answer, or asks to be asked later",
            proposed_action="Look at the refund's calls. It is tried again by itself.",
        )
        note_difference(found, now=now)
    return moved


def _list_refused(*, now: datetime) -> int:
    """List what the provider refused, until a person has voided it or has it collected anew."""
    held = Collection.objects.filter(
        status=Collection.Status.REFUSED, parts__is_live=True
    ).distinct()
    for collection in held.order_by("started_at")[:MOST]:
        subjects = [str(collection.pk), str(collection.provider_id)]
        listed = Difference.objects.filter(subject__in=subjects, settled_at__isnull=True)
        if not listed.update(last_seen_at=now):
            _list(
                Kind.INVOICE_ONLY_HERE,
                str(collection.pk),
                collection,
                f"{collection} asks for {Money(collection.amount, collection.currency)}",
                collection.waiting_for or "The provider refused it",
                "Put right what stands in the way, then collect it anew, or void the invoice.",
                now=now,
            )
    return 0


def _list(
    kind: Difference.Kind,
    subject: str,
    collection: Collection,
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
