"""A credit note's document, put together from its rows and those of the invoice it corrects.

All of them are frozen, so it is the same each time.
"""

from __future__ import annotations

from collections.abc import Iterator

from django.conf import settings

from billing.documents.document import Adjustment, CreditedInvoice, DocumentKind, InvoiceDocument
from billing.invoice_documents import issued_on_of, parties_of, zone_of
from billing.lifecycle import InvoiceStatus
from billing.models import CreditNote
from billing.money import Money
from billing.queries import one_snapshot
from billing.totals import InvoiceTotals, Tax
from metering.period import Period

PARTIES_OF_NOW = (
    "The invoice was issued before names and addresses were kept with it. They are those of the "
    "day on which this copy was made."
)


def credit_note_document(note_id: int) -> InvoiceDocument:
    """Return the credit note as a document: the same each time.

    Its lines are adjustments, above zero what is taken back; seller, buyer and tax are those of
    the invoice. Raises CreditNote.DoesNotExist; ValueError where its rows do not add up.
    """
    with one_snapshot():
        return _document_of(CreditNote.objects.select_related("invoice__account").get(pk=note_id))


def _document_of(note: CreditNote) -> InvoiceDocument:
    invoice = note.invoice
    seller, buyer = parties_of(invoice)
    return InvoiceDocument(
        number=note.number,
        kind=DocumentKind.CREDIT_NOTE,
        # Nothing of it waits to be paid.
        status=InvoiceStatus.PAID,
        period=invoice.period,
        zone=zone_of(invoice),
        seller=seller,
        buyer=buyer,
        totals=_totals(note),
        tax=Tax(invoice.tax_rate, invoice.tax_is_inclusive),
        tax_name=invoice.tax_name or settings.SELLER_TAX_NAME,
        issued_on=note.issued_on,
        adjustments=tuple(
            Adjustment(
                line.description,
                Money(line.amount, note.currency),
                Period(line.period_start, line.period_end),
            )
            for line in note.lines.order_by("position")
        ),
        notes=tuple(_notes(note)),
        credited_invoice=CreditedInvoice(
            number=str(invoice),
            issued_on=issued_on_of(invoice),
            reason=note.reason,
            off_due=Money(note.off_due, note.currency),
            as_credit=Money(note.as_credit, note.currency),
        ),
    )


def _totals(note: CreditNote) -> InvoiceTotals:
    net, tax, total = (Money(amount, note.currency) for amount in (note.net, note.tax, note.total))
    nothing = Money.zero(note.currency)
    return InvoiceTotals(
        subscription_fee=nothing,
        usage_fee=nothing,
        discounts=nothing,
        credits_used=nothing,
        adjustments=total if note.invoice.tax_is_inclusive else net,
        tax=tax,
        credited=nothing,
        total_amount=total,
        prepaid_used=nothing,
        amount_due=total,
    )


def _notes(note: CreditNote) -> Iterator[str]:
    yield f"Reason: {note.reason}"
    if note.off_due:
        off_due = Money(note.off_due, note.currency)
        yield f"{off_due} are taken off what is owed of invoice {note.invoice}."
    if note.as_credit:
        as_credit = Money(note.as_credit, note.currency)
        yield f"{as_credit} became prepaid credit, which pays later invoices."
    if not note.invoice.buyer:
        yield PARTIES_OF_NOW
