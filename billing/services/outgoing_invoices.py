"""Writes the events of invoices, from the changes of state that billing keeps anyway.

The billing run writes those in bulk, and payments by the way; neither is slowed down by events.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import transaction
from django.db.models import CharField, Exists, OuterRef
from django.db.models.functions import Cast

from billing.lifecycle import InvoiceStatus
from billing.models import Event, EventType, Invoice, InvoiceTransition, MailCursor
from billing.money import Money
from billing.services.outgoing import Happening, emit_events

EVENTS_A_BATCH: Final = 1000
"""About half a second's work."""
OVERLAP: Final = timedelta(hours=2)
"""A change of an invoice may be committed that much later than it says it was made."""
TYPES: Final[Mapping[str, EventType]] = {
    InvoiceStatus.PENDING: EventType.INVOICE_FINALIZED,
    InvoiceStatus.PAID: EventType.INVOICE_PAID,
    InvoiceStatus.PAYMENT_FAILED: EventType.INVOICE_PAYMENT_FAILED,
}
_CURSOR: Final = "invoice events"


def write_invoice_events(now: datetime) -> bool:
    """Write the events of a batch of changes; return whether some may be left.

    Safe to repeat, and at once: an event is written once about a change, and none is passed over
    that is committed within two hours.
    """
    cursor, _ = MailCursor.objects.get_or_create(source=_CURSOR, defaults={"looked_until": now})
    told = Event.objects.filter(
        type__in=TYPES.values(), subject_key=Cast(OuterRef("pk"), CharField())
    )
    changes = list(
        InvoiceTransition.objects.filter(
            ~Exists(told), at__gte=cursor.looked_until, to_status__in=TYPES
        )
        .select_related("invoice")
        .order_by("at", "pk")[:EVENTS_A_BATCH]
    )
    with transaction.atomic():
        emit_events([_happening(change) for change in changes], now=now)
        if len(changes) < EVENTS_A_BATCH:
            # As with e-mails: never backwards, another sweep may have gone further.
            MailCursor.objects.filter(source=_CURSOR, looked_until__lt=now - OVERLAP).update(
                looked_until=now - OVERLAP
            )
    return len(changes) == EVENTS_A_BATCH


def _happening(change: InvoiceTransition) -> Happening:
    return Happening(
        account_id=change.invoice.account_id,
        event_type=TYPES[change.to_status],
        subject_key=str(change.pk),
        data={"at": time_text(change.at), "invoice": _invoice(change.invoice, change.to_status)},
    )


def _invoice(invoice: Invoice, status: str) -> dict[str, Any]:
    """Return what events say of an invoice; its figures stay from when it was made final."""

    def text(amount: Any) -> str:
        return Money(amount, invoice.currency).text

    return {
        "id": invoice.pk,
        "number": invoice.number,
        "kind": invoice.kind,
        "status": status,
        "period": {
            "start": time_text(invoice.period_start),
            "end": time_text(invoice.period_end),
        },
        "currency": invoice.currency,
        "total_amount": text(invoice.total_amount),
        "amount_due": text(invoice.amount_due),
    }


def time_text(moment: datetime) -> str:
    """Return a moment as events write it: RFC 3339, in UTC."""
    return moment.isoformat().replace("+00:00", "Z")
