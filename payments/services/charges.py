"""Our invoices and top-ups as charges: what a provider's invoice is made from."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from decimal import Decimal

from billing.models import Invoice, TopUp
from billing.money import Money
from metering.period import Period
from payments.bill_lines import Charge, Item
from payments.models import Collection, CollectionPart
from payments.provider import Bill

_AN_INSTANT = timedelta(seconds=1)


def charges_of(collection: Collection) -> list[Charge]:
    """Return what a collection asks for."""
    parts = collection.parts.select_related("invoice", "top_up", "collection")
    return [_charge(part) for part in parts]


def bill_of(collection: Collection, *, customer_id: str, breakdown: dict[str, str]) -> Bill:
    """Return the provider's invoice to be made for a collection, without its lines."""
    names = [str(part) for part in collection.parts.select_related("invoice")]
    metadata = {
        **breakdown,
        "account_id": str(collection.account_id),
        "collection_id": str(collection.pk),
        "invoices": ", ".join(names)[:500],
        "asks_for": asks_for(collection),
    }
    return Bill(
        customer_id=customer_id,
        currency=collection.currency,
        description=f"Invoice {', '.join(names)}"[:500],
        metadata=metadata,
    )


def asks_for(collection: Collection) -> str:
    """Return a digest of what a collection asks for, by names that outlive a restored backup.

    Numbers and ids may be given again after that; kinds and periods of an account stay.
    """
    parts = collection.parts.select_related("invoice", "top_up")
    return hashlib.sha256("\n".join(sorted(map(_lasting_name, parts))).encode()).hexdigest()


def _lasting_name(part: CollectionPart) -> str:
    if part.invoice:
        period = part.invoice.period
        return f"{part.invoice.kind} {period.start.isoformat()} {period.end.isoformat()}"
    if part.top_up:
        return f"top-up {part.top_up.requested_at.isoformat()}"
    raise ValueError(f"Part {part.pk} is of nothing.")


def _charge(part: CollectionPart) -> Charge:
    owed = Money(part.amount, part.collection.currency)
    if part.top_up:
        return _of_top_up(part.top_up, owed)
    if part.invoice is None:
        raise ValueError(f"Part {part.pk} is of nothing.")
    return _of_invoice(part.invoice, owed)


def _of_invoice(invoice: Invoice, owed: Money) -> Charge:
    currency = invoice.currency
    off: list[tuple[str, Decimal]] = [
        ("Discounts", -invoice.discounts),
        ("Credits", -invoice.credits_used),
        (f"{invoice.tax_name or 'Tax'}", Decimal(0) if invoice.tax_is_inclusive else invoice.tax),
        ("Prepaid credit", -invoice.prepaid_used),
    ]
    return Charge(
        name=f"Invoice {invoice}",
        reference=str(invoice.number),
        period=invoice.period,
        items=[
            Item(line.description, line.meter, Money(line.amount, currency), line.period)
            for line in invoice.lines.all()
        ],
        off=[(name, Money(amount, currency)) for name, amount in off],
        owed=owed,
    )


def _of_top_up(top_up: TopUp, owed: Money) -> Charge:
    start = top_up.requested_at.replace(microsecond=0)
    period = Period(start, start + _AN_INSTANT)
    return Charge(
        name="Prepaid credit",
        reference=f"top-up:{top_up.pk}",
        period=period,
        items=[Item("Prepaid credit", "", owed, period)],
        off=[],
        owed=owed,
    )
