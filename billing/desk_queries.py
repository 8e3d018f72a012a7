"""What the finance desk shows in sums, a query each. Currencies are never added up.

What has to be made of every account's days is read as `services.desk` last added it up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db.models import Count, F, Min, Q, QuerySet, Sum
from django.db.models.functions import TruncMonth

from billing.lifecycle import NOT_FINAL, InvoiceStatus
from billing.models import (
    Account,
    CreditEntry,
    CreditNote,
    DeskCoverage,
    DeskDay,
    DeskRunning,
    DeskSlice,
    Invoice,
)
from metering.period import Period

OUTSTANDING = (
    InvoiceStatus.PENDING,
    InvoiceStatus.PAYMENT_FAILED,
    InvoiceStatus.PENDING_RETRY,
)
"""An invoice in one of these still asks for its money."""
FINAL = tuple(status for status in InvoiceStatus if status not in NOT_FINAL)
SHOWN = 5
"""So many reasons or accounts a card names; the list behind it has all."""


@dataclass(frozen=True, slots=True)
class Revenue:
    """What final invoices of one month and currency ask for, void ones left out.

    `net` is the total without tax, after discounts and credit. Of a remainder below zero it is
    below zero too, though the invoice asks for nothing: what it became pays later ones.
    """

    month: date
    currency: str
    invoices: int
    net: Decimal
    tax: Decimal


@dataclass(frozen=True, slots=True)
class Owed:
    """The invoices of a currency and state that still ask for money."""

    currency: str
    status: str
    invoices: int
    due: Decimal


@dataclass(frozen=True, slots=True)
class Reasons:
    """How many rows there are, and the most frequent reasons with how many have each."""

    count: int
    most: Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class ParkedAccounts:
    """How many accounts the sweeps leave alone, and those parked last."""

    count: int
    newest: Sequence[tuple[UUID, str, str]]


@dataclass(frozen=True, slots=True)
class Expiring:
    """Credit of a currency and kind that lapses soon: grants with something left, and how much."""

    currency: str
    kind: str
    grants: int
    left: Decimal


@dataclass(frozen=True, slots=True)
class AddedUp:
    """Since when the figures hold that are added up in the background; None: not all are there.

    `left_out` accounts are in none of them.
    """

    as_of: datetime | None
    left_out: int


@dataclass(frozen=True, slots=True)
class Running:
    """What the accounts of a currency would be asked for if their periods ended now."""

    currency: str
    accounts: int
    subscription_fee: Decimal
    usage_fee: Decimal
    discounts: Decimal
    credits_used: Decimal
    tax: Decimal
    total_amount: Decimal


@dataclass(frozen=True, slots=True)
class DaySum:
    """Usage, in base units, and its cost before discounts: of a day or of a month's first day."""

    day: date
    currency: str
    meter: str
    quantity: int
    cost: Decimal


@dataclass(frozen=True, slots=True)
class CoverageSum:
    """How long sandboxes ran, and for how much of that gauges were read."""

    running_ms: int
    measured_ms: int


def revenue_by_month(since: datetime) -> list[Revenue]:
    """Return what was finalised since then by calendar month in UTC and currency, in order."""
    rows = (
        Invoice.objects.filter(finalised_at__gte=since)
        .exclude(status__in=NOT_FINAL)
        # Prepaid credit is revenue when it is spent, on the invoice that it pays.
        .exclude(kind=Invoice.Kind.TOP_UP)
        .annotate(month=TruncMonth("finalised_at"))
        .values("month", "currency")
        .annotate(
            invoices=Count("pk"),
            net=Sum(F("total_amount") - F("credited") - F("tax")),
            taxes=Sum("tax"),
        )
        .order_by("month", "currency")
    )
    return [
        Revenue(row["month"].date(), row["currency"], row["invoices"], row["net"], row["taxes"])
        for row in rows
    ]


def outstanding() -> list[Owed]:
    """Return what is still asked for, less what was credited of it, by currency and state."""
    credited = {
        (currency, status): off_due
        for currency, status, off_due in CreditNote.objects.filter(invoice__status__in=OUTSTANDING)
        .order_by()
        .values_list("currency", "invoice__status")
        .annotate(Sum("off_due"))
    }
    rows = (
        Invoice.objects.filter(status__in=OUTSTANDING)
        .values("currency", "status")
        .annotate(invoices=Count("pk"), due=Sum("amount_due"))
        .order_by("currency", "status")
    )
    return [
        Owed(
            row["currency"],
            row["status"],
            row["invoices"],
            row["due"] - credited.get((row["currency"], row["status"]), Decimal(0)),
        )
        for row in rows
    ]


