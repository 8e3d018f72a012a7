"""What of final invoices is still owed, and what of them can still be credited."""

from __future__ import annotations

from decimal import Decimal

from django.db.models import Case, DecimalField, F, OuterRef, QuerySet, Subquery, Sum, Value, When
from django.db.models.functions import Coalesce

from billing.credit_notes import Creditable, CreditNoteRefusedError, Figures
from billing.lifecycle import NOT_FINAL, InvoiceStatus
from billing.models import CreditNote, CreditNoteLine, Invoice
from billing.money import MOST_DECIMALS, Money
from billing.totals import Tax

UNPAID = (
    InvoiceStatus.PENDING,
    InvoiceStatus.PAYMENT_FAILED,
    InvoiceStatus.PENDING_RETRY,
    InvoiceStatus.UNCOLLECTIBLE,
)
"""An invoice in one of these is owed; what is written off is owed, and nobody collects it."""
_NONE = Decimal(0)


def outstanding(invoice: Invoice) -> Money:
    """Return what of the invoice is still owed: what is due, less what was credited of it."""
    if invoice.status not in UNPAID:
        return Money.zero(invoice.currency)
    credited = invoice.credit_notes.aggregate(sum=Sum("off_due"))["sum"] or _NONE
    return Money(invoice.amount_due - credited, invoice.currency)


def with_outstanding(invoices: QuerySet[Invoice]) -> QuerySet[Invoice]:
    """Return the invoices with what `outstanding` says of each as `outstanding`, a Decimal."""
    amount: DecimalField[Decimal, Decimal] = DecimalField(
        max_digits=20, decimal_places=MOST_DECIMALS
    )
    credited = (
        CreditNote.objects.filter(invoice=OuterRef("pk"))
        .order_by()
        .values("invoice")
        .annotate(sum=Sum("off_due"))
        .values("sum")
    )
    return invoices.annotate(
        outstanding=Case(
            When(
                status__in=UNPAID,
                then=F("amount_due") - Coalesce(Subquery(credited), Value(_NONE, amount)),
            ),
            default=Value(_NONE, amount),
            output_field=amount,
        )
    )


def creditable(invoice: Invoice) -> Creditable:
    """Return what of a final invoice can be credited still. Raises CreditNoteRefusedError."""
    if invoice.status in NOT_FINAL:
        raise CreditNoteRefusedError(f"{invoice} is {invoice.status}. Credit a final invoice.")
    if invoice.kind == Invoice.Kind.TOP_UP:
        # Its money is prepaid credit now, which would stay.
        raise CreditNoteRefusedError(
            f"{invoice} sold prepaid credit. Take the credit back instead."
        )
    so_far = invoice.credit_notes.aggregate(net=Sum("net"), tax=Sum("tax"))
    # Where a remainder below zero became credit, the tax is below zero too, and nothing was asked.
    tax = max(invoice.tax, _NONE)
    whole = Figures(
        Money(invoice.total_amount - tax, invoice.currency), Money(tax, invoice.currency)
    )
    credited = Figures(
        Money(so_far["net"] or _NONE, invoice.currency),
        Money(so_far["tax"] or _NONE, invoice.currency),
    )
    return Creditable(whole - credited, Tax(invoice.tax_rate, invoice.tax_is_inclusive))


def creditable_lines(invoice: Invoice) -> dict[int, Money]:
    """Return by line what of it can be credited still, of the lines that ask for something.

    A line's amount less its share of the discounts and what was credited of it before; all lines
    together may be more than can be credited of the invoice, where credit paid for them.
    """
    credited = dict(
        CreditNoteLine.objects.filter(credit_note__invoice=invoice, invoice_line__isnull=False)
        .order_by()
        .values_list("invoice_line")
        .annotate(Sum("amount"))
    )
    left = {
        line.pk: Money(line.amount - line.discount - credited.get(line.pk, _NONE), invoice.currency)
        for line in invoice.lines.filter(amount__gt=0)
    }
    return {pk: amount for pk, amount in left.items() if amount.amount > 0}
