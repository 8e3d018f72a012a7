from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.money import MOST_DECIMALS, CurrencyMismatchError, Money, decimals_of
from tests.billing.test_rating import page_rows

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
    with pytest.raises(CurrencyMismatchError, match=r"1\.00 USD and 1\.00 EUR are in two"):
        dollars + euros
    with pytest.raises(CurrencyMismatchError):
        dollars - euros
    with pytest.raises(CurrencyMismatchError):
        min(dollars, euros)
    with pytest.raises(CurrencyMismatchError):
        Money.total([dollars, euros], "USD")


def test_an_amount_is_not_less_than_itself() -> None:
    assert Money(Decimal(1), "USD") < Money(Decimal("1.01"), "USD")
    assert not Money(Decimal(1), "USD") < Money(Decimal(1), "USD")


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


@pytest.mark.parametrize("currency", ["XXX", "XTS", "XAU", "ABC", "DEM"])
def test_a_code_that_is_no_currency_in_use_is_refused(currency: str) -> None:
    with pytest.raises(ValueError, match="ISO 4217"):
        Money.zero(currency)
    with pytest.raises(KeyError):
        decimals_of(currency)


@pytest.mark.parametrize(
    ("currency", "decimals"), [("JPY", 0), ("USD", 2), ("EUR", 2), ("KWD", 3), ("CLF", 4)]
)
def test_a_currency_has_the_decimals_of_its_smallest_unit(currency: str, decimals: int) -> None:
    assert decimals_of(currency) == decimals <= MOST_DECIMALS
    assert Money.of_minor_units(1, currency).amount == Decimal(1).scaleb(-decimals)


def test_sums_of_very_large_amounts_keep_every_cent() -> None:
    cent, large = Money(Decimal("0.01"), "USD"), Money(Decimal(10**30), "USD")
    assert (large + cent).text == f"{10**30}.01"
    assert (large + cent) - large == cent
    assert (-(large + cent)).text == f"-{10**30}.01"
    assert Money.total([cent, large, -large], "USD") == cent
    assert [part.text for part in (large + cent).split([1])] == [f"{10**30}.01"]


@pytest.mark.parametrize(
    ("amount", "currency", "weights", "parts"),
    page_rows("| amount | currency | weights | parts |"),
)
def test_the_pages_amounts_are_split_as_it_says(
    amount: str, currency: str, weights: str, parts: str
) -> None:
    found = Money(Decimal(amount), currency).split([int(w) for w in weights.split("; ")])
    assert "; ".join(part.text for part in found) == parts


@pytest.mark.parametrize(
    ("amount", "currency", "weights", "parts"),
    [
        ("0", "USD", ["1", "2"], ["0.00", "0.00"]),
        ("0", "USD", [], []),
        ("10", "USD", ["3"], ["10.00"]),
        # 3.333… each: of equal remainders the earlier comes first.
        ("10", "USD", ["1", "1", "1"], ["3.34", "3.33", "3.33"]),
        ("0.02", "USD", ["1", "1", "1"], ["0.01", "0.01", "0.00"]),
        # 0.142…, 0.285…, 0.571…: the third has the largest remainder.
        ("0.01", "USD", ["1", "2", "4"], ["0.00", "0.00", "0.01"]),
        ("1", "USD", ["1", "2", "4"], ["0.14", "0.29", "0.57"]),
        ("-1", "USD", ["1", "2", "4"], ["-0.14", "-0.29", "-0.57"]),
        ("-10", "USD", ["1", "1", "1"], ["-3.34", "-3.33", "-3.33"]),
        # Who has no weight bears nothing, unless nobody has any.
        ("0.01", "USD", ["0", "1", "0"], ["0.00", "0.01", "0.00"]),
        ("0.05", "USD", ["0", "0", "0"], ["0.02", "0.02", "0.01"]),
        ("1", "USD", ["1/3", "1/6", "1/2"], ["0.33", "0.17", "0.50"]),
        ("100", "JPY", ["1", "1", "1"], ["34", "33", "33"]),
        ("1", "KWD", ["1", "1", "1"], ["0.334", "0.333", "0.333"]),
        ("0.0002", "CLF", ["1", "1", "1"], ["0.0001", "0.0001", "0.0000"]),
        (f"{10**30}.01", "USD", ["1", "1"], [f"{5 * 10**29}.01", f"{5 * 10**29}.00"]),
    ],
)
def test_an_amount_is_split_by_largest_remainder(
    amount: str, currency: str, weights: list[str], parts: list[str]
) -> None:
    found = Money(Decimal(amount), currency).split([Fraction(weight) for weight in weights])
    assert [part.text for part in found] == parts


def test_an_amount_is_split_by_amounts_of_money() -> None:
    weights = [Money(Decimal(text), "USD") for text in ("0.30", "0.70")]
    assert [part.text for part in Money(Decimal(1), "USD").split(weights)] == ["0.30", "0.70"]


@pytest.mark.parametrize(
    ("amount", "currency", "weights", "message"),
    [
        ("1", "USD", [1, -1], "negative: -1"),
        ("1", "USD", [], "nothing to split 1.00 USD over"),
        ("0.005", "USD", [1], "not in whole smallest units"),
        ("0.5", "JPY", [1], "not in whole smallest units"),
        ("0.0005", "KWD", [1], "not in whole smallest units"),
        (f"{10**28}.001", "USD", [1], "not in whole smallest units"),
    ],
)
def test_what_cannot_be_split_is_refused(
    amount: str, currency: str, weights: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Money(Decimal(amount), currency).split(weights)


weights = st.lists(st.integers(0, 10**6), min_size=1, max_size=8)
currencies = st.sampled_from(["JPY", "USD", "KWD", "CLF"])


@given(st.integers(0, 10**32), currencies, weights)
def test_parts_sum_to_the_whole_and_are_within_a_unit_of_their_share(
    units: int, currency: str, weights: list[int]
) -> None:
    whole = Money.of_minor_units(units, currency)
    parts = whole.split(weights)
    assert Money.total(parts, currency) == whole
    assert (-whole).split(weights) == [-part for part in parts]
    unit = Fraction(Money.of_minor_units(1, currency).amount)
    if total := sum(weights):
        for part, weight in zip(parts, weights, strict=True):
            assert abs(Fraction(part.amount) - Fraction(whole.amount) * weight / total) < unit
            assert weight or not part
    else:
        assert max(parts).amount - min(parts).amount <= unit
