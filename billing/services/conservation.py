"""Looks again and again at whether final invoices still add up, and keeps what does not."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Final

from billing.conservation_queries import conservation_of
from billing.models import Invoice, InvoiceMismatch

logger = logging.getLogger(__name__)

INVOICES_AT_A_TIME: Final = 500


def check_conservation(*, now: datetime, after: int | None) -> int | None:
    """Check the next final invoices in turn, from the one after `after` on; None: from the first.

    Returns the last one looked at, for the next call, or None when there is no other. What does
    not add up gets a row, and loses it when it does again. Safe to repeat.
    """
    final = Invoice.objects.filter(number__isnull=False, pk__gt=after or 0)
    keys = list(final.order_by("pk").values_list("pk", flat=True)[:INVOICES_AT_A_TIME])
    statements = conservation_of(keys, now=now)
    found = {
        key: "\n".join(statement.mismatches)
        for key, statement in statements.items()
        if not statement.holds
    }
    InvoiceMismatch.objects.filter(invoice__in=keys).exclude(invoice__in=found).delete()
    InvoiceMismatch.objects.bulk_create(
        [InvoiceMismatch(invoice_id=key, text=text, found_at=now) for key, text in found.items()],
        update_conflicts=True,
        unique_fields=["invoice"],
        update_fields=["text", "found_at"],
    )
    for key, text in found.items():
        logger.error("invoice does not add up", extra={"invoice_id": key, "mismatch": text})
    return keys[-1] if len(keys) == INVOICES_AT_A_TIME else None
