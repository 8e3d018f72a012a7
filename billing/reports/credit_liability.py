"""What accounts hold of each kind of credit as of a day, and what became of the rest."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from decimal import Decimal

from django.db.models import Q, Sum
from django.db.models.functions import Coalesce

from billing.credits import CreditKind
from billing.models import CreditEntry
from billing.money import Money
from billing.reports.chunks import CHUNK
from billing.reports.receivables import end_of
from billing.reports.rows import CreditRow

_COLUMNS = {
    "granted": CreditEntry.Kind.GRANT,
    "used": CreditEntry.Kind.USE,
    "expired": CreditEntry.Kind.EXPIRE,
    "revoked": CreditEntry.Kind.REVOKE,
    "refunded": CreditEntry.Kind.REFUND,
}


def credit_rows(as_of: date) -> Iterator[CreditRow]:
    """Yield a row for each account and kind of credit that has entries up to the end of the day.

    Amounts have the sign of the ledger: what went is below zero, and each row adds up across.
    """
    rows = (
        CreditEntry.objects.filter(recorded_at__lt=end_of(as_of))
        .values("grant__account_id", "grant__account__name", "grant__account__currency")
        .annotate(
            balance=Sum("amount"),
            **{
                name: Coalesce(Sum("amount", filter=Q(kind=kind)), Decimal(0))
                for name, kind in _COLUMNS.items()
            },
        )
        .values_list(
            "grant__account_id",
            "grant__account__name",
            "grant__account__currency",
            "grant__kind",
            "balance",
            *_COLUMNS,
        )
        .order_by("grant__account__name", "grant__account_id", "grant__kind")
    )
    for account_id, name, currency, kind, balance, *sums in rows.iterator(chunk_size=CHUNK):
        known = [Money(amount, currency) for amount in sums]
        whole = Money(balance, currency)
        yield CreditRow(
            account_id=account_id,
            account=name,
            currency=currency,
            kind=kind,
            # Prepaid credit is the customer's money; the others are promises of a lower price.
            is_liability="yes" if kind == CreditKind.PREPAID else "no",
            **dict(zip(_COLUMNS, known, strict=True)),
            other=whole - Money.total(known, currency),
            balance=whole,
        )
