"""The provider's own invoices of fees: mirrored here, with the money that came for them."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction

from billing.lifecycle import InvoiceStatus
from billing.models import Account, Invoice
from billing.money import Money
from billing.services import (
    Because,
    MirroredInvoice,
    MirroredLine,
    MirrorRefusedError,
    lock_account,
    mirror_invoice,
    void_invoice,
    write_off,
)
from metering.period import Period
from payments.models import Difference, FeeSubscription
from payments.provider import BillStatus, ProviderBill, ProviderPayment
from payments.services.differences import Found, note_difference
from payments.services.provider_subscriptions import fee_subscription_of
from payments.services.providing import provider
from payments.services.receiving import Received, record_payment

BY_PROVIDER = Because("As at the provider")


def take_fee_bill(bill: ProviderBill, *, now: datetime) -> bool:
    """Take over how a provider's own invoice stands; return whether it is of an account of ours.

    It is mirrored once it is final, and what came for it is recorded. Safe to repeat, in any
    order: what counts is how it stands there now. Raises ProviderError.
    """
    if not bill.subscription_id:
        return False
    fees = fee_subscription_of(provider().subscription(bill.subscription_id))
    if fees is None:
        return False
    if bill.status in {BillStatus.DRAFT, BillStatus.DELETED} or not bill.total:
        return True
    payments = [
        provider().payment(payment.payment_id)
        for payment in bill.payments
        if payment.is_paid and payment.payment_id
    ]
    with transaction.atomic():
        account = lock_account(fees.account_id)
        invoice = _mirror(fees, bill, now=now)
        for payment in payments:
            _record(account, payment, invoice, bill, now=now)
        if invoice:
            _follow(invoice, bill, now=now)
    return True


def _mirror(fees: FeeSubscription, bill: ProviderBill, *, now: datetime) -> Invoice | None:
    """Return the copy of a provider's invoice; None, and a difference, when it is not to be."""
    came = Money.total((payment.amount for payment in bill.payments), bill.total.currency)
    mirrored = MirroredInvoice(
        number=bill.number,
        period=_span(bill),
        lines=[
            MirroredLine(line.description, line.period, line.amount, line.price_id)
            for line in bill.lines
        ],
        tax=bill.tax,
        total=bill.total,
        # Without a payment it was paid out of a balance there.
        is_paid=bill.status is BillStatus.PAID and not came,
    )
    try:
        with transaction.atomic():
            return mirror_invoice(fees.account_id, mirrored, now=now)
    except MirrorRefusedError as error:
        note_difference(
            Found(
                kind=Difference.Kind.INVOICE_ONLY_THERE,
                subject=bill.id,
                account_id=fees.account_id,
                ours=f"It is not mirrored: {error}",
                theirs=f"Invoice {bill.number} of {bill.total} is {bill.status}",
                proposed_action="What was paid of it is prepaid credit here. Give it back there, "
                "or let the account keep the credit.",
            ),
            now=now,
        )
        return None


def _record(
    account: Account,
    payment: ProviderPayment,
    invoice: Invoice | None,
    bill: ProviderBill,
    *,
    now: datetime,
) -> None:
    received = Received(
        amount=payment.received,
        received_at=payment.paid_at or payment.created_at,
        provider_id=payment.id,
        charge_id=payment.charge_id,
    )
    because = Because(f"Paid at the provider, invoice {bill.number}")
    targets = [invoice] if invoice else []
    record_payment(account, received, targets, because=because, now=now)


def _follow(invoice: Invoice, bill: ProviderBill, *, now: datetime) -> None:
    """Let the copy end as the original did. A try that failed there is the provider's to repeat."""
    invoice.refresh_from_db(fields=["status"])
    if invoice.status != InvoiceStatus.PENDING:
        return
    if bill.status is BillStatus.VOID:
        void_invoice(invoice.pk, because=BY_PROVIDER, now=now)
    elif bill.status is BillStatus.UNCOLLECTIBLE:
        write_off(invoice.pk, because=BY_PROVIDER, now=now)


def _span(bill: ProviderBill) -> Period:
    return Period(
        min(line.period.start for line in bill.lines), max(line.period.end for line in bill.lines)
    )
