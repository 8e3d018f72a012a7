from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.totals import InvoiceTotals, NegativeTotalError, Tax, add_up
from tests.billing.periods import dollars
from tests.billing.test_rating import page_rows

cents = st.integers(0, 10**8).map(lambda count: Decimal(count).scaleb(-2))
rates = st.integers(0, 99_999).map(lambda count: Decimal(count).scaleb(-5))


def totals(  # one argument a figure
    fee: str | Decimal = "0",
    usage: str | Decimal = "0",
    discounts: str | Decimal = "0",
    used: str | Decimal = "0",
    adjustments: str | Decimal = "0",
    tax: Tax | None = None,
    prepaid: str | Decimal = "0",
) -> InvoiceTotals:
    return add_up(
        subscription_fee=dollars(fee),
        usage_fee=dollars(usage),
        discounts=dollars(discounts),
        credits_used=dollars(used),
        adjustments=dollars(adjustments),
        tax=tax or Tax(),
        prepaid_available=dollars(prepaid),
    )


@pytest.mark.parametrize(
    "row",
    page_rows(
        "| fees | usage | adjustments | tax rate | prepaid held "
        "| tax | total | prepaid used | due | credited |"
    ),
)
def test_the_pages_totals_are_what_it_says(row: list[str]) -> None:
    fee, usage, adjustments, rate, prepaid, *figures = row
    rate, _, where = rate.partition(" ")
    tax = Tax(Decimal(rate), is_inclusive=where == "inside")
    found = totals(fee, usage, adjustments=adjustments, tax=tax, prepaid=prepaid)
    assert figures == [
        found.tax.text,
        found.total_amount.text,
        found.prepaid_used.text,
        found.amount_due.text,
        found.credited.text,
    ]


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
def test_exclusive_tax_comes_on_top_and_is_rounded_once(
    fee: str, rate: str, tax: str, total: str
) -> None:
    found = totals(fee, tax=Tax(Decimal(rate)))
    assert (found.tax, found.total_amount) == (dollars(tax), dollars(total))


@pytest.mark.parametrize(
    ("fee", "rate", "tax"), [("119", "0.19", "19.00"), ("100", "0.07", "6.54"), ("0", "0.19", "0")]
)
def test_inclusive_tax_is_part_of_the_total(fee: str, rate: str, tax: str) -> None:
    found = totals(fee, tax=Tax(Decimal(rate), is_inclusive=True))
    assert (found.tax, found.total_amount) == (dollars(tax), dollars(fee))


def test_tax_is_on_what_discounts_and_credits_leave() -> None:
    found = totals("99", "50", "5", "45", tax=Tax(Decimal("0.1")))
    assert (found.tax, found.total_amount) == (dollars("9.90"), dollars("108.90"))


@pytest.mark.parametrize(
    ("prepaid", "used", "due"), [("0", "0", "110"), ("60", "60", "50"), ("500", "110", "0")]
)
def test_prepaid_credit_pays_what_is_left_tax_included(prepaid: str, used: str, due: str) -> None:
    found = totals("100", tax=Tax(Decimal("0.1")), prepaid=prepaid)
    assert found.total_amount == dollars("110")
    assert (found.prepaid_used, found.amount_due) == (dollars(used), dollars(due))


def test_a_correction_larger_than_the_rest_becomes_credit() -> None:
    found = totals("100", adjustments="-350", tax=Tax(Decimal("0.1")), prepaid="10")
    assert (found.tax, found.credited) == (dollars("-25"), dollars("275"))
    assert (found.total_amount, found.prepaid_used) == (dollars("0"), dollars("0"))


def test_an_unused_fee_larger_than_the_rest_becomes_credit() -> None:
    assert totals("-200", "50").credited == dollars("150")


def test_a_negative_total_that_nothing_explains_is_refused() -> None:
    with pytest.raises(NegativeTotalError, match="neither fees nor adjustments"):
        totals("0", "10", "6", "6")


@pytest.mark.parametrize("rate", ["-0.01", "1", "19"])
def test_a_tax_rate_that_is_no_fraction_is_refused(rate: str) -> None:
    with pytest.raises(ValueError, match="Use a fraction"):
        Tax(Decimal(rate))


@given(cents, cents, cents, cents, rates, st.booleans(), cents)
def test_what_is_printed_adds_up(
    fee: Decimal,
    usage: Decimal,
    discount: Decimal,
    correction: Decimal,
    rate: Decimal,
    is_inclusive: bool,  # noqa: FBT001 - hypothesis gives it by position
    prepaid: Decimal,
) -> None:
    tax = Tax(rate, is_inclusive)
    found = totals(fee, usage, min(discount, usage), "0", -correction, tax, prepaid)
    on_top = Decimal(0) if is_inclusive else found.tax.amount
    parts = fee + usage - found.discounts.amount - correction + found.credited.amount + on_top
    assert found.total_amount.amount == parts
    assert found.amount_due == found.total_amount - found.prepaid_used
    assert min(found.total_amount.amount, found.amount_due.amount, found.credited.amount) >= 0
    assert not (found.credited and found.total_amount)