def drafts_waiting(now: datetime) -> Reasons:
    """Return the drafts whose grace is over, and what they wait for."""
    rows = list(
        Invoice.objects.filter(status=Invoice.Status.DRAFT, finalise_after__lte=now)
        .values_list("waiting_for")
        .annotate(count=Count("pk"))
        .order_by("-count", "waiting_for")
    )
    return Reasons(sum(count for _, count in rows), rows[:SHOWN])


def parked_accounts() -> ParkedAccounts:
    """Return the accounts that wait for a person."""
    parked = Account.objects.filter(parked_at__isnull=False)
    newest = parked.order_by("-parked_at")[:SHOWN]
    count = parked.count()
    return ParkedAccounts(
        count, list(newest.values_list("pk", "name", "parked_reason")) if count else []
    )


def expiring_credit(within: Period) -> list[Expiring]:
    """Return the credit with something left that expires in that time, by currency and kind."""
    grants = (
        CreditEntry.objects.filter(
            grant__expires_at__gte=within.start, grant__expires_at__lt=within.end
        )
        .values("grant_id", "grant__kind", "grant__account__currency")
        .annotate(left=Sum("amount"))
        .filter(left__gt=0)
    )
    sums: dict[tuple[str, str], tuple[int, Decimal]] = {}
    for row in grants:
        key = (row["grant__account__currency"], row["grant__kind"])
        count, left = sums.get(key, (0, Decimal(0)))
        sums[key] = (count + 1, left + row["left"])
    return [Expiring(*key, *sums[key]) for key in sorted(sums)]


def added_up() -> AddedUp:
    """Return since when the figures of all accounts hold."""
    sums = DeskSlice.objects.aggregate(
        as_of=Min("computed_at"),
        missing=Count("pk", filter=Q(computed_at__isnull=True)),
        slices=Count("pk"),
        left_out=Sum("left_out"),
    )
    is_whole = sums["slices"] and not sums["missing"]
    return AddedUp(sums["as_of"] if is_whole else None, sums["left_out"] or 0)


def running_periods() -> list[Running]:
    """Return what running periods come to so far, by currency."""
    figures = (
        "accounts",
        "subscription_fee",
        "usage_fee",
        "discounts",
        "credits_used",
        "tax",
        "total_amount",
    )
    rows: Iterable[Mapping[str, Any]] = (
        DeskRunning.objects.values("currency")
        .annotate(**{f"sum_{name}": Sum(name) for name in figures})
        .order_by("currency")
    )
    return [Running(row["currency"], *(row[f"sum_{name}"] for name in figures)) for row in rows]


def by_day(first: date) -> list[DaySum]:
    """Return usage and its cost from `first` on by day, currency and meter, in order."""
    return _day_sums(DeskDay.objects.filter(day__gte=first).values("day", "currency", "meter"))


def by_month(first: date) -> list[DaySum]:
    """Return usage and its cost from `first` on by month, currency and meter, in order."""
    return _day_sums(
        DeskDay.objects.filter(day__gte=first)
        .annotate(month=TruncMonth("day"))
        .values("month", "currency", "meter"),
        day="month",
    )


def coverage_since(first: date) -> CoverageSum:
    """Return how much of the running time of the days from `first` on was measured."""
    sums = DeskCoverage.objects.filter(day__gte=first).aggregate(
        running=Sum("running_ms"), measured=Sum("measured_ms")
    )
    return CoverageSum(int(sums["running"] or 0), int(sums["measured"] or 0))


def _day_sums(rows: QuerySet[DeskDay, Any], *, day: str = "day") -> list[DaySum]:
    sums = rows.annotate(used=Sum("quantity"), costs=Sum("cost")).order_by(day, "currency", "meter")
    return [
        DaySum(row[day], row["currency"], row["meter"], int(row["used"]), row["costs"])
        for row in sums
    ]


def days_before(today: date, count: int) -> date:
    """Return the first of the last `count` days, today among them."""
    return today - timedelta(days=count - 1)
