"""Voiding invoices that are being collected: at the provider first, so that nobody can pay them."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol
from uuid import UUID

from django.db import transaction

from billing import services
from billing.lifecycle import InvoiceStatus, TransitionRefusedError, refuse_transition
from billing.models import Invoice
from billing.services import Because, lock_account
from payments.models import Collection, CollectionPart, PaymentAttempt
from payments.owed import paid_of
from payments.provider import ProviderError
from payments.services.anew import collect_anew
from payments.services.collecting import take_step
from payments.services.collections import take_back

MOST_ROUNDS = 3
"""A sweep may begin to collect it anew, in the moment between; it is taken back so often."""
MOST_STEPS = 6
"""Of a collection that is taken back: two, and what it needed before."""
UNDER_WAY = "A payment of it is under way. Try again in a minute."
Try = PaymentAttempt.Status


class _Take(Protocol):
    def __call__(self, invoice_id: int, /, *, because: Because, now: datetime) -> Invoice: ...


def void_invoice(invoice_id: int, *, because: Because, now: datetime) -> Invoice:
    """Void an invoice, and what the provider asks for it.

    Refused when money came for it, or a payment is under way; if it was paid in this moment, it
    is paid. Safe to repeat: what was begun is gone on with. Raises TransitionRefusedError,
    CreditRefusedError, Invoice.DoesNotExist.
    """
    return _take(services.void_invoice, invoice_id, because=because, now=now)


def reissue_invoice(invoice_id: int, *, because: Because, now: datetime) -> Invoice:
    """Void an invoice as `void_invoice`, and issue another for its period at once.

    Raises as `void_invoice`, and UsageNotKeptError.
    """
    return _take(services.reissue_invoice, invoice_id, because=because, now=now)


def why_not_void(invoice: Invoice) -> str:
    """Return why an invoice cannot be voided now, as far as payments knows; empty: it can."""
    if reason := _money_of(invoice):
        return reason
    part = _live_part(invoice)
    if part is None:
        return ""
    return f"It is being collected. {part.collection.waiting_for or 'Try again in a minute.'}"


def _money_of(invoice: Invoice) -> str:
    """Return why it is too late: money came, or may be coming in this moment."""
    if paid := paid_of(invoice):
        return f"{paid} of it were paid. Write a credit note instead."
    part = _live_part(invoice)
    asked = part and part.collection.attempts.filter(status__in=[Try.UNKNOWN, Try.PROCESSING])
    return UNDER_WAY if asked else ""


def _live_part(invoice: Invoice) -> CollectionPart | None:
    return CollectionPart.objects.filter(invoice=invoice, is_live=True).first()


def _take(take: _Take, invoice_id: int, *, because: Because, now: datetime) -> Invoice:
    try:
        for _ in range(MOST_ROUNDS):
            collection_id = _begin(invoice_id, because=because, now=now)
            if collection_id is None:
                break
            _take_back(collection_id, now=now)
    except ProviderError as error:
        raise TransitionRefusedError(f"It is not void at the provider: {error}") from error
    # Asked under the account's lock, the guard says what stands in the way still.
    return take(invoice_id, because=because, now=now)


def _begin(invoice_id: int, *, because: Because, now: datetime) -> UUID | None:
    """Have the invoice's collection taken back; return it, None when there is none."""
    account_id = Invoice.objects.values_list("account_id", flat=True).get(pk=invoice_id)
    with transaction.atomic():
        lock_account(account_id)
        invoice = Invoice.objects.get(pk=invoice_id)
        part = _live_part(invoice)
        if part is None or invoice.status == InvoiceStatus.VOID:
            return None
        # Before anything is done at the provider.
        refuse_transition(InvoiceStatus(invoice.status), InvoiceStatus.VOID)
        if reason := _money_of(invoice):
            raise TransitionRefusedError(reason)
        take_back(part.collection, reason=f"Void: {because.reason}", now=now)
        return part.collection_id


def _take_back(collection_id: UUID, *, now: datetime) -> None:
    for _ in range(MOST_STEPS):
        if not take_step(collection_id, now=now):
            break
    if Collection.objects.filter(pk=collection_id, status=Collection.Status.REFUSED).exists():
        collect_anew(collection_id, now=now)
