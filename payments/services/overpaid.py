"""Invoices that credit notes and payments together have paid, or more than paid.

Billing's credit notes know of no payments: a note takes off what is owed all the same, and what
was paid of that before is too much.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from functools import partial

from django.db import transaction
from django.db.models import CharField, Exists, F, OuterRef, Q, QuerySet, Subquery, Sum, Value
from django.db.models.functions import Cast, Concat

from billing.credits import CreditKind
from billing.models import CreditEntry, CreditGrant, CreditNote, Invoice
from billing.money import Money
from billing.outstanding import UNPAID
from billing.services import Because, Gift, grant_credit, lock_account
from payments.models import Allocation
from payments.owed import paid_of
from payments.services.one_by_one import try_each
from payments.services.receiving import close_if_paid

INVOICES_A_SWEEP = 500
BECAUSE = Because("Paid in part, and the rest credited")


def settle_credited(now: datetime) -> int:
    """Mark invoices paid that payments and credit notes have paid, and give what is too much.

    As prepaid credit, once for each note. Returns how many invoices were settled. Safe to repeat.
    """
    return try_each(
        list(_due().values_list("pk", flat=True)[:INVOICES_A_SWEEP]), partial(_settle, now=now)
    )


def given_of(invoice: Invoice) -> Money:
    """Return how much of what was paid of an invoice became credit because of credit notes.

    What notes made credit of by themselves, and what they took off though it was paid already.
    """
    noted = invoice.credit_notes.aggregate(sum=Sum("as_credit"))["sum"] or Decimal(0)
    return Money(noted, invoice.currency) + _given_as_excess(invoice)


def _settle(invoice_id: int, *, now: datetime) -> None:
    account_id = Invoice.objects.values_list("account_id", flat=True).get(pk=invoice_id)
    with transaction.atomic():
        lock_account(account_id)
        _give_excess(Invoice.objects.get(pk=invoice_id), now=now)
        close_if_paid(invoice_id, because=BECAUSE, now=now)


def _give_excess(invoice: Invoice, *, now: datetime) -> None:
    notes = invoice.credit_notes.filter(off_due__gt=0).order_by("pk")
    credited = notes.aggregate(sum=Sum("off_due"))["sum"] or Decimal(0)
    last = notes.last()
    excess = paid_of(invoice) - Money(invoice.amount_due - credited, invoice.currency)
    rest = excess - _given_as_excess(invoice)
    if last is None or rest.amount <= 0:
        return
    gift = Gift(
        kind=CreditKind.PREPAID,
        amount=rest.amount,
        reason=f"Paid before credit note {last.number} of invoice {invoice}"[:200],
        reference=_reference(invoice.pk, last.pk),
    )
    grant_credit(invoice.account_id, gift, now=now)


def _given_as_excess(invoice: Invoice) -> Money:
    given = CreditEntry.objects.filter(
        kind=CreditEntry.Kind.GRANT,
        grant__account=invoice.account_id,
        grant__reference__startswith=_reference(invoice.pk, ""),
    )
    return Money(given.aggregate(sum=Sum("amount"))["sum"] or Decimal(0), invoice.currency)


def _reference(invoice_id: int, note_id: int | str) -> str:
    return f"overpaid:{invoice_id}:{note_id}"


def _due() -> QuerySet[Invoice]:
    """Return invoices of which payments and notes are the amount due, or more, and not settled."""
    notes = CreditNote.objects.filter(invoice=OuterRef("pk"), off_due__gt=0).order_by()
    allocations = Allocation.objects.filter(invoice=OuterRef("pk")).order_by()
    credited = notes.values("invoice").annotate(sum=Sum("off_due")).values("sum")
    paid = allocations.values("invoice").annotate(sum=Sum("amount")).values("sum")
    newest = notes.order_by("-pk").values("pk")[:1]
    given = CreditGrant.objects.filter(
        account=OuterRef("account"),
        reference=Concat(
            Value("overpaid:"),
            Cast(OuterRef("pk"), CharField()),
            Value(":"),
            Cast(OuterRef("newest"), CharField()),
        ),
    )
    return (
        Invoice.objects.filter(Exists(notes), Exists(allocations))
        .annotate(covered=Subquery(credited) + Subquery(paid), newest=Subquery(newest))
        .filter(
            Q(covered__gte=F("amount_due"), status__in=UNPAID)
            | (Q(covered__gt=F("amount_due")) & ~Exists(given))
        )
        .order_by("pk")
    )
