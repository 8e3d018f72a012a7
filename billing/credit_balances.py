"""What credit an account has: in all, by kind and grant, and what of it is gone when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.db.models import F, Q, QuerySet, Sum

from billing.credits import CreditKind
from billing.models import Account, CreditEntry, CreditGrant
from billing.money import Money
from billing.queries import one_snapshot

MOST_GRANTS = 100
MOST_EXPIRIES = 100


@dataclass(frozen=True, slots=True)
class Expiry:
    """So much is gone at that moment, unless it is used before."""

    at: datetime
    amount: Money


@dataclass(frozen=True, slots=True)
class GrantLeft:
    """What was granted, and what of it is left."""

    grant: CreditGrant
    granted: Money
    balance: Money


@dataclass(frozen=True, slots=True)
class CreditBalances:
    """The credit that is not used and has not expired; also what takes effect later.

    `is_complete` says that no expiry and no grant was left out for being too many.
    """

    currency: str
    balance: Money
    by_kind: Mapping[CreditKind, Money]
    expiries: tuple[Expiry, ...]
    grants: tuple[GrantLeft, ...]
    is_complete: bool


def credit_balances(account_id: UUID, *, now: datetime) -> CreditBalances:
    """Return what credit the account has; expiries and grants soonest expiry first.

    A fixed number of queries. Raises Account.DoesNotExist.
    """
    with one_snapshot():
        currency = Account.objects.values_list("currency", flat=True).get(pk=account_id)
        lasting = Q(expires_at__isnull=True) | Q(expires_at__gt=now)
        by_kind = _by_kind(account_id, now, currency)
        expiries = [
            Expiry(at, Money(left, currency))
            for at, left in _lasting_entries(account_id, now)
            .values_list("grant__expires_at")
            .annotate(left=Sum("amount"))
            .filter(left__gt=0)
            .order_by("grant__expires_at")[: MOST_EXPIRIES + 1]
            # Last, in the order of the database: what never expires.
            if at is not None
        ]
        grants = [
            GrantLeft(row, Money(row.granted, currency), Money(row.balance, currency))
            for row in CreditGrant.objects.filter(lasting, account=account_id)
            .annotate(
                granted=Sum("entries__amount", filter=Q(entries__kind=CreditEntry.Kind.GRANT)),
                balance=Sum("entries__amount"),
            )
            .filter(balance__gt=0)
            .order_by(F("expires_at").asc(nulls_last=True), "pk")[: MOST_GRANTS + 1]
        ]
    return CreditBalances(
        currency=currency,
        balance=Money.total(by_kind.values(), currency),
        by_kind=by_kind,
        expiries=tuple(expiries[:MOST_EXPIRIES]),
        grants=tuple(grants[:MOST_GRANTS]),
        is_complete=len(expiries) <= MOST_EXPIRIES and len(grants) <= MOST_GRANTS,
    )


def entries_of(account_id: UUID) -> QuerySet[CreditEntry]:
    """Return the account's ledger, each entry with its grant, its invoice and its `currency`."""
    return (
        CreditEntry.objects.filter(grant__account=account_id)
        .select_related("grant", "invoice")
        .annotate(currency=F("grant__account__currency"))
    )


def _by_kind(account_id: UUID, now: datetime, currency: str) -> dict[CreditKind, Money]:
    """Return what is left of each kind; of one that there never was, nothing."""
    rows = _lasting_entries(account_id, now).values_list("grant__kind").annotate(Sum("amount"))
    left = dict(rows.order_by())
    return {kind: Money(left.get(kind, Decimal(0)), currency) for kind in CreditKind}


def _lasting_entries(account_id: UUID, now: datetime) -> QuerySet[CreditEntry]:
    return CreditEntry.objects.filter(
        Q(grant__expires_at__isnull=True) | Q(grant__expires_at__gt=now), grant__account=account_id
    )
