"""What the billing run still has to do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, Exists, Min, OuterRef, QuerySet

from billing.history import BILLING_A_PERIOD
from billing.models import Account, Invoice


@dataclass(frozen=True, slots=True)
class Due:
    """How many accounts wait for the billing run, and the longest for how long."""

    accounts: int
    longest: timedelta


def undrafted(accounts: QuerySet[Account], *, now: datetime) -> QuerySet[Account]:
    """Return those of the accounts whose open period is over and has no draft."""
    drafted = Invoice.objects.filter(
        account=OuterRef("pk"),
        kind__in=BILLING_A_PERIOD,
        period_start=OuterRef("open_period_start"),
    ).exclude(status=Invoice.Status.VOID)
    return accounts.filter(~Exists(drafted), open_period_end__lte=now)


def billing_due(*, now: datetime) -> Due:
    """Return what is due: periods without a draft, and drafts whose grace is over.

    Accounts that are parked wait for a person, and are not among them.
    """
    periods = undrafted(Account.objects.filter(parked_reason=""), now=now).aggregate(
        count=Count("pk"), since=Min("open_period_end")
    )
    drafts = Invoice.objects.filter(
        account__parked_reason="", status=Invoice.Status.DRAFT, finalise_after__lte=now
    ).aggregate(count=Count("account", distinct=True), since=Min("finalise_after"))
    begun = [sums["since"] for sums in (periods, drafts) if sums["since"]]
    longest = now - min(begun) if begun else timedelta(0)
    return Due(periods["count"] + drafts["count"], longest)


def parked_count() -> int:
    """Return how many accounts the sweeps leave alone until a person has looked."""
    return Account.objects.filter(parked_at__isnull=False).count()
