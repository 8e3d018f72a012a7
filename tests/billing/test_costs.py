from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.charges import PerUnit, Price
from billing.costs import CostBreakdown, break_down_cost, cost_by_meter
from billing.discounts import DiscountRule, RuleKind
from billing.rating import Prices, decimal_text
from billing.statement import state_period
from metering.meters import Meter
from tests.billing.periods import FIRST_INVOICE, dollars, facts, monthly_credit
from tests.billing.test_rating import page_rows

usages = st.dictionaries(st.sampled_from(Meter), st.integers(min_value=0, max_value=10**24))


def cost_of_first_invoice(credit: str, *percents: str) -> CostBreakdown:
    rules = tuple(
        DiscountRule(f"rule {number}", RuleKind.VOLUME, percent=Decimal(percent))
        for number, percent in enumerate(percents)
    )
    stated = facts(FIRST_INVOICE, rules=rules, credits_held=(monthly_credit(credit),))
    return break_down_cost(state_period(stated))


def test_a_hundred_of_credits_make_the_first_invoice_free() -> None:
    assert cost_of_first_invoice("100") == CostBreakdown(
        cpu_cost=Fraction("0.0432"),
        memory_cost=Fraction("0.0288"),
        network_cost=Fraction("0.2"),
        storage_cost=Fraction("0.01"),
        gpu_cost=Fraction(0),
        raw_cost=Fraction("0.282"),
        usage_fee=dollars("0.28"),
        discounts=(),
        total_discount=dollars("0"),
        credits_used=dollars("0.28"),
        final_cost=dollars("0"),
    )


def test_the_pages_first_invoice_is_what_it_says() -> None:
    cost = cost_of_first_invoice("100")
    found = {
        "`raw_cost`": decimal_text(cost.raw_cost),
        "`usage_fee`": cost.usage_fee.text,
        "`total_discount`": cost.total_discount.text,
        "`credits_used`": cost.credits_used.text,
        "`final_cost`": cost.final_cost.text,
    }
    assert found == {field: value for field, value, _ in page_rows("| field | value | how |")}


@pytest.mark.parametrize(
    ("credit", "used", "final"),
    [("0", "0", "0.28"), ("0.01", "0.01", "0.27"), ("0.28", "0.28", "0"), ("0.29", "0.28", "0")],
)
def test_credits_pay_up_to_the_usage_fee(credit: str, used: str, final: str) -> None:
    cost = cost_of_first_invoice(credit)
    assert (cost.credits_used, cost.final_cost) == (dollars(used), dollars(final))


def test_discounts_come_before_credits() -> None:
    cost = cost_of_first_invoice("0.20", "50")
    assert (cost.total_discount, cost.credits_used) == (dollars("0.14"), dollars("0.14"))
    assert cost.final_cost == dollars("0")


@given(usages)
def test_the_parts_of_the_breakdown_add_up_to_the_raw_cost(usage: dict[Meter, int]) -> None:
    prices = Prices({(meter, "USD"): Price(PerUnit(Decimal("0.000123"))) for meter in Meter})
    statement = state_period(facts(usage, prices=prices))
    cost = break_down_cost(statement)
    parts = cost.cpu_cost + cost.memory_cost + cost.network_cost + cost.storage_cost + cost.gpu_cost
    assert parts == cost.raw_cost == sum(line.cost for line in statement.rating.lines)
    assert sum(cost_by_meter(statement.rating).values()) == cost.raw_cost


@given(usages, st.integers(0, 10**8))
def test_what_is_printed_adds_up(usage: dict[Meter, int], cents: int) -> None:
    held = (monthly_credit(Decimal(cents).scaleb(-2)),)
    statement = state_period(facts(usage, credits_held=held))
    cost = break_down_cost(statement)
    assert cost.usage_fee.amount == sum(line.amount.amount for line in statement.rating.lines)
    assert cost.final_cost == cost.usage_fee - cost.total_discount - cost.credits_used
    assert cost.final_cost.amount >= 0
    assert cost.credits_used.amount <= Decimal(cents).scaleb(-2)
