from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from billing.money import Money


class NegativeTotalError(Exception):
    """An invoice came out below zero, and no correction or credited fee explains it."""


@dataclass(frozen=True, slots=True)
class Tax:
    """An account's tax rate, and whether its prices contain the tax.

    Raises ValueError when the rate is no fraction of one.
    """

    rate: Decimal = Decimal(0)
    is_inclusive: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise ValueError(f"The tax rate is {self.rate}. Use a fraction: 0.19 for 19 %.")

    def on(self, taxable: Money) -> Money:
        """Return the tax on `taxable`, or the tax that is part of it, rounded once."""
        rate = Fraction(self.rate)
        return taxable.times(rate / (1 + rate) if self.is_inclusive else rate)


@dataclass(frozen=True, slots=True)
class InvoiceTotals:
    """The figures at the foot of an invoice, all in one currency and rounded.

    total_amount = subscription_fee + usage_fee - discounts - credits_used + adjustments
    + credited + tax, the tax only where prices do not contain it. `credited` is what a negative
    remainder becomes. amount_due = total_amount - prepaid_used.
    """

    subscription_fee: Money
    usage_fee: Money
    discounts: Money
    credits_used: Money
    adjustments: Money
    tax: Money
    credited: Money
    total_amount: Money
    prepaid_used: Money
    amount_due: Money


def add_up(
    *,
    subscription_fee: Money,
    usage_fee: Money,
    discounts: Money,
    credits_used: Money,
    adjustments: Money,
    tax: Tax,
    prepaid_available: Money,
) -> InvoiceTotals:
    """Return an invoice's totals.

    Where a correction or a credited fee is larger than the rest, the total is zero and the rest
    is `credited`. Raises NegativeTotalError when nothing of the kind explains a negative total.
    """
    nothing = Money.zero(usage_fee.currency)
    taxable = subscription_fee + usage_fee - discounts - credits_used + adjustments
    taxed = tax.on(taxable)
    total = taxable if tax.is_inclusive else taxable + taxed
    credited = max(nothing, -total)
    if credited and (subscription_fee + adjustments).amount >= 0:
        raise NegativeTotalError(
            f"The total is {total}, although neither fees nor adjustments are negative."
        )
    total += credited
    prepaid_used = max(nothing, min(prepaid_available, total))
    return InvoiceTotals(
        subscription_fee=subscription_fee,
        usage_fee=usage_fee,
        discounts=discounts,
        credits_used=credits_used,
        adjustments=adjustments,
        tax=taxed,
        credited=credited,
        total_amount=total,
        prepaid_used=prepaid_used,
        amount_due=total - prepaid_used,
    )
