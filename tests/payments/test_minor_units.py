from __future__ import annotations

from decimal import Decimal

import pytest

from billing.money import DECIMALS, Money
from payments.provider import RefusedError
from payments.stripe.minor_units import from_minor_units, minor_units, smallest_charge

NOT_CHARGED = {"CLF", "UYW", "IQD", "LYD"}


@pytest.mark.parametrize(
    ("amount", "currency", "units"),
    [
        ("10.99", "USD", 1099),
        ("-10.99", "USD", -1099),
        ("0", "USD", 0),
        ("500", "JPY", 500),
        ("5", "ISK", 500),
        ("5", "UGX", 500),
        ("1.230", "KWD", 1230),
        ("100000000000.01", "EUR", 10000000000001),
    ],
)
def test_money_is_counted_as_stripe_counts_it(amount: str, currency: str, units: int) -> None:
    money = Money(Decimal(amount), currency)
    assert minor_units(money) == units
    assert from_minor_units(units, currency.lower()) == money


@pytest.mark.parametrize(
    ("amount", "currency"), [("0.001", "USD"), ("0.5", "JPY"), ("1.234", "KWD"), ("1", "CLF")]
)
def test_what_stripe_cannot_say_is_refused(amount: str, currency: str) -> None:
    with pytest.raises(RefusedError, match="Stripe"):
        minor_units(Money(Decimal(amount), currency))


@pytest.mark.parametrize("currency", sorted(set(DECIMALS) - NOT_CHARGED))
def test_every_other_currency_comes_back_as_it_was(currency: str) -> None:
    least = smallest_charge(currency)
    assert least.amount > 0
    whole = Money(Decimal(12_340), currency)
    assert from_minor_units(minor_units(whole), currency) == whole
