"""Invoices that nobody collects any more, here and at the provider."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction

from billing.models import Invoice
from billing.services import Because, lock_account, write_off
from payments.models import LIVE_COLLECTION, Collection
from payments.services.dunning import refresh_account


def write_off_invoice(invoice_id: int, *, because: Because, now: datetime) -> Invoice:
    """Write an invoice off, close its case, and have the provider told. Safe to repeat.

    It is owed still, and may be paid. Raises TransitionRefusedError, Invoice.DoesNotExist.
    """
    account_id = Invoice.objects.values_list("account_id", flat=True).get(pk=invoice_id)
    with transaction.atomic():
        lock_account(account_id)
        invoice = write_off(invoice_id, because=because, now=now)
        # Its next step tells the provider.
        Collection.objects.filter(
            LIVE_COLLECTION, parts__invoice=invoice, parts__is_live=True
        ).update(try_at=now)
        refresh_account(account_id, now=now)
    return invoice
