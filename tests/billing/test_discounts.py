from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.discounts import (
    Discount,
    DiscountRule,
    RuleKind,
    apply_discounts,
    discount_annual_fee,
)
from billing.fees import Commitment
from billing.money import Money
from tests.billing.periods import MAY, SEEDED_RULES, dollars
from tests.billing.test_rating import page_rows

VOLUME, COMMITMENT, ANNUAL = RuleKind.VOLUME, RuleKind.COMMITMENT, RuleKind.ANNUAL


def rule(  # one argument a term
    name: str,
    kind: RuleKind = ANNUAL,
    percent: str = "0",
    amount: str = "0",
    *,
    reached: str = "0",
    months: int = 0,
    priority: int = 0,
) -> DiscountRule:
    return DiscountRule(
        name, kind, Decimal(percent), Decimal(amount), Decimal(reached), months, priority
    )


def read_commitment(cell: str) -> tuple[str, int]:
    """The minimum and the months of a cell of the page."""
    minimum, _, months = cell.partition(" for ")
    return minimum, int(months.removesuffix(" months") or 0)


def page_rule(row: list[str]) -> DiscountRule:
    name, kind, percent, amount, reached, priority = row
    least, months = read_commitment(reached)
    return rule(
        name,
        RuleKind(kind),
        percent,
        amount,
        reached=least,
        months=months,
        priority=int(priority),
    )


PAGE_RULES = [
    page_rule(row) for row in page_rows("| rule | kind | percent | amount | from | priority |")
]


@pytest.mark.parametrize(
    ("of", "commitment", "billing", "discounts", "left"),
    page_rows("| usage fee | commitment | billing | discounts | left |"),
)
def test_the_pages_discounts_are_what_it_says(
    of: str, commitment: str, billing: str, discounts: str, left: str
) -> None:
    base = dollars(of.removeprefix("a year's fee of "))
    commitments = []
    if commitment != "none":
        minimum, months = read_commitment(commitment)
        commitments.append(Commitment(dollars(minimum), months, MAY.start))
    found = (
        discount_annual_fee(base, PAGE_RULES)
        if of.startswith("a year's fee")
        else apply_discounts(
            base, PAGE_RULES, commitments=commitments, bills_annually=billing == "annual"
        )
    )
    told = "; ".join(f"{discount.name} {discount.amount.text}" for discount in found)
    assert (told or "none") == discounts
    assert base - Money.total((discount.amount for discount in found), "USD") == dollars(left)


def test_the_pages_volume_rules_are_the_seeded_ones() -> None:
    assert tuple(found for found in PAGE_RULES if found.kind is VOLUME) == SEEDED_RULES


def taken(usage_fee: str, *rules: DiscountRule, bills_annually: bool = True) -> list[str]:
    found = apply_discounts(dollars(usage_fee), rules, bills_annually=bills_annually)
    return [f"{discount.name} {discount.amount.text}" for discount in found]


@pytest.mark.parametrize(
    ("usage_fee", "discounts"),
    [
        ("0", []),
        ("499.99", []),
        ("500", ["Volume 500 25.00"]),
        ("500.01", ["Volume 500 25.00"]),
        ("500.10", ["Volume 500 25.01"]),  # 25.005 rounds away from zero
        ("741", ["Volume 500 37.05"]),
        ("1999.99", ["Volume 500 100.00"]),
        ("2000", ["Volume 2,000 200.00"]),
        (f"{10**20}.10", [f"Volume 2,000 {10**19}.01"]),
    ],
)
def test_only_the_highest_volume_rule_that_is_reached_holds(
    usage_fee: str, discounts: list[str]
) -> None:
    assert taken(usage_fee, *SEEDED_RULES) == discounts
    assert taken(usage_fee, *reversed(SEEDED_RULES)) == discounts


def test_the_highest_volume_rule_holds_even_if_it_takes_less() -> None:
    less = rule("less", VOLUME, "1", reached="1000", priority=9)
    assert taken("1000", *SEEDED_RULES, less) == ["less 10.00"]


def test_of_equal_volume_rules_the_one_of_the_better_priority_holds() -> None:
    rules = [rule("b", VOLUME, "1"), rule("a", VOLUME, "2"), rule("c", VOLUME, "3", priority=-1)]
    assert taken("100", *rules) == ["c 3.00"]
    assert taken("100", *rules[:2]) == ["a 2.00"]


def test_discounts_come_by_priority_then_name() -> None:
    rules = [
        rule("a", percent="1", priority=2),
        rule("c", percent="2", priority=1),
        rule("b", percent="3", priority=1),
        rule("d", VOLUME, "4", priority=3),
    ]
    assert taken("100", *rules) == ["b 3.00", "c 2.00", "a 1.00", "d 4.00"]


def test_a_discount_names_its_base_and_what_it_takes() -> None:
    [found] = apply_discounts(
        dollars("80"),
        [DiscountRule("Both", VOLUME, Decimal("2.5"), Decimal(3), rule_id=7)],
    )
    assert found == Discount("Both", dollars("80"), Decimal("2.5"), Decimal(3), dollars("5"), 7)


@pytest.mark.parametrize(
    ("usage_fee", "discounts"),
    [
        # Each on the whole usage fee; the last takes what the others leave.
        ("100", ["a 60.00", "b 40.00"]),
        ("0.01", ["a 0.01"]),
        ("0", []),
    ],
)
def test_together_discounts_are_never_more_than_the_usage_fee(
    usage_fee: str, discounts: list[str]
) -> None:
    assert taken(usage_fee, rule("a", percent="60"), rule("b", percent="60")) == discounts


