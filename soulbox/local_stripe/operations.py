"""Every operation that the server serves."""

from __future__ import annotations

from soulbox.local_stripe import (
    charges,
    customers,
    disputes,
    events,
    invoice_items,
    invoice_lines,
    invoices,
    paying,
    payment_methods,
    portal,
    prices,
    setup_intents,
    subscriptions,
)
from soulbox.local_stripe.world import Served

OPERATIONS: dict[str, Served] = {
    **charges.OPERATIONS,
    **customers.OPERATIONS,
    **disputes.OPERATIONS,
    **events.OPERATIONS,
    **invoice_items.OPERATIONS,
    **invoice_lines.OPERATIONS,
    **invoices.OPERATIONS,
    **paying.OPERATIONS,
    **payment_methods.OPERATIONS,
    **portal.OPERATIONS,
    **prices.OPERATIONS,
    **setup_intents.OPERATIONS,
    **subscriptions.OPERATIONS,
}
