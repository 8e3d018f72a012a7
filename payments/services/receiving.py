"""Money that came: recorded once, and every cent of it put to something."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from billing.credits import CreditKind
from billing.models import Account, Invoice, TopUp
from billing.money import Money
from billing.outstanding import UNPAID
from billing.services import Because, Gift, grant_credit, grant_top_up, mark_paid
from metering.log_lines import log_committed
from payments.models import Allocation, Payment
from payments.owed import owed

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Received:
    """Money that came, by the provider (its payment's id) or otherwise (the bank's reference)."""

    amount: Money
    received_at: datetime
    provider_id: str = ""
    charge_id: str = ""
    collection_id: UUID | None = None
    reference: str = ""
    recorded_by_id: int | None = None


def record_payment(
    account: Account,
    received: Received,
    targets: Sequence[Invoice | TopUp],
    *,
    because: Because,
    now: datetime,
) -> tuple[Payment, bool]:
    """Record a payment and put it to what it is for, in order; the rest becomes prepaid credit.

    Returns the payment, and whether it was new. The caller has locked the account. Safe to repeat
    under the provider's id or the reference.
    """
    if found := _find(account, received):
        return found, False
    payment = Payment.objects.create(
        account=account,
        method=Payment.Method.PROVIDER if received.provider_id else Payment.Method.OFFLINE,
        amount=received.amount.amount,
        currency=received.amount.currency,
        received_at=received.received_at,
        recorded_at=now,
        provider_id=received.provider_id or None,
        charge_id=received.charge_id,
        collection_id=received.collection_id,
        reference=received.reference,
        recorded_by_id=received.recorded_by_id,
    )
    log_committed(
        logger,
        "payment settled",
        payment_id=payment.pk,
        account_id=account.pk,
        amount=received.amount.text,
        currency=payment.currency,
        by=payment.method,
    )
    rest = received.amount
    for target in targets:
        if isinstance(target, TopUp):
            rest -= _pay_top_up(payment, target, rest, now=now)
        else:
            rest -= _pay_invoice(payment, target, rest, because=because, now=now)
    if rest:
        _give_credit(payment, rest, now=now)
    return payment, True


def close_if_paid(invoice_id: int, *, because: Because, now: datetime) -> bool:
    """Mark an invoice paid of which nothing is owed any more; return whether it was. Repeatable.

    The caller has locked the account.
    """
    invoice = Invoice.objects.get(pk=invoice_id)
    if invoice.status not in UNPAID or owed(invoice):
        return False
    mark_paid(invoice_id, because=because, now=now)
    return True


def _find(account: Account, received: Received) -> Payment | None:
    if received.provider_id:
        return Payment.objects.filter(provider_id=received.provider_id).first()
    return Payment.objects.filter(account=account, reference=received.reference).first()


def _pay_invoice(
    payment: Payment, invoice: Invoice, most: Money, *, because: Because, now: datetime
) -> Money:
    """Put as much of the payment to the invoice as it is owed; return how much."""
    # Its state may have changed since the caller read it.
    invoice.refresh_from_db(fields=["status"])
    due = owed(invoice)
    amount = min(due, most)
    if amount:
        Allocation.objects.create(payment=payment, invoice=invoice, amount=amount.amount)
        close_if_paid(invoice.pk, because=because, now=now)
    return amount


def _pay_top_up(payment: Payment, top_up: TopUp, most: Money, *, now: datetime) -> Money:
    """Grant a top-up that the payment suffices for; return how much of the payment it took."""
    top_up.refresh_from_db()
    price = Money(top_up.amount, payment.currency)
    if top_up.grant_id is not None or top_up.given_up_at is not None or most < price:
        return Money.zero(payment.currency)
    grant_top_up(top_up.pk, now=now)
    Allocation.objects.create(payment=payment, top_up=top_up, amount=price.amount)
    return price


def _give_credit(payment: Payment, amount: Money, *, now: datetime) -> None:
    gift = Gift(
        kind=CreditKind.PREPAID,
        amount=amount.amount,
        reason=f"Paid too much: {payment}"[:200],
        reference=f"payment:{payment.pk}",
    )
    grant = grant_credit(payment.account_id, gift, now=now)
    Allocation.objects.create(payment=payment, credit_grant=grant, amount=amount.amount)
