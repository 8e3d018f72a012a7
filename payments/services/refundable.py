"""How much of a payment can be given back, and how much prepaid credit goes with it.

What was paid became the payment of invoices, or prepaid credit: what was too much, a top-up, or
what credit notes made of it. Who is given money back for which there is credit has to lose the
credit, else they would have both.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.db.models import Q, QuerySet, Sum

from billing.models import Invoice
from billing.money import Money
from payments.models import Dispute, Payment, Refund
from payments.services.overpaid import given_of

COUNTING = ("proposed", "approved", "pending", "succeeded")
"""A refund in one of these has its amount, or is to have it."""
WITHDRAWN = ("open", "lost")
"""A dispute in one of these has its amount."""
_NONE = Decimal(0)


@dataclass(frozen=True, slots=True)
class Refundable:
    """What of a payment can be given back still, and what of that is prepaid credit by now."""

    amount: Money
    # That became prepaid credit, and no refund has taken back.
    credit: Money

    def least_credit(self, amount: Money) -> Money:
        """Return what a refund of `amount` has to take back, or the customer has it twice."""
        return max(amount - (self.amount - self.credit), Money.zero(amount.currency))

    def usual_credit(self, amount: Money) -> Money:
        """Return what a refund takes back unless a person says otherwise: credit comes first."""
        return min(amount, self.credit)


def refundable(payment: Payment) -> Refundable:
    """Return what of a payment can be given back. Its disputes and refunds count, open ones too."""
    amount = max(payment.amount - _gone(payment), _NONE)
    return Refundable(
        amount=Money(amount, payment.currency),
        credit=Money(min(_credit_left(payment), amount), payment.currency),
    )


def had_twice(payment: Payment) -> Money:
    """Return what went back of a payment, and is prepaid credit all the same."""
    rest = max(payment.amount - _gone(payment), _NONE)
    return Money(max(_credit_left(payment) - rest, _NONE), payment.currency)


def is_too_much(payment: Payment) -> bool:
    """Return whether refunds and disputes together are more than the payment."""
    paid: Decimal = payment.amount
    return _gone(payment) > paid


def _gone(payment: Payment) -> Decimal:
    withdrawn = payment.disputes.filter(status__in=WITHDRAWN)
    return _sum(refunds_counting(payment), "amount") + _sum(withdrawn, "amount")


def refunds_counting(payment: Payment) -> QuerySet[Refund]:
    """Return the refunds of a payment that happened or may happen yet."""
    return payment.refunds.filter(status__in=COUNTING)


def _credit_left(payment: Payment) -> Decimal:
    """Return what the payment became credit of, and no refund has taken back."""
    taken = _sum(refunds_counting(payment), "credit_taken")
    return max(_became_credit(payment) - taken, _NONE)


def _became_credit(payment: Payment) -> Decimal:
    bought = payment.allocations.filter(invoice__isnull=True)
    paid = payment.allocations.filter(invoice__isnull=False).select_related("invoice")
    return _sum(bought, "amount") + sum(
        (min(part.amount, _credit_of(part.invoice, payment)) for part in paid if part.invoice),
        start=_NONE,
    )


def _credit_of(invoice: Invoice, payment: Payment) -> Decimal:
    """Return what credit notes of an invoice made credit, less what others' refunds took of it."""
    of_others = Refund.objects.filter(
        ~Q(payment=payment),
        status__in=COUNTING,
        payment__in=Payment.objects.filter(allocations__invoice=invoice),
    )
    return max(given_of(invoice).amount - _sum(of_others, "credit_taken"), _NONE)


def _sum(rows: QuerySet[Any], column: str) -> Decimal:
    total: Decimal | None = rows.aggregate(sum=Sum(column))["sum"]
    return total or _NONE


def is_disputed(payment: Payment) -> bool:
    """Return whether its money is the bank's at the moment, or for good."""
    return payment.disputes.filter(status=Dispute.Status.OPEN).exists()
