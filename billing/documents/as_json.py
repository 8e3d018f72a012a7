"""An invoice as JSON, for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date
from decimal import Decimal
from typing import Final, TypeAlias
from zoneinfo import ZoneInfo

from billing.documents.document import DocumentKind, InvoiceDocument
from billing.money import Money

# What only credit notes say, and what only invoices do.
_OF_CREDIT_NOTES: Final = ("credited_invoice",)
_OF_A_CREDIT_NOTE: Final = (
    "number",
    "kind",
    "issued_on",
    "credited_invoice",
    "period",
    "zone",
    "seller",
    "buyer",
    "tax",
    "tax_name",
    "notes",
)

Json: TypeAlias = "str | int | bool | list[Json] | Mapping[str, Json] | None"


def invoice_json(document: InvoiceDocument) -> bytes:
    """Return all that the document holds, field by field under the same names.

    Of a credit note that is its lines, and `net`, `tax` and `total` as its totals: it has nothing
    to be paid.

    Amounts, rates and quantities are strings; the currency stands once, at the top. Times are in
    UTC, days are dates. Text is as it was given. The bytes are ASCII, so no reader of them has
    to guess an encoding, and half a surrogate pair does no harm.
    """
    fields_of = _credit_note if document.kind is DocumentKind.CREDIT_NOTE else _invoice
    content = {"currency": document.currency, **fields_of(document)}
    return json.dumps(content, indent=2).encode("ascii") + b"\n"


def _invoice(document: InvoiceDocument) -> dict[str, Json]:
    told = _fields(document)
    return {name: value for name, value in told.items() if name not in _OF_CREDIT_NOTES}


def _credit_note(document: InvoiceDocument) -> dict[str, Json]:
    told, t = _fields(document), document.totals
    net = document.taxable - t.tax if document.tax.is_inclusive else document.taxable
    return {
        **{name: told[name] for name in _OF_A_CREDIT_NOTE},
        "lines": told["adjustments"],
        "totals": {"net": net.text, "tax": t.tax.text, "total": t.total_amount.text},
    }


def _fields(value: object) -> dict[str, Json]:
    if not is_dataclass(value):
        raise TypeError(f"A document has no field of {type(value)}.")
    return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}


def _plain(value: object) -> Json:
    plain: Json
    match value:
        case Money():
            plain = value.text
        case Decimal():
            plain = f"{value:f}"
        case ZoneInfo():
            plain = value.key
        case date():
            # Of a datetime, which is a date too, in UTC.
            plain = value.isoformat().replace("+00:00", "Z")
        case None | str() | int():
            plain = value
        case tuple():
            plain = [_plain(entry) for entry in value]
        case _:
            plain = _fields(value)
    return plain
