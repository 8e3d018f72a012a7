"""What the clock does: find what is to be collected, and what waits for its next step."""

from __future__ import annotations

import logging
from datetime import datetime
from uuid import UUID

from django.db import OperationalError, connection

from payments.models import Collection
from payments.services.changed import take_back_changed
from payments.services.collecting import due
from payments.services.collections import (
    begin_collecting,
    due_collections,
    invoices_to_collect,
)
from payments.services.providing import is_set_up

logger = logging.getLogger(__name__)

INVOICES_A_SWEEP = 500
STEPS_A_SWEEP = 1000


def begin_due_collections(now: datetime) -> int:
    """Begin to collect what is due; return how many invoices were taken up.

    Safe to repeat. Without a provider nothing is, and the log says what is missing.
    """
    if not is_set_up():
        return 0
    take_back_changed(now)
    begun = 0
    for invoice_id in invoices_to_collect(most=INVOICES_A_SWEEP):
        try:
            begun += begin_collecting(invoice_id, now=now) is not None
        except OperationalError:
            # A lost connection or a held lock says nothing about the account.
            if not connection.is_usable():
                raise
            logger.warning("account is busy", exc_info=True, extra={"invoice_id": invoice_id})
    return begun


def due_steps(now: datetime) -> list[UUID]:
    """Return the collections whose next step is due, those that wait longest first."""
    return due(now, most=STEPS_A_SWEEP) if is_set_up() else []


def due_steps_of(account_id: UUID, now: datetime) -> list[UUID]:
    """Return those of one account, for a hint that they need not wait for the sweep."""
    rows = Collection.objects.filter(due_collections(now), account=account_id)
    return list(rows.values_list("pk", flat=True)) if is_set_up() else []
