"""What was counted for a monitor: invoices that became final, and what failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from billing.models import Account, FailureCount, Invoice, InvoicedAmount
from billing.services.counting import AMOUNTS


@dataclass(frozen=True, slots=True)
class Amounts:
    """Invoices of a kind and currency: how many are of at most each of AMOUNTS, and in all."""

    kind: str
    currency: str
    up_to: Sequence[tuple[Decimal, int]]
    count: int
    total: Decimal


def invoiced_amounts() -> list[Amounts]:
    """Return what became final so far, of each currency that any did, all kinds. One query."""
    counted: dict[tuple[str, str], dict[Decimal | None, InvoicedAmount]] = {}
    for row in InvoicedAmount.objects.order_by("currency", "kind"):
        counted.setdefault((row.currency, row.kind), {})[row.up_to] = row
    return [
        _amounts(kind.value, currency, counted.get((currency, kind.value), {}))
        for currency in dict.fromkeys(currency for currency, _kind in counted)
        for kind in Invoice.Kind
    ]


def _amounts(kind: str, currency: str, rows: Mapping[Decimal | None, InvoicedAmount]) -> Amounts:
    smaller = 0
    up_to = []
    for bound in AMOUNTS:
        smaller += rows[bound].count if bound in rows else 0
        up_to.append((bound, smaller))
    return Amounts(
        kind,
        currency,
        up_to,
        sum(row.count for row in rows.values()),
        sum((row.total for row in rows.values()), Decimal(0)),
    )


def failures(what: FailureCount.Failed) -> int:
    """Return how often it failed so far."""
    return FailureCount.objects.filter(pk=what).values_list("count", flat=True).first() or 0


def oldest_open_period() -> datetime | None:
    """Return since when usage of accounts that are not parked is on no final invoice.

    Of the open period that ends first.
    """
    first = Account.objects.filter(parked_reason="").order_by("open_period_end")
    return first.values_list("open_period_start", flat=True).first()
