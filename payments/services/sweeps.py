"""What the clock does: find what is to be collected, and what waits for its next step."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from payments.models import Collection
from payments.services.changed import take_back_changed
from payments.services.collecting import due
from payments.services.collections import (
    begin_collecting,
    due_collections,
    invoices_to_collect,
)
from payments.services.one_by_one import try_each
from payments.services.providing import is_set_up

INVOICES_A_SWEEP = 500
STEPS_A_SWEEP = 1000


def begin_due_collections(now: datetime) -> int:
    """Begin to collect what is due; return how many invoices were taken up.

    Safe to repeat. One that fails stops only itself. Without a provider nothing is.
    """
    if not is_set_up():
        return 0
    take_back_changed(now)
    begun = 0

    def begin(invoice_id: int) -> None:
        nonlocal begun
        begun += begin_collecting(invoice_id, now=now) is not None

    try_each(invoices_to_collect(most=INVOICES_A_SWEEP), begin)
    return begun


def due_steps(now: datetime) -> list[UUID]:
    """Return the collections whose next step is due, those that wait longest first."""
    return due(now, most=STEPS_A_SWEEP) if is_set_up() else []


def due_steps_of(account_id: UUID, now: datetime) -> list[UUID]:
    """Return those of one account, for a hint that they need not wait for the sweep."""
    rows = Collection.objects.filter(due_collections(now), account=account_id)
    return list(rows.values_list("pk", flat=True)) if is_set_up() else []
