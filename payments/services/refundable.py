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
from payments.models import Allocation, Dispute, Payment, Refund
from payments.owed import paid_of
from payments.services.overpaid import given_of

COUNTING = ("proposed", "approved", "pending", "succeeded")
"""A refund in one of these has its amount, or is to have it."""
WITHDRAWN = ("open", "lost")
"""A dispute in one of these has its amount."""
_NONE = Decimal(0)


@dataclass(frozen=True, slots=True)
class Refundable:
    """What of a payment can be given back still."""

    amount: Money
    # So much prepaid credit came of the payment, and was not taken back.
    credit: Money
    # So much paid for what was invoiced, and can be given back without taking credit.
    without_credit: Money

    def least_credit(self, amount: Money) -> Money:
        """Return what a refund of `amount` has to take back, or the customer has it twice."""
        return max(amount - self.without_credit, Money.zero(amount.currency))

    def usual_credit(self, amount: Money) -> Money:
        """Return what a refund takes back unless a person says otherwise: credit comes first."""
        return max(min(amount, self.credit), self.least_credit(amount))


def refundable(payment: Payment) -> Refundable:
    """Return what of a payment can be given back. Its disputes and refunds count, open ones too."""
    currency = payment.currency
    amount = max(payment.amount - _gone(payment), _NONE)
    credit = _became_credit(payment) - _sum(refunds_counting(payment), "credit_taken")
    free = _paid_for_good(payment) - _uncredited([payment.pk])
    return Refundable(
        amount=Money(amount, currency),
        credit=Money(min(max(credit, _NONE), amount), currency),
        without_credit=Money(min(max(free, _NONE), amount), currency),
    )


def had_twice(payment: Payment) -> Money:
    """Return what went back of a payment, and became prepaid credit all the same."""
    twice = _uncredited([payment.pk]) - _paid_for_good(payment)
    return Money(max(twice, _NONE), payment.currency)


def is_too_much(payment: Payment) -> bool:
    """Return whether refunds and disputes together are more than the payment."""
    paid: Decimal = payment.amount
    return _gone(payment) > paid


def is_disputed(payment: Payment) -> bool:
    """Return whether the customer's bank has its money until it is decided."""
    return payment.disputes.filter(status=Dispute.Status.OPEN).exists()


def refunds_counting(payment: Payment) -> QuerySet[Refund]:
    """Return the refunds of a payment that happened or may happen yet."""
    return payment.refunds.filter(status__in=COUNTING)


def _gone(payment: Payment) -> Decimal:
    withdrawn = payment.disputes.filter(status__in=WITHDRAWN)
    return _sum(refunds_counting(payment), "amount") + _sum(withdrawn, "amount")


def _uncredited(payment_ids: list[int]) -> Decimal:
    """Return what went back of payments, or is to, without taking credit with it."""
    refunds = Refund.objects.filter(payment__in=payment_ids, status__in=COUNTING)
    withdrawn = Dispute.objects.filter(payment__in=payment_ids, status__in=WITHDRAWN)
    return _sum(refunds, "amount") - _sum(refunds, "credit_taken") + _sum(withdrawn, "amount")


def _became_credit(payment: Payment) -> Decimal:
    """Return how much credit came of a payment, of its invoices' notes as much as it can be."""
    bought = payment.allocations.filter(invoice__isnull=True)
    return _sum(bought, "amount") + sum(
        (
            min(part.amount, given_of(invoice).amount - _credit_taken_by_others(invoice, payment))
            for part, invoice in _paid(payment)
        ),
        start=_NONE,
    )


def _paid_for_good(payment: Payment) -> Decimal:
    """Return how much of a payment paid for what is invoiced still.

    Of an invoice that several payments paid, less what the others gave back of that.
    """
    total = _NONE
    for part, invoice in _paid(payment):
        others = _others(invoice, payment)
        kept = (paid_of(invoice) - given_of(invoice)).amount - _uncredited(others)
        total += min(part.amount, max(kept, _NONE))
    return total


def _credit_taken_by_others(invoice: Invoice, payment: Payment) -> Decimal:
    refunds = Refund.objects.filter(payment__in=_others(invoice, payment), status__in=COUNTING)
    return min(_sum(refunds, "credit_taken"), given_of(invoice).amount)


def _others(invoice: Invoice, payment: Payment) -> list[int]:
    others = Allocation.objects.filter(~Q(payment=payment), invoice=invoice)
    return list(others.values_list("payment", flat=True))


def _paid(payment: Payment) -> list[tuple[Allocation, Invoice]]:
    parts = payment.allocations.filter(invoice__isnull=False).select_related("invoice")
    return [(part, part.invoice) for part in parts if part.invoice]


def _sum(rows: QuerySet[Any], column: str) -> Decimal:
    total: Decimal | None = rows.aggregate(sum=Sum(column))["sum"]
    return total or _NONE
