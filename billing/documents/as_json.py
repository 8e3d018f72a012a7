"""An invoice as JSON, for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date
from decimal import Decimal
from typing import TypeAlias
from zoneinfo import ZoneInfo

from billing.documents.document import InvoiceDocument
from billing.money import Money

Json: TypeAlias = "str | int | bool | list[Json] | Mapping[str, Json] | None"


def invoice_json(document: InvoiceDocument) -> bytes:
    """Return all that the document holds, field by field under the same names.

    Amounts, rates and quantities are strings; the currency stands once, at the top. Times are in
    UTC, days are dates. Text is as it was given. The bytes are ASCII, so no reader of them has
    to guess an encoding, and half a surrogate pair does no harm.
    """
    content = {"currency": document.currency, **_fields(document)}
    return json.dumps(content, indent=2).encode("ascii") + b"\n"


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
