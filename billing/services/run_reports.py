"""What a billing run is asked to do, and what it did."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db.models import CharField, F, Func, QuerySet, Value

from billing.models import Account, Invoice
from billing.money import Money

MOST_NAMED = 1_000
"""Of more accounts that wait or are parked, the rest is counted only."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which accounts and periods a run is about. Nothing given: all that are due.

    `month` is YYYY-MM: periods that start in it, in the account's own time zone.
    """

    account_ids: tuple[UUID, ...] = ()
    month: str = ""

    def accounts(self) -> QuerySet[Account]:
        """Return the accounts whose open period is in the scope and that are not parked."""
        accounts = Account.objects.filter(parked_reason="")
        if self.account_ids:
            accounts = accounts.filter(pk__in=self.account_ids)
        if self.month:
            accounts = accounts.alias(
                month=_local_month(F("time_zone"), F("open_period_start"))
            ).filter(month=self.month)
        return accounts

    def drafts(self) -> QuerySet[Invoice]:
        """Return the drafts in the scope of accounts that are not parked."""
        return self.invoices(Invoice.Status.DRAFT).filter(account__parked_reason="")

    def invoices(self, status: str) -> QuerySet[Invoice]:
        """Return the invoices in the scope that have this status."""
        invoices = Invoice.objects.filter(status=status)
        if self.account_ids:
            invoices = invoices.filter(account__in=self.account_ids)
        if self.month:
            invoices = invoices.alias(
                month=_local_month(F("account__time_zone"), F("period_start"))
            ).filter(month=self.month)
        return invoices


EVERYTHING = Scope()


@dataclass(slots=True)
class RunReport:
    """What a run did, or in a rehearsal would do. `totals` are by currency."""

    drafted: int = 0
    finalised: int = 0
    # Periods that were closed without an invoice.
    empty: int = 0
    waiting_count: int = 0
    parked_count: int = 0
    # It ended before it was through.
    has_more: bool = False
    totals: dict[str, Decimal] = field(default_factory=dict)
    waiting: list[tuple[UUID, str]] = field(default_factory=list)
    parked: list[tuple[UUID, str]] = field(default_factory=list)
    # Drafts that were looked at and have to wait.
    tried: set[int] = field(default_factory=set)
    # The last account that was claimed to be drafted: when its open period ended, and its key.
    passed: tuple[datetime, UUID] | None = None
    is_through: bool = False

    @property
    def closed(self) -> int:
        """How many periods were closed, with an invoice or without."""
        return self.finalised + self.empty

    def add_total(self, total: Money) -> None:
        """Count the total of one invoice."""
        self.totals[total.currency] = self.totals.get(total.currency, Decimal(0)) + total.amount

    def add_waiting(self, account_id: UUID, reason: str) -> None:
        """Note that an account's draft is not ready."""
        self.waiting_count += 1
        if len(self.waiting) < MOST_NAMED:
            self.waiting.append((account_id, reason))

    def add_parked(self, account_id: UUID, reason: str) -> None:
        """Note that an account's work failed."""
        self.parked_count += 1
        if len(self.parked) < MOST_NAMED:
            self.parked.append((account_id, reason))

    @classmethod
    def of(cls, parts: Iterable[RunReport]) -> RunReport:
        """Return what several runs did together."""
        whole = cls()
        for part in parts:
            whole.drafted += part.drafted
            whole.finalised += part.finalised
            whole.empty += part.empty
            whole.waiting_count += part.waiting_count
            whole.parked_count += part.parked_count
            whole.has_more |= part.has_more
            for currency, amount in part.totals.items():
                whole.add_total(Money(amount, currency))
            whole.waiting = [*whole.waiting, *part.waiting][:MOST_NAMED]
            whole.parked = [*whole.parked, *part.parked][:MOST_NAMED]
        return whole

    def as_json(self) -> dict[str, Any]:
        """Return the report for programs: counts, totals as text, and who waits or is parked."""
        return {
            "drafted": self.drafted,
            "finalised": self.finalised,
            "closed_without_invoice": self.empty,
            "totals": {
                currency: Money(amount, currency).text for currency, amount in self.totals.items()
            },
            "waiting_count": self.waiting_count,
            "waiting": [{"account": str(key), "for": reason} for key, reason in self.waiting],
            "parked_count": self.parked_count,
            "parked": [{"account": str(key), "reason": reason} for key, reason in self.parked],
            "has_more": self.has_more,
        }


def _local_month(time_zone: F, moment: F) -> Func:
    local = Func(time_zone, moment, function="timezone")
    return Func(local, Value("YYYY-MM"), function="to_char", output_field=CharField())


def is_month(text: str) -> bool:
    """Return whether a text is a month, YYYY-MM."""
    year, dash, month = text.partition("-")
    return (
        dash == "-"
        and (len(year), len(month)) == (4, 2)
        and (year + month).isascii()
        and (year + month).isdigit()
        and 1 <= int(month) <= 12
    )
