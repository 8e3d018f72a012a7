"""What payments does when an account is closed: money that is left goes back, sandboxes stop."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from django.conf import settings

from billing.models import Account
from billing.money import Money
from billing.services.top_ups import prepaid_balance
from payments.models import Payment, PlatformRequest, Refund
from payments.services.platform_requests import ask_platform
from payments.services.refundable import is_disputed, refundable
from payments.services.refunds import Proposal, RefundRefusedError, propose_refund

REFERENCE = "account-closed"
"""Under it a payment is refunded once, whatever becomes of that."""
REASON = "The account is closed"
_UNDER_WAY = (Refund.Status.APPROVED, Refund.Status.PENDING)


def stop_sandboxes(account: Account, reason: str, now: datetime) -> None:
    """Have the platform asked to stop the account's sandboxes. The account is locked."""
    ask_platform(account, PlatformRequest.Action.STOP, reason=reason, now=now)


def refund_prepaid(account: Account, now: datetime) -> str:
    """Refund the prepaid credit that payments became, the newest payment first, each once.

    Above REFUND_APPROVAL_THRESHOLD in all, each waits for a second person. Returns what is waited
    for, "" for nothing. The account is locked. Safe to repeat.
    """
    if waiting_for := _waiting_for(account):
        return waiting_for
    parts = list(_parts(account))
    total = sum((part.amount for _, part in parts), start=0)
    for payment, part in parts:
        proposal = Proposal(
            amount=part.amount,
            credit=part.amount,
            reason=REASON,
            reference=REFERENCE,
            needs_approval=total > settings.REFUND_APPROVAL_THRESHOLD,
        )
        try:
            propose_refund(payment.pk, proposal, now=now)
        except RefundRefusedError as error:
            return f"Payment {payment} cannot be refunded by itself: {error}"
    return _waiting_for(account)


def _parts(account: Account) -> Iterator[tuple[Payment, Money]]:
    """Yield which payments give back how much of what is left."""
    left = Money(prepaid_balance(account), account.currency)
    payments = Payment.objects.filter(account=account).exclude(refunds__reference=REFERENCE)
    for payment in payments.order_by("-pk"):
        if left.amount <= 0:
            return
        if not is_disputed(payment) and (part := min(refundable(payment).credit, left)):
            yield payment, part
            left -= part


def _waiting_for(account: Account) -> str:
    refunds = Refund.objects.filter(payment__account=account, reference=REFERENCE)
    if refunds.filter(status=Refund.Status.PROPOSED).exists():
        return "A refund of prepaid credit waits to be approved."
    if refunds.filter(status__in=_UNDER_WAY).exists():
        return "A refund of prepaid credit is under way."
    return ""
