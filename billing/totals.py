from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from billing.money import Money
from billing.rating import CostBreakdown


@dataclass(frozen=True, slots=True)
class InvoiceTotals:
    """The figures at the foot of an invoice, all in one currency and rounded."""

    subscription_fee: Money
    usage_fee: Money
    discounts: Money
    credits_used: Money
    tax: Money
    total_amount: Money


def add_up(*, subscription_fee: Money, usage: CostBreakdown, tax_rate: Decimal) -> InvoiceTotals:
    """Return an invoice's totals; the tax comes on top of what is left after credits.

    Raises ValueError on a negative tax rate.
    """
    if tax_rate < 0:
        raise ValueError(f"The tax rate is negative: {tax_rate}.")
    taxable = subscription_fee + usage.final_cost
    tax = Money.rounded(Fraction(taxable.amount) * Fraction(tax_rate), taxable.currency)
    return InvoiceTotals(
        subscription_fee=subscription_fee,
        usage_fee=usage.usage_fee,
        discounts=usage.total_discount,
        credits_used=usage.credits_used,
        tax=tax,
        total_amount=taxable + tax,
    )
