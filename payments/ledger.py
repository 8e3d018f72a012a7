"""The ledger of payments: what came, what went back, and what the banks took back."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from django.db.models import QuerySet, Sum

from billing.money import Money
from payments.models import Dispute, Payment, Refund

WENT_BACK = (Refund.Status.PENDING, Refund.Status.SUCCEEDED)
"""The provider takes a refund's money off when it is asked for, before it has arrived."""
WITHDRAWN = (Dispute.Status.OPEN, Dispute.Status.LOST)


@dataclass(frozen=True, slots=True)
class Balance:
    """What came, went back and was taken back in one currency, each at or above zero."""

    received: Money
    refunded: Money
    disputed: Money

    @property
    def balance(self) -> Money:
        """Return what is left of it, before the provider's fees."""
        return self.received - self.refunded - self.disputed


def balances(method: Payment.Method) -> dict[str, Balance]:
    """Return by currency the money that came by the provider, or another way."""
    received = _sums(Payment.objects.filter(method=method), "currency")
    refunded = _sums(
        Refund.objects.filter(payment__method=method, status__in=WENT_BACK), "payment__currency"
    )
    disputed = _sums(
        Dispute.objects.filter(payment__method=method, status__in=WITHDRAWN), "payment__currency"
    )
    return {
        currency: Balance(
            received=Money(amount, currency),
            refunded=Money(refunded.get(currency, Decimal(0)), currency),
            disputed=Money(disputed.get(currency, Decimal(0)), currency),
        )
        for currency, amount in sorted(received.items())
    }


def _sums(
    rows: QuerySet[Payment] | QuerySet[Refund] | QuerySet[Dispute], currency: str
) -> dict[str, Decimal]:
    return dict(rows.order_by().values_list(currency).annotate(Sum("amount")))
