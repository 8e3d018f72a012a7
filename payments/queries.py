"""Counts of payments for a monitor and for operators: about none of the accounts in particular."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db.models import Case, Count, F, Min, Q, QuerySet, When

from payments.ledger import balances
from payments.models import (
    LIVE_COLLECTION,
    Collection,
    Customer,
    Difference,
    DunningCase,
    Payment,
    PaymentAttempt,
    PlatformRequest,
    Reconciliation,
    Refund,
    WebhookEvent,
)

DAY = timedelta(days=1)
MOST_CODES = 20
"""So many reasons for failures a monitor is told apart."""
ENDED = (
    PaymentAttempt.Status.SUCCEEDED,
    PaymentAttempt.Status.FAILED,
    PaymentAttempt.Status.ACTION_REQUIRED,
    PaymentAttempt.Status.ABANDONED,
)


def attempts_ended(now: datetime, *, within: timedelta = DAY) -> Mapping[str, int]:
    """Return how many attempts ended within that time before `now`, by how; zeros too."""
    ended = PaymentAttempt.objects.filter(ended_at__gt=now - within, ended_at__lte=now)
    return _counts(ended, "status", [status.value for status in ENDED])


def attempts_failed(now: datetime) -> Mapping[str, int]:
    """Return how many attempts failed within a day before `now`, by the bank's or provider's code.

    The most frequent ones; the rest are counted together as `other`.
    """
    failed = (
        PaymentAttempt.objects.filter(ended_at__gt=now - DAY, ended_at__lte=now)
        .exclude(failure_code="", decline_code="")
        .order_by()
        .values_list(Case(When(decline_code="", then=F("failure_code")), default=F("decline_code")))
        .annotate(count=Count("pk"))
    )
    by_code = Counter(dict(failed))
    most = dict(by_code.most_common(MOST_CODES))
    rest = by_code.total() - sum(most.values())
    return {**most, "other": most.get("other", 0) + rest}


def success_rate(now: datetime, *, within: timedelta = DAY) -> Decimal | None:
    """Return which part of the attempts that ended within that time succeeded; None of none.

    Of those that were charged: what the provider lost or was taken back counts on neither side.
    """
    ended = PaymentAttempt.objects.filter(ended_at__gt=now - within, ended_at__lte=now).exclude(
        status=PaymentAttempt.Status.ABANDONED
    )
    counts = ended.aggregate(
        all=Count("pk"), paid=Count("pk", filter=Q(status=PaymentAttempt.Status.SUCCEEDED))
    )
    return Decimal(counts["paid"]) / counts["all"] if counts["all"] else None


def success_rates(now: datetime, periods: Mapping[str, timedelta]) -> Mapping[str, Decimal | None]:
    """Return what `success_rate` does of several periods, by their names, in one query."""
    ended = PaymentAttempt.objects.filter(
        ended_at__gt=now - max(periods.values()), ended_at__lte=now
    ).exclude(status=PaymentAttempt.Status.ABANDONED)
    paid = Q(status=PaymentAttempt.Status.SUCCEEDED)
    wanted = {}
    for number, within in enumerate(periods.values()):
        since = Q(ended_at__gt=now - within)
        # By what the index has, so that it alone is read.
        wanted[f"all_{number}"] = Count("status", filter=since)
        wanted[f"paid_{number}"] = Count("status", filter=since & paid)
    counts = ended.aggregate(**wanted)
    return {
        name: Decimal(counts[f"paid_{number}"]) / counts[f"all_{number}"]
        if counts[f"all_{number}"]
        else None
        for number, name in enumerate(periods)
    }


def collections_by_status() -> Mapping[str, int]:
    """Return how many collections are under way or wait for a person, by where they stand."""
    statuses = (
        Collection.Status.PREPARING,
        Collection.Status.OPEN,
        Collection.Status.REFUSED,
    )
    waiting = Collection.objects.filter(status__in=statuses, parts__is_live=True).distinct()
    return _counts(waiting, "status", [status.value for status in statuses])


def unknown_attempts() -> int:
    """Return how many attempts have no answer, and are looked up."""
    return PaymentAttempt.objects.filter(status=PaymentAttempt.Status.UNKNOWN).count()


def longest_due_s(now: datetime) -> float:
    """Return for how many seconds the next step of a collection has been due; 0: of none."""
    due = Collection.objects.filter(LIVE_COLLECTION, try_at__lte=now)
    return _age_s(due.aggregate(first=Min("try_at"))["first"], now)


def events_by_status() -> Mapping[str, int]:
    """Return how many webhook events wait to be applied, and how many were given up."""
    statuses = (WebhookEvent.Status.RECEIVED, WebhookEvent.Status.FAILED)
    events = WebhookEvent.objects.filter(status__in=statuses)
    return _counts(events, "status", [status.value for status in statuses])


def oldest_event_s(now: datetime) -> float:
    """Return for how many seconds a webhook event has waited to be applied; 0: none does."""
    waiting = WebhookEvent.objects.filter(status=WebhookEvent.Status.RECEIVED)
    return _age_s(waiting.aggregate(first=Min("received_at"))["first"], now)


def accounts_by_standing() -> Mapping[str, int]:
    """Return how many accounts are in arrears, and how many suspended."""
    standings = (Customer.Standing.PAST_DUE, Customer.Standing.SUSPENDED)
    customers = Customer.objects.filter(standing__in=standings)
    return _counts(customers, "standing", [standing.value for standing in standings])


def open_dunning_cases() -> int:
    """Return how many invoices are dunned."""
    return DunningCase.objects.filter(closed_at__isnull=True).count()


def open_differences() -> Mapping[str, int]:
    """Return how many differences are open, by kind; zeros too."""
    differences = Difference.objects.filter(settled_at__isnull=True)
    return _counts(differences, "kind", [kind.value for kind in Difference.Kind])


def waiting_refunds() -> Mapping[str, int]:
    """Return how many refunds wait: for a second person, to be sent, or at the provider."""
    statuses = (Refund.Status.PROPOSED, Refund.Status.APPROVED, Refund.Status.PENDING)
    refunds = Refund.objects.filter(status__in=statuses)
    return _counts(refunds, "status", [status.value for status in statuses])


def waiting_platform_requests() -> int:
    """Return how many requests the platform has not accepted yet."""
    waiting = PlatformRequest.objects.filter(accepted_at__isnull=True, replaced_at__isnull=True)
    return waiting.count()


def ledger_by_currency() -> Mapping[str, Decimal]:
    """Return by currency what came through the provider and is still here, before its fees."""
    return {
        currency: balance.balance.amount
        for currency, balance in balances(Payment.Method.PROVIDER).items()
    }


def last_webhook_at() -> datetime | None:
    """Return when the last webhook came."""
    last = WebhookEvent.objects.filter(source=WebhookEvent.Source.WEBHOOK).first()
    return last.received_at if last else None


def last_reconciled_at() -> datetime | None:
    """Return when both sides were last compared to the end."""
    last = Reconciliation.objects.filter(ended_at__isnull=False, error="").first()
    return last.ended_at if last else None


def _counts(rows: QuerySet[Any], column: str, values: list[str]) -> Mapping[str, int]:
    found = dict(rows.order_by().values_list(column).annotate(count=Count("pk", distinct=True)))
    return {value: found.get(value, 0) for value in values}


def _age_s(since: datetime | None, now: datetime) -> float:
    return (now - since).total_seconds() if since else 0.0
