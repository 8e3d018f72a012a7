"""The home page: where the month stands, and what waits for a person."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse

from billing import desk_queries
from billing.admin.charts import charts_of
from billing.admin.listing import grouped_money
from billing.models import Invoice
from metering.period import Period

EXPIRY_DAYS = 30
COVERAGE_DAYS = 30

# unfold's own template of this name comes first among the apps.
admin.site.index_template = "admin/billing/desk.html"


@dataclass(frozen=True, slots=True)
class Row:
    """A figure, what it is of, and what belongs to it."""

    label: str
    value: str
    more: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """Some figures, and the list they are of."""

    title: str
    href: str
    rows: Sequence[Row]
    note: str = ""
    is_alarming: bool = False


CardsOf = Callable[[HttpRequest, datetime], Iterable[Card]]
_others: list[CardsOf] = []


def register_cards(cards: CardsOf) -> None:
    """Let another app show cards after billing's own, those that the one who asks may see."""
    _others.append(cards)


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Add the desk's cards and charts, those that the one who asks may see, to the context."""
    now = datetime.now(UTC)
    added_up = desk_queries.added_up()
    picked, charts = charts_of(
        request.GET,
        today=now.date(),
        sees_money=request.user.has_perm("billing.view_invoice"),
        sees_usage=request.user.has_perm("metering.view_dailyusagesummary"),
    )
    return {
        **context,
        "title": "Desk",
        "cards": list(_cards(request, added_up, now=now)),
        "charts": charts,
        "picked": picked,
        "as_of": added_up.as_of,
        "left_out": added_up.left_out,
        "now": now,
    }


def _cards(
    request: HttpRequest, added_up: desk_queries.AddedUp, *, now: datetime
) -> Iterator[Card]:
    may = request.user.has_perm
    if may("billing.view_invoice"):
        yield _revenue(now)
        yield _running(added_up)
        yield from _unpaid()
        yield _drafts(now)
    if may("billing.view_account"):
        yield _parked()
    if may("metering.view_dailyusagesummary"):
        yield _coverage(now.date())
    if may("billing.view_creditgrant"):
        yield _expiring(now)
    for cards in _others:
        yield from cards(request, now)


def _revenue(now: datetime) -> Card:
    month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    rows = [
        Row(
            row.currency,
            grouped_money(row.net, row.currency),
            f"{counted(row.invoices, 'invoice')}, "
            f"and {grouped_money(row.tax, row.currency)} of tax",
        )
        for row in desk_queries.revenue_by_month(month)
    ]
    return Card(
        f"Revenue in {now:%B %Y}",
        _invoices(status__in=",".join(desk_queries.FINAL), finalised_at__gte=month.isoformat()),
        rows,
        "Invoices finalised this month (UTC), without tax, after discounts and credit.",
    )


def _running(added_up: desk_queries.AddedUp) -> Card:
    rows = []
    for row in desk_queries.running_periods():
        parts = {
            "fees": row.subscription_fee,
            "usage": row.usage_fee,
            "discounts": row.discounts,
            "credit": row.credits_used,
            "tax": row.tax,
        }
        names = ", ".join(f"{name} {grouped_money(parts[name], row.currency)}" for name in parts)
        total = grouped_money(row.total_amount, row.currency)
        rows.append(Row(row.currency, total, f"{counted(row.accounts, 'account')}: {names}"))
    as_of = f"As of {added_up.as_of:%H:%M} UTC." if added_up.as_of else "Not added up yet."
    return Card(
        "Running periods so far",
        reverse("admin:billing_account_changelist"),
        rows,
        f"What would be asked for if every running period ended now. {as_of}",
    )


def _unpaid() -> Iterator[Card]:
    owed = desk_queries.outstanding()
    yield Card(
        "Outstanding",
        _invoices(status__in=",".join(desk_queries.OUTSTANDING)),
        list(_by_currency(owed)),
        "Due on invoices that are pending, failed or being retried.",
    )
    failed = [row for row in owed if row.status == Invoice.Status.PAYMENT_FAILED]
    yield Card(
        "Failed payments",
        _invoices(status__exact=Invoice.Status.PAYMENT_FAILED),
        list(_by_currency(failed)),
        is_alarming=bool(failed),
    )


def _by_currency(owed: Sequence[desk_queries.Owed]) -> Iterator[Row]:
    for currency in sorted({row.currency for row in owed}):
        rows = [row for row in owed if row.currency == currency]
        yield Row(
            currency,
            grouped_money(sum((row.due for row in rows), start=rows[0].due * 0), currency),
            counted(sum(row.invoices for row in rows), "invoice"),
        )


def _drafts(now: datetime) -> Card:
    waiting = desk_queries.drafts_waiting(now)
    rows = [
        Row(reason or "Its turn has not come yet", f"{count:,}") for reason, count in waiting.most
    ]
    return Card(
        "Drafts that wait",
        _invoices(status__exact=Invoice.Status.DRAFT, finalise_after__lte=now.isoformat()),
        rows,
        f"{counted(waiting.count, 'draft')} past the grace, and why they are not final.",
        is_alarming=any(reason for reason, _ in waiting.most),
    )


def _parked() -> Card:
    parked = desk_queries.parked_accounts()
    return Card(
        "Parked accounts",
        f"{reverse('admin:billing_account_changelist')}?parked_at__isempty=0",
        [Row(name, "", reason) for _, name, reason in parked.newest],
        f"{counted(parked.count, 'account')} that the sweeps leave to a person.",
        is_alarming=bool(parked.count),
    )


def _coverage(today: date) -> Card:
    first = desk_queries.days_before(today, COVERAGE_DAYS)
    sums = desk_queries.coverage_since(first)
    rows = []
    if sums.running_ms:
        # Rounded down: only what was measured whole is 100 %.
        tenths = 1000 * sums.measured_ms // sums.running_ms
        hours = (sums.running_ms - sums.measured_ms) // 3_600_000
        rows = [Row("Measured", f"{tenths / 10:.1f}\N{NO-BREAK SPACE}%", f"{hours:,} h not")]
    return Card(
        "Coverage of metering",
        f"{reverse('admin:metering_dailyusagesummary_changelist')}?day__gte={first}",
        rows,
        f"Of the time that sandboxes ran in the last {COVERAGE_DAYS} days.",
    )


def _expiring(now: datetime) -> Card:
    within = Period(now, now + timedelta(days=EXPIRY_DAYS))
    expires = {
        "expires_at__gte": within.start.isoformat(),
        "expires_at__lt": within.end.isoformat(),
    }
    query = urlencode({**expires, "left": "yes"})
    return Card(
        f"Credit that expires within {EXPIRY_DAYS} days",
        f"{reverse('admin:billing_creditgrant_changelist')}?{query}",
        [
            Row(
                f"{row.currency}, {row.kind}",
                grouped_money(row.left, row.currency),
                counted(row.grants, "grant"),
            )
            for row in desk_queries.expiring_credit(within)
        ],
    )


def _invoices(**filters: str) -> str:
    return f"{reverse('admin:billing_invoice_changelist')}?{urlencode(filters)}"


def counted(number: int, noun: str) -> str:
    """Return a number and its noun, in the plural where it is not one."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