def test_an_amount_is_never_more_than_the_usage_fee() -> None:
    assert taken("3", rule("a", amount="5")) == ["a 3.00"]
    assert taken("0", rule("a", amount="5")) == []


def test_percent_and_amount_are_rounded_together() -> None:
    # 0.004 and 0.001: one by one they would come to nothing.
    assert taken("0.40", rule("a", percent="1", amount="0.001")) == ["a 0.01"]
    assert taken("0.49", rule("a", percent="1")) == []


@pytest.mark.parametrize(
    ("minimum", "months", "holds"),
    [
        ("1000", 12, True),
        ("1000.01", 13, True),
        ("999.99", 12, False),
        ("1000", 11, False),
        ("100000", 1, False),
    ],
)
def test_a_commitment_rule_needs_the_minimum_and_the_term(
    minimum: str,
    months: int,
    holds: bool,  # noqa: FBT001 - a column of the table
) -> None:
    committed = rule("c", COMMITMENT, "10", reached="1000", months=12)
    agreed = Commitment(dollars(minimum), months, MAY.start)
    found = apply_discounts(dollars("50"), [committed], commitments=[agreed])
    assert [discount.amount.text for discount in found] == (["5.00"] if holds else [])


def test_one_commitment_has_to_meet_both() -> None:
    committed = rule("c", COMMITMENT, "10", reached="1000", months=12)
    agreed = [
        Commitment(dollars(minimum), months, MAY.start)
        for minimum, months in (("1000", 1), ("1", 12))
    ]
    assert apply_discounts(dollars("50"), [committed], commitments=agreed) == ()
    assert apply_discounts(dollars("50"), [committed]) == ()


def test_an_annual_rule_needs_annual_billing_and_its_amount() -> None:
    yearly = rule("y", percent="10", reached="50")
    assert taken("50", yearly) == ["y 5.00"]
    assert taken("49.99", yearly) == []
    assert taken("50", yearly, bills_annually=False) == []
    # Unless it is told to, nothing is billed annually.
    assert apply_discounts(dollars("50"), [yearly]) == ()


def test_a_years_fee_is_discounted_by_the_percent_of_annual_rules_alone() -> None:
    rules = [
        rule("a", percent="10", amount="7", priority=1),
        rule("b", percent="95"),
        rule("c", amount="7"),
        rule("d", VOLUME, "50"),
        rule("e", COMMITMENT, "50"),
    ]
    rules[1] = replace(rules[1], rule_id=8)
    found = discount_annual_fee(dollars("1188"), rules)
    assert found == (
        Discount("b", dollars("1188"), Decimal(95), Decimal(0), dollars("1128.60"), 8),
        Discount("a", dollars("1188"), Decimal(10), Decimal(0), dollars("59.40")),
    )
    assert discount_annual_fee(dollars("0"), rules) == ()


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"percent": "100.01"}, "percent of 'r' is 100.01. Use 0 to 100"),
        ({"percent": "-0.01"}, "percent of 'r' is -0.01"),
        ({"amount": "-1"}, "amount of 'r' is -1. Use 0 or more"),
        ({"percent": "1", "reached": "-1"}, "min_amount of 'r'"),
        ({"percent": "1", "months": -1}, "min_months of 'r'"),
        ({}, "'r' takes nothing off"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(terms: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rule("r", **terms)  # type: ignore[arg-type]


def test_all_of_it_can_be_taken_off() -> None:
    assert taken("12.34", rule("a", percent="100")) == ["a 12.34"]


amounts = st.integers(0, 10**9).map(lambda count: Decimal(count).scaleb(-2))
rules = st.lists(
    st.builds(
        DiscountRule,
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(RuleKind),
        percent=st.integers(1, 10_000).map(lambda count: Decimal(count).scaleb(-2)),
        amount=amounts,
        min_amount=amounts,
        priority=st.integers(0, 3),
    ),
    max_size=6,
)


@given(amounts, rules)
def test_discounts_sum_to_the_usage_fee_at_most(
    usage_fee: Decimal, rules: list[DiscountRule]
) -> None:
    base = dollars(usage_fee)
    agreed = Commitment(dollars("1000"), 12, MAY.start)
    found = apply_discounts(base, rules, commitments=[agreed], bills_annually=True)
    assert sum(discount.amount.amount for discount in found) <= usage_fee
    for discount in found:
        assert discount.base == base
        assert discount.amount.amount > 0
        most = base.times(discount.percent / 100) + dollars(discount.fixed)
        assert discount.amount.amount <= most.amount + Decimal("0.01")
    assert sum(discount.amount.amount for discount in discount_annual_fee(base, rules)) <= usage_fee


@given(rules, st.lists(st.integers(0, 10**7), min_size=1, max_size=8))
def test_spread_over_the_lines_discounts_sum_to_themselves(
    rules: list[DiscountRule], cents: list[int]
) -> None:
    lines = [Money.of_minor_units(count, "USD") for count in cents]
    found = apply_discounts(Money.total(lines, "USD"), rules, bills_annually=True)
    whole = Money.total((discount.amount for discount in found), "USD")
    borne = whole.split(lines)
    assert Money.total(borne, "USD") == whole
    assert all(part.amount <= line.amount for part, line in zip(borne, lines, strict=True))
