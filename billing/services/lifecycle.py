"""What becomes of an invoice after it is final. Each change of state is recorded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction

from billing.lifecycle import InvoiceStatus, TransitionRefusedError, refuse_transition
from billing.models import Account, Correction, Invoice, InvoiceTransition
from billing.services.accounts import lock_account
from billing.services.credit_moves import refund_credits
from metering.log_lines import log_committed

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Because:
    """Who lets an invoice change its state, and why. No user: the system by itself."""

    reason: str
    user_id: int | None = None

    def __post_init__(self) -> None:
        if not self.reason.strip():
            raise TransitionRefusedError("Say why in reason.")


VoidGuard = Callable[[Invoice], str]
"""Says why an invoice cannot be voided, or "" where nothing is in the way of it."""

_void_guards: list[VoidGuard] = []


def register_void_guard(guard: VoidGuard) -> None:
    """Let `guard` be asked before an invoice is voided, or voided to be issued again.

    For what billing does not know, as that money is on its way for it. It is asked in the
    transaction, under the account's lock, and must not wait for anything. Safe to repeat.
    """
    if guard not in _void_guards:
        _void_guards.append(guard)


def mark_paid(invoice_id: int, *, because: Because, now: datetime) -> Invoice:
    """Note that nothing is due any more, whoever collected it.

    Safe to repeat: a paid invoice stays as it is. Raises TransitionRefusedError,
    Invoice.DoesNotExist.
    """
    return _move_to(InvoiceStatus.PAID, invoice_id, because=because, now=now)


def mark_payment_failed(invoice_id: int, *, because: Because, now: datetime) -> Invoice:
    """Note that a payment failed. Safe to repeat. Raises as `mark_paid`."""
    return _move_to(InvoiceStatus.PAYMENT_FAILED, invoice_id, because=because, now=now)


def retry_payment(invoice_id: int, *, because: Because, now: datetime) -> Invoice:
    """Ask for another try at a payment that failed. Safe to repeat. Raises as `mark_paid`."""
    return _move_to(InvoiceStatus.PENDING_RETRY, invoice_id, because=because, now=now)


def write_off(invoice_id: int, *, because: Because, now: datetime) -> Invoice:
    """Give up collecting an invoice; it may be paid all the same. Safe to repeat."""
    return _move_to(InvoiceStatus.UNCOLLECTIBLE, invoice_id, because=because, now=now)


def void_invoice(invoice_id: int, *, because: Because, now: datetime) -> Invoice:
    """Take an invoice back: it asks for nothing, and the credit it used is there again.

    Its number stays used. One whose remainder became credit was paid at once, and stays, as does
    one that is corrected, and one that a registered guard refuses. Safe to repeat. Raises
    TransitionRefusedError, CreditRefusedError, Invoice.DoesNotExist.
    """
    with _locked(invoice_id) as (account, invoice):
        if invoice.status == Invoice.Status.VOID:
            return invoice
        if made := invoice.corrections.exclude(status=Correction.Status.REJECTED).first():
            raise TransitionRefusedError(f"It is corrected: {made}, {made.status}.")
        if reason := next(filter(None, (guard(invoice) for guard in _void_guards)), ""):
            raise TransitionRefusedError(reason)
        record_transition(invoice, InvoiceStatus.VOID, because=because, now=now)
        if invoice.number:
            refund_credits(account, invoice, now=now)
        return invoice


def record_transition(
    invoice: Invoice, to: InvoiceStatus, *, because: Because, now: datetime
) -> None:
    """Let an invoice change its state, and write down when, by whom and why.

    The caller has locked the account. Raises TransitionRefusedError.
    """
    current = InvoiceStatus(invoice.status)
    refuse_transition(current, to)
    paid_at = now if to is InvoiceStatus.PAID else None
    # The account's lock keeps others away; the condition says so once more where money is.
    updated = Invoice.objects.filter(pk=invoice.pk, status=current).update(
        status=to, paid_at=paid_at
    )
    if not updated:
        raise TransitionRefusedError(f"Invoice {invoice} is not {current} any more. Look again.")
    InvoiceTransition.objects.create(
        invoice=invoice,
        from_status=current,
        to_status=to,
        by_id=because.user_id,
        reason=because.reason,
        at=now,
    )
    invoice.status, invoice.paid_at = to, paid_at
    log_committed(
        logger,
        f"invoice is {to}",
        invoice_id=invoice.pk,
        number=invoice.number,
        account_id=invoice.account_id,
        was=current.value,
        user_id=because.user_id,
    )


def _move_to(status: InvoiceStatus, invoice_id: int, *, because: Because, now: datetime) -> Invoice:
    with _locked(invoice_id) as (_, invoice):
        if invoice.status != status:
            record_transition(invoice, status, because=because, now=now)
        return invoice


@contextmanager
def _locked(invoice_id: int) -> Iterator[tuple[Account, Invoice]]:
    """Lock the invoice's account, and read the invoice under the lock."""
    account_id = Invoice.objects.values_list("account_id", flat=True).get(pk=invoice_id)
    with transaction.atomic():
        account = lock_account(account_id)
        yield account, Invoice.objects.get(pk=invoice_id)
