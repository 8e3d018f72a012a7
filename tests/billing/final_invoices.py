"""Final invoices written row by row, for tests of what is read from them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from billing.models import Account, Invoice, InvoiceEvidence, InvoiceLine, InvoiceLinePart
from billing.parties import as_json
from metering.meters import UNITS, Meter
from metering.period import WINDOW
from tests.billing import documents
from tests.billing.usage import AFTER_MAY, MAY, NOON

LINE = {
    "base_unit": "items",
    "unit": "items",
    "quantity": 1,
    "unit_size": 1,
    "period_start": MAY.start,
    "period_end": MAY.end,
}


@dataclass(frozen=True)
class Used:
    """What one life used of a line, in base units."""

    sandbox: str
    quantity: int
    closing: int | None = None
    opening: int | None = None


def line(kind: str, amount: str, description: str = "", **columns: Any) -> InvoiceLine:
    row = {**LINE, "kind": kind, "amount": Decimal(amount), "description": description or kind}
    return InvoiceLine(**{**row, **columns})


def usage_line(meter: Meter, quantity: int, amount: str, **columns: Any) -> InvoiceLine:
    unit = UNITS[meter]
    return line(
        "usage",
        amount,
        **{
            "meter": meter.value,
            "charge": "per_unit",
            "quantity": quantity,
            "base_unit": unit.stored,
            "unit": unit.shown,
            "unit_size": unit.size,
            **columns,
        },
    )


def draft_of(
    account: Account,
    lines: Sequence[tuple[InvoiceLine, Sequence[Used], Sequence[InvoiceLinePart]]],
    **figures: Any,
) -> Invoice:
    """Return a draft with these lines; each with the evidence and the parts it rests on."""
    invoice = Invoice.objects.create(
        **{
            "account": account,
            "currency": account.currency,
            "period_start": MAY.start,
            "period_end": MAY.end,
            "finalise_after": AFTER_MAY,
            "drafted_at": MAY.end,
            "computed_at": AFTER_MAY,
            **figures,
        }
    )
    for position, (row, used, parts) in enumerate(lines, start=1):
        row.invoice, row.position = invoice, position
        row.save()
        for number, part in enumerate(parts, start=1):
            part.line, part.position = row, number
            part.save()
        for number, one in enumerate(used, start=1):
            InvoiceEvidence.objects.create(
                line=row,
                sandbox_id=one.sandbox,
                life_id=number,
                container_id=f"container of {one.sandbox}",
                started_at=NOON,
                window_count=2,
                first_window=NOON,
                last_window=NOON + WINDOW,
                sample_count=600,
                quantity=one.quantity,
                opening=one.opening,
                closing=one.closing,
                applied_ms=1_800_000,
                measured_ms=1_350_000,
                records_hash="0" * 64,
            )
    return invoice


def issue(invoice: Invoice, *, number: str = "2026-000001", **columns: Any) -> Invoice:
    """Give a draft its number, with the parties of the documents' tests, and seal its evidence."""
    evidence = InvoiceEvidence.objects.filter(line__invoice=invoice).order_by("pk")
    hashes = "\n".join(evidence.values_list("records_hash", flat=True))
    values = {
        "number": number,
        "status": "pending",
        "finalised_at": AFTER_MAY,
        "issued_on": date(2026, 6, 1),
        "due_on": date(2026, 6, 1) + timedelta(days=14),
        "seller": as_json(documents.SELLER),
        "buyer": as_json(documents.BUYER),
        "tax_name": "VAT",
        "payment_terms": "By bank transfer.",
        "time_zone": "UTC",
        "anchor_day": 1,
        "evidence_hash": hashlib.sha256(hashes.encode()).hexdigest() if hashes else "",
        **columns,
    }
    Invoice.objects.filter(pk=invoice.pk).update(**values)
    invoice.refresh_from_db()
    return invoice
