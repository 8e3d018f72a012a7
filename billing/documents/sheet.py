"""An invoice's lines as CSV, for spreadsheets."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import datetime
from io import StringIO
from typing import Final

from billing.documents.document import DocumentKind, InvoiceDocument
from billing.documents.text import visible_text

COLUMNS: Final = (
    "invoice",
    "kind",
    "meter",
    "description",
    "start",
    "end",
    "quantity",
    "unit",
    "unit_price",
    "discount",
    "amount",
    "currency",
)
CREDIT_NOTE_COLUMNS: Final = (
    "credit_note",
    "invoice",
    "description",
    "start",
    "end",
    "amount",
    "currency",
)

# What a spreadsheet takes for the beginning of a formula, full-width forms included.
_FORMULA_STARTS: Final = tuple("=+-@\t\r\n＝＋－＠")


def lines_csv(document: InvoiceDocument) -> bytes:
    """Return the lines, a row each, by RFC 4180 in UTF-8.

    Times are in UTC; a span's end is not part of it. A cell of text that a spreadsheet would take
    for a formula begins with an apostrophe. Figures are plain decimals, also below zero; of a
    credit note, whose columns are others, they are above zero where something is taken back.
    """
    sheet = StringIO(newline="")
    writer = csv.writer(sheet, lineterminator="\r\n")
    if document.kind is DocumentKind.CREDIT_NOTE:
        writer.writerow(CREDIT_NOTE_COLUMNS)
        writer.writerows(_credited(document))
    else:
        writer.writerow(COLUMNS)
        writer.writerows(_rows(document))
    # With a byte order mark: without one Excel, which is what most of these are opened with,
    # takes the file for the machine's old code page and spoils every name beyond ASCII.
    return sheet.getvalue().encode("utf-8-sig")


def _rows(document: InvoiceDocument) -> Iterator[tuple[str, ...]]:
    invoice, currency = text_cell(document.number or "DRAFT"), document.currency
    for fee in document.fees:
        span = _time(fee.period.start), _time(fee.period.end)
        description, amount = text_cell(fee.description), fee.amount.text
        yield (invoice, fee.kind, "", description, *span, "", "", "", "", amount, currency)
    for group in document.meters:
        for line in group.lines:
            yield (
                invoice,
                "usage",
                text_cell(group.meter),
                text_cell(line.description),
                _time(line.period.start),
                _time(line.period.end),
                line.quantity,
                text_cell(group.unit),
                line.unit_price or "",
                line.discount.text,
                line.amount.text,
                currency,
            )
    for entry in document.adjustments:
        about = entry.period or document.period
        times = _time(about.start), _time(about.end)
        name, amount = text_cell(entry.description), entry.amount.text
        yield (invoice, "adjustment", "", name, *times, "", "", "", "", amount, currency)
    for bought in document.top_ups:
        times = _time(document.period.start), _time(document.period.end)
        name, amount = text_cell(bought.description), bought.amount.text
        yield (invoice, "top_up", "", name, *times, "", "", "", "", amount, currency)


def _credited(document: InvoiceDocument) -> Iterator[tuple[str, ...]]:
    note = text_cell(document.number or "")
    of = text_cell(document.credited_invoice.number) if document.credited_invoice else ""
    for entry in document.adjustments:
        about = entry.period or document.period
        times = _time(about.start), _time(about.end)
        name, amount = text_cell(entry.description), entry.amount.text
        yield (note, of, name, *times, amount, document.currency)


def text_cell(text: str) -> str:
    """Return text as a cell that no spreadsheet takes for a formula: an apostrophe comes first."""
    shown = visible_text(text)
    return f"'{shown}" if shown.startswith(_FORMULA_STARTS) else shown


def _time(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
