"""Makes the files that customers are given of their invoices, once, and keeps them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from billing.credit_note_documents import credit_note_document
from billing.documents.as_json import invoice_json
from billing.documents.document import InvoiceDocument
from billing.documents.pdf import render_pdf
from billing.documents.sheet import lines_csv
from billing.history import BILLING_A_PERIOD
from billing.invoice_days import rows_of_days
from billing.invoice_documents import document_of, edition_of, edition_of_document, zone_of
from billing.models import Invoice, InvoiceDays, InvoiceFile

DAYS_AT_A_TIME: Final = 200
"""So many invoices' days are reckoned in one go: some 6,000 days."""
DAYS_WITHIN: Final = timedelta(days=45)
"""So long after an invoice became final its days are still looked for; usage is kept twice that."""

_CONTENT_TYPES: Final = {
    InvoiceFile.Format.PDF: "application/pdf",
    InvoiceFile.Format.CSV: "text/csv; charset=utf-8",
    InvoiceFile.Format.JSON: "application/json",
}
_RENDERERS: Final[dict[str, Callable[[InvoiceDocument], bytes]]] = {
    InvoiceFile.Format.PDF: render_pdf,
    InvoiceFile.Format.CSV: lines_csv,
    InvoiceFile.Format.JSON: invoice_json,
}

# A provider's number is text from outside, and this one goes into a header.
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True, slots=True)
class RenderedInvoice:
    """An invoice or a credit note in one format: its bytes, what they are, and a name of ASCII."""

    content: bytes
    content_type: str
    name: str


def invoice_file(invoice_id: int, *, format: InvoiceFile.Format, now: datetime) -> RenderedInvoice:  # noqa: A002 - what customers call it
    """Return an invoice as a file. What a final invoice was given out as once, it stays.

    Safe to repeat: a final invoice's file is made once and the same bytes are returned from then
    on. A draft's is made anew each time and not kept. One that was paid since gets a file that
    says so, as does a void one; the one before is kept beside it. Raises Invoice.DoesNotExist;
    ValueError where its rows do not add up; RenderedBeforeForkError.
    """
    invoice = Invoice.objects.get(pk=invoice_id)
    if invoice.number:
        content = _kept(invoice_id, format, edition_of(invoice))
        content = content or _make(invoice_id, format, now)
    else:
        content = _RENDERERS[format](document_of(invoice_id))
    name = f"invoice-{invoice.number or f'draft-{invoice_id}'}.{format}"
    return RenderedInvoice(content, _CONTENT_TYPES[format], _UNSAFE.sub("_", name))


def invoice_pdf(invoice_id: int, *, now: datetime) -> RenderedInvoice:
    """Return an invoice as PDF; see `invoice_file`."""
    return invoice_file(invoice_id, format=InvoiceFile.Format.PDF, now=now)


def credit_note_file(note_id: int, *, format: InvoiceFile.Format) -> RenderedInvoice:  # noqa: A002 - as above
    """Return a credit note as a file, made anew each time from rows that do not change.

    Raises CreditNote.DoesNotExist; ValueError where its rows do not add up;
    RenderedBeforeForkError.
    """
    document = credit_note_document(note_id)
    content = _RENDERERS[format](document)
    name = _UNSAFE.sub("_", f"credit-note-{document.number}.{format}")
    return RenderedInvoice(content, _CONTENT_TYPES[format], name)


def keep_invoice_days(now: datetime) -> int:
    """Keep what each day's usage cost of final invoices that lack it; return of how many.

    The next invoices in turn, a bounded number: call it until it returns 0. Safe to repeat. What
    is kept does not depend on when: the usage is frozen.
    """
    missing = (
        Invoice.objects.filter(
            kind__in=BILLING_A_PERIOD,
            number__isnull=False,
            finalised_at__gte=now - DAYS_WITHIN,
            days__isnull=True,
        )
        .select_related("account")
        .order_by("pk")[:DAYS_AT_A_TIME]
    )
    rows = rows_of_days([(invoice, zone_of(invoice)) for invoice in missing])
    # Somebody may have asked for a document in between, which keeps the same.
    InvoiceDays.objects.bulk_create(rows, ignore_conflicts=True)
    return len(rows)


def _kept(invoice_id: int, format: str, edition: str) -> bytes | None:  # noqa: A002 - as above
    """Return the file's bytes. Raises ValueError where they are not what was written."""
    row = InvoiceFile.objects.filter(invoice_id=invoice_id, format=format, edition=edition).first()
    if row is None:
        return None
    content = bytes(row.content)
    if hashlib.sha256(content).hexdigest() != row.sha256:
        raise ValueError(f"The {format} of invoice {invoice_id} is not what was written.")
    return content


def _make(invoice_id: int, format: InvoiceFile.Format, now: datetime) -> bytes:  # noqa: A002 - as above
    """Make the file and keep it; where another worker was quicker, return what that one made."""
    document = document_of(invoice_id)
    content = _RENDERERS[format](document)
    # The invoice may have been paid or voided a moment ago: what it became is what the document
    # says.
    edition = edition_of_document(document)
    row = InvoiceFile(
        invoice_id=invoice_id,
        format=format,
        edition=edition,
        content=content,
        sha256=hashlib.sha256(content).hexdigest(),
        rendered_at=now,
    )
    InvoiceFile.objects.bulk_create([row], ignore_conflicts=True)
    return _kept(invoice_id, format, edition) or content
