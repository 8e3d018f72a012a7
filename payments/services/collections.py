"""What is collected together, and the attempts to have it paid. Nothing here asks the provider."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction
from django.db.models import (
    Case,
    Exists,
    F,
    Max,
    Min,
    OuterRef,
    Q,
    QuerySet,
    Sum,
    Value,
    When,
)

from billing.history import BILLING_A_PERIOD
from billing.lifecycle import InvoiceStatus
from billing.models import Account, Invoice, TopUp
from billing.money import Money
from billing.services import lock_account
from payments.models import (
    LIVE_ATTEMPT,
    LIVE_COLLECTION,
    Collection,
    CollectionPart,
    PaymentAttempt,
)
from payments.owed import owed
from payments.services.providing import provider

logger = logging.getLogger(__name__)

COLLECTABLE = (InvoiceStatus.PENDING, InvoiceStatus.PENDING_RETRY)
"""An invoice in one of these is to be collected now."""
MOST_TOGETHER = 100
"""So many small invoices are collected together at most."""
CHANGED = "What is owed has changed"
Trigger = PaymentAttempt.Trigger


@dataclass(frozen=True, slots=True)
class Asked:
    """Why an attempt is made, and who asked for it; nobody: the system by itself."""

    trigger: Trigger
    user_id: int | None = None


def begin_collecting(
    invoice_id: int, asked: Asked | None = None, *, now: datetime
) -> Collection | None:
    """Begin to collect an invoice that is due: a collection, if it has none, and an attempt.

    With it come the account's invoices that are too small to be charged alone. None: there is
    nothing to do now; it is too small itself, is not due, or is being collected. Safe to repeat.
    Raises NotSetUpError, Invoice.DoesNotExist.
    """
    account_id = Invoice.objects.values_list("account_id", flat=True).get(pk=invoice_id)
    with transaction.atomic():
        account = lock_account(account_id)
        invoice = Invoice.objects.get(pk=invoice_id)
        if invoice.status not in COLLECTABLE or not owed(invoice):
            return None
        asked = asked or _why(invoice)
        part = CollectionPart.objects.filter(invoice=invoice, is_live=True).first()
        if part:
            return _try_again(part.collection, asked, now=now)
        return _collect_together(account, invoice, asked, now=now)


def collect_top_up(top_up_id: int, asked: Asked, *, now: datetime) -> Collection | None:
    """Begin to collect a top-up that waits for its money. As `begin_collecting`."""
    account_id = TopUp.objects.values_list("account_id", flat=True).get(pk=top_up_id)
    with transaction.atomic():
        account = lock_account(account_id)
        top_up = TopUp.objects.get(pk=top_up_id)
        is_waiting = top_up.grant_id is None and top_up.given_up_at is None
        if not is_waiting or top_up.collection_parts.filter(is_live=True).exists():
            return None
        return _begin(account, [(top_up, Money(top_up.amount, account.currency))], asked, now=now)


def still_asks_for_what_is_owed(collection: Collection) -> bool:
    """Return whether each part of it is owed, and exactly as much."""
    return all(map(_is_owed, collection.parts.select_related("invoice", "top_up")))


def _is_owed(part: CollectionPart) -> bool:
    if part.top_up:
        return part.top_up.grant_id is None and part.top_up.given_up_at is None
    return part.invoice is not None and owed(part.invoice).amount == part.amount


def take_back(collection: Collection, *, reason: str, now: datetime) -> None:
    """Have a collection voided at the provider, by its next step. Safe to repeat.

    The caller has locked the account.
    """
    Collection.objects.filter(LIVE_COLLECTION, pk=collection.pk).update(
        void_reason=reason[:200], try_at=now
    )


def release(collection: Collection, status: Collection.Status, *, now: datetime) -> bool:
    """End a collection as `status`, so that its parts can be collected anew; False: it had ended.

    The caller has locked the account.
    """
    ended = Collection.objects.filter(LIVE_COLLECTION, pk=collection.pk).update(
        status=status, ended_at=now, try_at=None, waiting_for=""
    )
    if ended:
        collection.parts.update(is_live=False)
        collection.attempts.filter(LIVE_ATTEMPT).update(
            status=PaymentAttempt.Status.ABANDONED, ended_at=now
        )
    return bool(ended)


def _why(invoice: Invoice) -> Asked:
    """Return why an invoice is due to be collected, and who wanted it, by what became of it."""
    if invoice.status == InvoiceStatus.PENDING:
        return Asked(Trigger.FINALISED)
    last = invoice.transitions.last()
    if last and last.by_id:
        return Asked(Trigger.STAFF, last.by_id)
    return Asked(Trigger.SCHEDULE)


def _try_again(collection: Collection, asked: Asked, *, now: datetime) -> Collection | None:
    if collection.status != Collection.Status.OPEN or collection.void_reason:
        # It is being made, or taken back, or waits for a person.
        return None
    if collection.attempts.filter(LIVE_ATTEMPT).exists():
        return None
    if not still_asks_for_what_is_owed(collection):
        take_back(collection, reason=CHANGED, now=now)
        return None
    _add_attempt(collection, asked, now=now)
    return collection


def _collect_together(
    account: Account, invoice: Invoice, asked: Asked, *, now: datetime
) -> Collection | None:
    smallest = provider().smallest_charge(account.currency)
    targets: list[tuple[Invoice | TopUp, Money]] = [(invoice, owed(invoice))]
    others = ((other, owed(other)) for other in _uncollected(account).exclude(pk=invoice.pk))
    targets += [(other, due) for other, due in others if due and due < smallest]
    targets = targets[:MOST_TOGETHER]
    if Money.total((due for _, due in targets), account.currency) < smallest:
        # Carried to the next invoice.
        return None
    return _begin(account, targets, asked, now=now)


def _uncollected(account: Account) -> QuerySet[Invoice]:
    live = CollectionPart.objects.filter(invoice=OuterRef("pk"), is_live=True)
    return account.invoices.filter(
        ~Exists(live), status__in=COLLECTABLE, kind__in=BILLING_A_PERIOD
    ).order_by("finalised_at", "pk")


def _begin(
    account: Account,
    targets: Sequence[tuple[Invoice | TopUp, Money]],
    asked: Asked,
    *,
    now: datetime,
) -> Collection:
    total = Money.total((due for _, due in targets), account.currency)
    collection = Collection.objects.create(
        account=account, amount=total.amount, currency=total.currency, started_at=now, try_at=now
    )
    CollectionPart.objects.bulk_create(
        CollectionPart(
            collection=collection,
            position=position,
            invoice=target if isinstance(target, Invoice) else None,
            top_up=target if isinstance(target, TopUp) else None,
            amount=due.amount,
        )
        for position, (target, due) in enumerate(targets, start=1)
    )
    _add_attempt(collection, asked, now=now)
    return collection


def _add_attempt(collection: Collection, asked: Asked, *, now: datetime) -> PaymentAttempt:
    attempt = PaymentAttempt.objects.create(
        collection=collection,
        number=collection.attempts.count() + 1,
        trigger=asked.trigger,
        requested_by_id=asked.user_id,
        started_at=now,
    )
    Collection.objects.filter(pk=collection.pk).update(try_at=now, failures=0, waiting_for="")
    return attempt


def invoices_to_collect(*, most: int) -> list[int]:
    """Return invoices that are to be collected and have nothing under way for it.

    Not those of accounts whose invoices are too small to be charged even together; of the others
    the largest come first, since small ones come with them.
    """
    return [*_to_begin(most), *_to_try_again(most)]


def _to_begin(most: int) -> list[int]:
    live = CollectionPart.objects.filter(invoice=OuterRef("pk"), is_live=True)
    waiting = Invoice.objects.filter(
        ~Exists(live),
        status__in=COLLECTABLE,
        kind__in=BILLING_A_PERIOD,
        account__parked_reason="",
    ).order_by()
    smallest = {
        currency: provider().smallest_charge(currency).amount
        for currency in waiting.values_list("currency", flat=True).distinct()
    }
    if not smallest:
        return []
    suffices = Case(
        *(When(currency=currency, then=Value(least)) for currency, least in smallest.items())
    )
    together = (
        waiting.values("account_id")
        .annotate(due=Sum("amount_due"), least=Max(suffices), first=Min("pk"))
        .filter(due__gte=F("least"))
        .order_by("first")
        .values_list("account_id", flat=True)
    )
    begin = waiting.filter(account_id__in=list(together[:most])).order_by("-amount_due", "pk")
    return list(begin.values_list("pk", flat=True)[:most])


def _to_try_again(most: int) -> QuerySet[Invoice, int]:
    return (
        Invoice.objects.filter(
            status=InvoiceStatus.PENDING_RETRY,
            collection_parts__is_live=True,
            collection_parts__collection__status=Collection.Status.OPEN,
        )
        .exclude(collection_parts__collection__attempts__in=_live_attempts())
        .order_by("pk")
        .values_list("pk", flat=True)[:most]
    )


def _live_attempts() -> QuerySet[PaymentAttempt]:
    return PaymentAttempt.objects.filter(LIVE_ATTEMPT)


def due_collections(now: datetime) -> Q:
    """Return the condition of collections whose next step is due and that nobody has."""
    return (
        LIVE_COLLECTION
        & Q(try_at__lte=now)
        & (Q(claimed_until__isnull=True) | Q(claimed_until__lte=now))
    )
