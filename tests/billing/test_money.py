from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.money import CurrencyMismatchError, Money

fractions = st.fractions(min_value=-(10**9), max_value=10**9)


@pytest.mark.parametrize(
    ("exact", "currency", "text"),
    [
        ("0", "USD", "0.00"),
        ("0.004", "USD", "0.00"),
        ("0.005", "USD", "0.01"),
        ("-0.005", "USD", "-0.01"),
        ("0.015", "USD", "0.02"),
        ("0.025", "USD", "0.03"),  # half to even would give 0.02
        ("31.104", "USD", "31.10"),
        ("0.5", "JPY", "1"),
        ("0.0005", "KWD", "0.001"),
        ("0.00005", "CLF", "0.0001"),
        ("1/3", "USD", "0.33"),
        ("2/3", "USD", "0.67"),
        ("12345678901234.565", "USD", "12345678901234.57"),
    ],
)
def test_half_of_the_smallest_unit_rounds_away_from_zero(
    exact: str, currency: str, text: str
) -> None:
    assert Money.rounded(Fraction(exact), currency).text == text


@given(fractions)
def test_rounding_moves_an_amount_by_half_a_unit_at_most(exact: Fraction) -> None:
    rounded = Fraction(Money.rounded(exact, "USD").amount)
    assert abs(rounded - exact) <= Fraction(1, 200)


@given(fractions)
def test_rounding_is_the_same_on_both_sides_of_zero(exact: Fraction) -> None:
    assert Money.rounded(-exact, "USD").amount == -Money.rounded(exact, "USD").amount


@given(fractions, fractions)
def test_a_larger_cost_never_rounds_to_less(one: Fraction, other: Fraction) -> None:
    low, high = sorted([one, other])
    assert Money.rounded(low, "USD").amount <= Money.rounded(high, "USD").amount


def test_two_currencies_do_not_meet() -> None:
    dollars, euros = Money(Decimal(1), "USD"), Money(Decimal(1), "EUR")
    with pytest.raises(CurrencyMismatchError):
        dollars + euros
    with pytest.raises(CurrencyMismatchError):
        dollars - euros
    with pytest.raises(CurrencyMismatchError):
        min(dollars, euros)
    with pytest.raises(CurrencyMismatchError):
        Money.total([dollars, euros], "USD")


def test_the_total_of_nothing_is_zero_in_its_currency() -> None:
    assert Money.total([], "EUR") == Money.zero("EUR")


@pytest.mark.parametrize("currency", ["", "usd", "US", "USDT", "U$D", "ÄÖÜ"])
def test_a_currency_that_is_no_code_is_refused(currency: str) -> None:
    with pytest.raises(ValueError, match="ISO 4217"):
        Money.zero(currency)


@pytest.mark.parametrize("amount", ["NaN", "Infinity", "-Infinity"])
def test_an_amount_that_is_no_number_is_refused(amount: str) -> None:
    with pytest.raises(ValueError, match="finite"):
        Money(Decimal(amount), "USD")
