"""Money that came another way than by the provider: what staff saw arrive at the bank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.db import transaction

from billing.history import BILLING_A_PERIOD
from billing.models import Account, Invoice
from billing.money import Money
from billing.outstanding import UNPAID
from billing.services import Because, lock_account
from payments.models import Payment
from payments.services.changed import take_back_of
from payments.services.receiving import Received, record_payment

MOST_CHARACTERS = 100
"""Of a bank's reference."""


class PaymentRefusedError(ValueError):
    """A payment cannot be recorded like this; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """Money as the bank's statement says it, in the account's currency.

    `reference` is the bank's own name for it, under which it is recorded once.
    """

    amount: Decimal
    reference: str
    received_at: datetime


def record_offline_payment(
    account_id: UUID,
    transfer: Transfer,
    *,
    invoice_ids: Sequence[int] | None = None,
    user_id: int | None,
    now: datetime,
) -> Payment:
    """Record money that came another way, and put it to invoices in order.

    To those named, else to the account's unpaid ones, the oldest first; an invoice of which
    nothing is owed any more is paid, and what is left becomes prepaid credit. What the provider
    asks for is taken back there where it changed. Safe to repeat under the reference. Raises
    PaymentRefusedError, Account.DoesNotExist.

    It is recorded while a card is being charged, too: the money is here, whether we write it down
    or not, and what the provider has begun cannot be called back. Should both arrive, the later
    one becomes credit.
    """
    with transaction.atomic():
        account = lock_account(account_id)
        amount = _checked(transfer, account.currency, now=now)
        reference = transfer.reference.strip()
        if found := Payment.objects.filter(account=account, reference=reference).first():
            if found.amount == amount.amount:
                return found
            raise PaymentRefusedError(
                f"reference {reference!r} is a payment of {Money(found.amount, found.currency)} "
                "already. Use the bank's own reference of this one."
            )
        received = Received(
            amount=amount,
            received_at=transfer.received_at,
            reference=reference,
            recorded_by_id=user_id,
        )
        because = Because(f"Paid another way: {reference}"[:200], user_id)
        invoices = _unpaid(account) if invoice_ids is None else _named(account, invoice_ids)
        payment, _ = record_payment(account, received, invoices, because=because, now=now)
        take_back_of(account, now=now)
    return payment


def _checked(transfer: Transfer, currency: str, *, now: datetime) -> Money:
    reference = transfer.reference.strip()
    if not reference or len(reference) > MOST_CHARACTERS:
        raise PaymentRefusedError(
            f"Give the bank's reference, of up to {MOST_CHARACTERS} characters."
        )
    if transfer.received_at > now:
        raise PaymentRefusedError(f"It is to come at {transfer.received_at}. Record it then.")
    if transfer.amount.is_finite() and transfer.amount > 0:
        amount = Money(transfer.amount, currency)
        if amount.times(Decimal(1)) == amount:
            return amount
    raise PaymentRefusedError(f"amount is {transfer.amount}. Use whole cents, above 0.")


def _unpaid(account: Account) -> list[Invoice]:
    unpaid = account.invoices.filter(status__in=UNPAID, kind__in=BILLING_A_PERIOD)
    return list(unpaid.order_by("finalised_at", "pk"))


def _named(account: Account, invoice_ids: Sequence[int]) -> list[Invoice]:
    by_key = account.invoices.in_bulk(list(invoice_ids))
    invoices = []
    for key in dict.fromkeys(invoice_ids):
        invoice = by_key.get(key)
        if invoice is None:
            raise PaymentRefusedError(f"Invoice {key} is not one of this account's.")
        if invoice.status not in UNPAID:
            raise PaymentRefusedError(
                f"Invoice {invoice} is {invoice.status}. Name invoices that are to be paid."
            )
        if invoice.kind not in BILLING_A_PERIOD:
            raise PaymentRefusedError(
                f"Invoice {invoice} is the provider's own, which collects it all the same. Say "
                "there that it was paid."
            )
        invoices.append(invoice)
    return invoices
