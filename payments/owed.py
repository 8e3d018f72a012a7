"""What of invoices is still to be paid, once credit notes and what was paid are taken off."""

from __future__ import annotations

from decimal import Decimal
from uuid import UUID

from django.db.models import (
    Sum,
)

from billing.models import Invoice
from billing.money import Money
from billing.outstanding import UNPAID, outstanding
from payments.models import Allocation

_NONE = Decimal(0)


def paid_of(invoice: Invoice) -> Money:
    """Return what payments have paid of the invoice so far."""
    paid = Allocation.objects.filter(invoice=invoice).aggregate(sum=Sum("amount"))["sum"]
    return Money(paid or _NONE, invoice.currency)


def owed(invoice: Invoice) -> Money:
    """Return what is still to be paid of the invoice; nothing of a draft, void or paid one."""
    rest = outstanding(invoice) - paid_of(invoice)
    return rest if rest.amount > 0 else Money.zero(invoice.currency)


def owes(account_id: UUID) -> bool:
    """Return whether something is still to be paid of any of the account's final invoices."""
    unpaid = Invoice.objects.filter(account=account_id, status__in=UNPAID)
    return any(owed(invoice) for invoice in unpaid)
