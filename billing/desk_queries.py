"""What the finance desk shows in sums. Currencies are never added up."""

from __future__ import annotations

from billing.lifecycle import InvoiceStatus

OUTSTANDING = (
    InvoiceStatus.PENDING,
    InvoiceStatus.PAYMENT_FAILED,
    InvoiceStatus.PENDING_RETRY,
)
"""An invoice in one of these still asks for its money."""
