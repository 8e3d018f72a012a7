"""What the desk's home page says of payments."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from urllib.parse import urlencode

from django.http import HttpRequest
from django.urls import reverse

from billing.admin.desk import Card, Row, counted, register_cards
from billing.admin.listing import grouped_money
from payments import queries
from payments.dunning_board import sums_by_currency
from payments.models import Difference, DunningCase, PaymentAttempt

DAYS = 30
POOR = Decimal("0.8")
"""With fewer payments than that, something else than cards is wrong."""


def cards(request: HttpRequest, now: datetime) -> Iterator[Card]:
    """Yield the cards of payments, those that the one who asks may see."""
    may = request.user.has_perm
    if may("payments.view_paymentattempt"):
        yield _success(now)
    if may("payments.view_dunningcase"):
        yield _past_due(now)
    if may("payments.view_difference"):
        yield _differences()


def _success(now: datetime) -> Card:
    within = timedelta(days=DAYS)
    counts = queries.attempts_ended(now, within=within)
    paid = counts[PaymentAttempt.Status.SUCCEEDED]
    tried = sum(counts.values()) - counts[PaymentAttempt.Status.ABANDONED]
    rate = queries.success_rate(now, within=within)
    rows = []
    if rate is not None:
        # Rounded down: only what succeeded whole is 100 %.
        percent = (100 * rate).quantize(Decimal("0.1"), ROUND_DOWN)
        of = f"{paid:,} of {counted(tried, 'attempt')}"
        rows = [Row("Succeeded", f"{percent}\N{NO-BREAK SPACE}%", of)]
    query = urlencode({"started_at__gte": (now - within).isoformat()})
    return Card(
        f"Payments of {DAYS} days",
        f"{reverse('admin:payments_paymentattempt_changelist')}?{query}",
        rows,
        "Of the attempts that the provider made; an invoice may have several.",
        is_alarming=rate is not None and rate < POOR,
    )


def _past_due(now: datetime) -> Card:
    open_ones = DunningCase.objects.filter(closed_at__isnull=True)
    standings = queries.accounts_by_standing()
    rows = [
        Row(currency, grouped_money(of.owed.amount, currency), counted(of.cases, "invoice"))
        for currency, of in sums_by_currency(open_ones, now=now).items()
    ]
    past_due, suspended = standings["past_due"], standings["suspended"]
    return Card(
        "Past due",
        reverse("admin:payments_dunningcase_changelist"),
        rows,
        f"{counted(past_due, 'account')} past due, and {suspended:,} suspended.",
        is_alarming=bool(suspended),
    )


def _differences() -> Card:
    rows = [
        Row(Difference.Kind(kind).label, f"{count:,}")
        for kind, count in queries.open_differences().items()
        if count
    ]
    return Card(
        "Differences with the provider",
        reverse("admin:payments_difference_changelist"),
        rows,
        "What both sides do not say alike, and nobody has settled.",
        is_alarming=bool(rows),
    )


register_cards(cards)
