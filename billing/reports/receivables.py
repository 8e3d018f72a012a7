"""What accounts owe as of a day, by how long it is overdue."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import chain, groupby
from typing import Final
from zoneinfo import ZoneInfo

from django.db.models import F, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce

from billing.lifecycle import NOT_FINAL, InvoiceStatus
from billing.models import CreditNote, Invoice, InvoiceTransition
from billing.money import Money
from billing.reports.chunks import CHUNK
from billing.reports.rows import ReceivableRow

_AGES: Final = ((0, "not_due"), (30, "days_1_to_30"), (60, "days_31_to_60"), (90, "days_61_to_90"))
_OLDEST: Final = "days_over_90"
_WAITING: Final = (
    InvoiceStatus.PENDING.value,
    InvoiceStatus.PAYMENT_FAILED.value,
    InvoiceStatus.PENDING_RETRY.value,
)
_SETTLED: Final = (*NOT_FINAL, InvoiceStatus.PAID)
_FIGURES: Final = (
    *(name for _, name in _AGES),
    _OLDEST,
    "receivable",
    *_WAITING,
    "other_status",
    "uncollectible",
)


def end_of(day: date) -> datetime:
    """Return the moment up to which `as of day` counts: the end of that day in UTC."""
    return datetime.combine(day, time(), tzinfo=UTC) + timedelta(days=1)


def age_of(days_overdue: int) -> str:
    """Return the column of an invoice that was due so many days ago."""
    return next((name for most, name in _AGES if days_overdue <= most), _OLDEST)


def receivable_rows(
    as_of: date, *, payment_terms_days: int, seller_zone: ZoneInfo
) -> Iterator[ReceivableRow]:
    """Yield a row for each account and currency that owes something.

    Invoices without a due date were due so many days after they were finalised.
    """
    terms = timedelta(days=payment_terms_days)
    invoices = _unsettled(end_of(as_of)).iterator(chunk_size=CHUNK)
    for _, group in groupby(invoices, key=lambda i: (i.account_id, i.currency)):
        first = next(group)
        figures = {name: Money.zero(first.currency) for name in _FIGURES}
        count = 0
        for invoice in chain([first], group):
            count += 1
            for name in _columns(invoice, as_of, terms=terms, zone=seller_zone):
                figures[name] += _owed(invoice)
        yield ReceivableRow(
            account_id=first.account_id,
            account=first.account.name,
            currency=first.currency,
            invoices=count,
            **figures,
        )


def _owed(invoice: Invoice) -> Money:
    """Return what was due at the moment, less what was credited of it until then."""
    credited: Decimal = invoice.taken_back  # type: ignore[attr-defined] # annotated below
    return Money(invoice.amount_due - credited, invoice.currency)


def _unsettled(moment: datetime) -> QuerySet[Invoice]:
    """Return the invoices that asked for money at a moment, each with its status of then."""
    before = InvoiceTransition.objects.filter(invoice=OuterRef("pk"), at__lt=moment)
    notes = CreditNote.objects.filter(invoice=OuterRef("pk"), issued_at__lt=moment).order_by()
    credited = notes.values("invoice").annotate(sum=Sum("off_due")).values("sum")
    return (
        Invoice.objects.filter(finalised_at__lt=moment, amount_due__gt=0)
        # What is settled long since is not looked at one by one.
        .filter(Q(paid_at__isnull=True) | Q(paid_at__gte=moment))
        .annotate(
            then=Coalesce(Subquery(before.order_by("-pk").values("to_status")[:1]), F("status")),
            taken_back=Coalesce(Subquery(credited), Decimal(0)),
        )
        .exclude(then__in=_SETTLED)
        .select_related("account")
        .order_by("account__name", "account_id", "currency", "pk")
    )


def _columns(invoice: Invoice, as_of: date, *, terms: timedelta, zone: ZoneInfo) -> Iterator[str]:
    """Yield the columns that an invoice's amount due counts in."""
    then: str = invoice.then  # type: ignore[attr-defined] # annotated above
    if then == InvoiceStatus.UNCOLLECTIBLE:
        # Written off: known of, and not expected any more.
        yield then
        return
    yield "receivable"
    yield then if then in _WAITING else "other_status"
    due_on = invoice.due_on
    if due_on is None and invoice.finalised_at is not None:
        due_on = invoice.finalised_at.astimezone(zone).date() + terms
    yield age_of((as_of - due_on).days if due_on else 0)
