"""After a backup was restored: what the provider was asked for that this database forgot."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Final
from uuid import UUID

from billing.models import Invoice
from payments.models import Collection, Difference, FeeSubscription
from payments.provider import BillStatus, ProviderBill, ProviderSubscription, RefusedError
from payments.services.charges import asks_for
from payments.services.differences import Found, note_difference
from payments.services.provider_subscriptions import ENDED
from payments.services.providing import provider
from payments.services.restorations import was_restored_after

_PAYABLE: Final = frozenset({BillStatus.OPEN, BillStatus.UNCOLLECTIBLE, BillStatus.PAID})
_NUMBER: Final = re.compile(r"[0-9]{4}-[0-9]{6,}")


def asked_since(collection: Collection) -> datetime:
    """Return since when what a collection asks for may have been collected before."""
    moments = [collection.started_at]
    for part in collection.parts.select_related("invoice", "top_up"):
        if part.invoice:
            moments.append(part.invoice.period_start)
        if part.top_up:
            moments.append(part.top_up.requested_at)
    return min(moments)


def find_forgotten_bill(
    collection: Collection, customer_id: str, *, now: datetime
) -> ProviderBill | None:
    """Return the provider's invoice that asks for the same, made before a backup was restored.

    Numbers may have been given again since, so that it is known by kinds and periods. Raises
    RefusedError while there is another invoice of ours there that nobody here knows: it may be of
    the same money, so a person looks. Raises ProviderError.
    """
    bills = provider().find_bills(customer_id, {"account_id": str(collection.account_id)})
    if same := [one for one in bills if _collection_id(one) == collection.pk]:
        return same[0]
    forgotten = [one for one in bills if one.status in _PAYABLE and is_forgotten(one)]
    wanted = asks_for(collection)
    for bill in forgotten:
        if bill.metadata.get("asks_for") == wanted:
            return bill
    if left := [one for one in forgotten if not _is_settled(one)]:
        for bill in left:
            _note(bill, collection.account_id, now=now)
        names = ", ".join(one.number or one.id for one in left)
        raise RefusedError(
            f"Since a backup was restored there is {names} there, which nobody here knows. Settle "
            "that difference first",
            code="forgotten",
        )
    return None


def find_forgotten_subscription(
    fees: FeeSubscription, customer_id: str
) -> ProviderSubscription | None:
    """Return the account's subscription that was made before a backup was restored, if any."""
    if not was_restored_after(fees.account.opened_at):
        return None
    named = {"account_id": str(fees.account_id)}
    known = set(
        FeeSubscription.objects.filter(account_id=fees.account_id)
        .exclude(pk=fees.pk)
        .values_list("provider_id", flat=True)
    )
    found = provider().find_subscriptions(customer_id, named)
    running = [one for one in found if one.status not in ENDED and one.id not in known]
    return running[0] if running else None


def forgotten_numbers(since: datetime) -> Iterator[tuple[str, ProviderBill]]:
    """Yield invoice numbers that the provider was told since, and that no invoice here has.

    Raises ProviderError.
    """
    for bill in provider().bills(since=since):
        if "collection_id" not in bill.metadata:
            continue
        numbers = _NUMBER.findall(bill.metadata.get("invoices", ""))
        known = set(
            Invoice.objects.filter(number__in=numbers, account=_account_id(bill)).values_list(
                "number", flat=True
            )
        )
        for number in numbers:
            if number not in known:
                yield number, bill


def is_forgotten(bill: ProviderBill) -> bool:
    """Return whether a provider's invoice says that it is of a collection that is not here."""
    named = _collection_id(bill)
    return named is not None and not Collection.objects.filter(pk=named).exists()


def _collection_id(bill: ProviderBill) -> UUID | None:
    return _uuid(bill, "collection_id")


def _account_id(bill: ProviderBill) -> UUID | None:
    return _uuid(bill, "account_id")


def _uuid(bill: ProviderBill, name: str) -> UUID | None:
    try:
        return UUID(bill.metadata.get(name, ""))
    except ValueError:
        return None


def _is_settled(bill: ProviderBill) -> bool:
    return (
        Difference.objects.filter(subject=bill.id, settled_by__isnull=False).exists()
        or Collection.objects.filter(provider_id=bill.id).exists()
    )


def _note(bill: ProviderBill, account_id: UUID, *, now: datetime) -> None:
    found = Found(
        kind=Difference.Kind.INVOICE_ONLY_THERE,
        subject=bill.id,
        account_id=account_id,
        ours="We know nothing of it, since a backup was restored",
        theirs=f"Invoice {bill.number or bill.id} of {bill.total} is {bill.status}: "
        f"{bill.metadata.get('invoices', '')}",
        proposed_action="Find out what it was for. Void it there, or give back or credit what was "
        "paid; then settle this, and collect anew what waits for it.",
    )
    note_difference(found, now=now)
