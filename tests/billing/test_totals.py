from __future__ import annotations

from decimal import Decimal

import pytest

from billing.money import Money
from billing.rating import break_down_cost, rate_usage
from billing.totals import add_up


def dollars(text: str) -> Money:
    return Money(Decimal(text), "USD")


NO_USAGE = break_down_cost(rate_usage([], currency="USD"), credits_available=dollars("0"))


@pytest.mark.parametrize(
    ("fee", "rate", "tax", "total"),
    [
        ("0", "0.19", "0", "0"),
        ("99", "0", "0", "99"),
        ("99", "0.19", "18.81", "117.81"),
        ("0.10", "0.05", "0.01", "0.11"),  # 0.005 rounds away from zero
        ("0.10", "0.04999", "0", "0.10"),
    ],
)
def test_tax_comes_on_top_and_is_rounded_once(fee: str, rate: str, tax: str, total: str) -> None:
    totals = add_up(subscription_fee=dollars(fee), usage=NO_USAGE, tax_rate=Decimal(rate))
    assert (totals.tax, totals.total_amount) == (dollars(tax), dollars(total))


def test_a_negative_tax_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        add_up(subscription_fee=dollars("1"), usage=NO_USAGE, tax_rate=Decimal("-0.01"))
