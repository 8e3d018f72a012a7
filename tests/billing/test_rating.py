from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.charges import PerUnit, Price
from billing.money import Money
from billing.rating import (
    CostBreakdown,
    Discount,
    PricedUsage,
    Prices,
    Rating,
    Unpriced,
    break_down_cost,
    decimal_text,
    rate_usage,
)
from metering.meters import GB, UNITS, Meter
from metering.period import Period

PAGE = Path(__file__).parents[2] / "docs" / "rating.md"
MAY = Period(datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC))


def per_unit(unit_price: str) -> Price:
    return Price(PerUnit(Decimal(unit_price)))


DEFAULT = Prices(
    {
        (Meter.CPU, "USD"): per_unit("0.000012"),
        (Meter.MEMORY, "USD"): per_unit("0.000004"),
        (Meter.STORAGE, "USD"): per_unit("0.0001"),
        (Meter.NETWORK_EGRESS, "USD"): per_unit("0.02"),
        (Meter.GPU, "USD"): per_unit("0.0006"),
    }
)
FIRST_INVOICE = {
    Meter.CPU: 3600 * 10**9,
    Meter.MEMORY: 7200 * GB * 1000,
    Meter.NETWORK_EGRESS: 10 * GB,
    Meter.STORAGE: 100 * GB * 3_600_000,
}
quantities = st.integers(min_value=0, max_value=10**24)
cents = st.integers(min_value=0, max_value=10**8).map(lambda count: Decimal(count).scaleb(-2))
usages = st.dictionaries(st.sampled_from(Meter), quantities)


def rate(usage: Mapping[Meter, int], prices: Prices | None = DEFAULT) -> Rating:
    return rate_usage([PricedUsage(MAY, usage, prices)], currency="USD")


def dollars(text: str) -> Money:
    return Money(Decimal(text), "USD")


def worked_examples() -> list[tuple[str, ...]]:
    """The rows of the page's table: meter, quantity, unit price, exact cost, amount."""
    rows = [
        [cell.strip(" `") for cell in line.strip().strip("|").split("|")]
        for line in PAGE.read_text().splitlines()
        if line.startswith("| `")
    ]
    return [(row[0], row[1].split()[0], *row[2:]) for row in rows if len(row) == 5]


@pytest.mark.parametrize(("meter", "quantity", "unit_price", "cost", "amount"), worked_examples())
def test_the_pages_worked_numbers_are_what_rating_gives(
    meter: str, quantity: str, unit_price: str, cost: str, amount: str
) -> None:
    used = Fraction(quantity.replace(",", "")) * UNITS[Meter(meter)].size
    assert used.denominator == 1
    prices = Prices({(Meter(meter), "USD"): per_unit(unit_price)})
    [line] = rate({Meter(meter): int(used)}, prices).lines
    assert (decimal_text(line.cost), line.amount.text) == (cost, amount)


def test_the_pages_table_is_not_empty() -> None:
    assert len(worked_examples()) >= len(FIRST_INVOICE)


def test_the_first_invoice_costs_0_282_exactly() -> None:
    rating = rate(FIRST_INVOICE)
    costs = {line.meter: line.cost for line in rating.lines}
    assert costs == {
        Meter.CPU: Fraction("0.0432"),
        Meter.MEMORY: Fraction("0.0288"),
        Meter.NETWORK_EGRESS: Fraction("0.2"),
        Meter.STORAGE: Fraction("0.01"),
    }
    assert rating.raw_cost == Fraction("0.282")
    assert rating.usage_fee == dollars("0.28")


def test_a_hundred_of_credits_make_the_first_invoice_free() -> None:
    assert break_down_cost(rate(FIRST_INVOICE), credits_available=dollars("100")) == CostBreakdown(
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


def test_an_hour_720_times_is_rounded_at_the_line_not_by_the_hour() -> None:
    [line] = rate({Meter.CPU: 720 * 3600 * 10**9}).lines
    assert line.amount == dollars("31.10")


@pytest.mark.parametrize(
    ("credits_available", "used", "final"),
    [
        ("0", "0", "0.28"),
        ("0.01", "0.01", "0.27"),
        ("0.28", "0.28", "0"),
        ("0.29", "0.28", "0"),
        ("-1", "0", "0.28"),
    ],
)
def test_credits_pay_up_to_the_usage_fee(credits_available: str, used: str, final: str) -> None:
    cost = break_down_cost(rate(FIRST_INVOICE), credits_available=dollars(credits_available))
    assert (cost.credits_used, cost.final_cost) == (dollars(used), dollars(final))


@pytest.mark.parametrize(
    ("discounts", "total", "used", "final"),
    [
        ([], "0", "0.10", "0.18"),
        (["0.08"], "0.08", "0.10", "0.10"),
        (["0.08", "0.15"], "0.23", "0.05", "0"),
        (["0.28"], "0.28", "0", "0"),
        (["0.20", "0.20"], "0.28", "0", "0"),
    ],
)
def test_discounts_come_before_credits_and_stop_at_the_usage_fee(
    discounts: list[str], total: str, used: str, final: str
) -> None:
    cost = break_down_cost(
        rate(FIRST_INVOICE),
        credits_available=dollars("0.10"),
        discounts=[Discount(f"rule of {text}", dollars(text)) for text in discounts],
    )
    assert cost.total_discount == dollars(total)
    assert (cost.credits_used, cost.final_cost) == (dollars(used), dollars(final))


@pytest.mark.parametrize(
    ("prices", "currency", "reason"),
    [
        (DEFAULT, "USD", Unpriced.METER_NOT_CHARGED),
        (Prices({}), "USD", Unpriced.METER_NOT_CHARGED),
        (Prices({(Meter.DISK_READ, "EUR"): per_unit("1")}), "USD", Unpriced.NO_PRICE_IN_CURRENCY),
        (None, "USD", Unpriced.NO_PRICES_IN_FORCE),
    ],
)
def test_usage_without_a_price_is_shown_with_the_reason(
    prices: Prices | None, currency: str, reason: Unpriced
) -> None:
    rating = rate_usage([PricedUsage(MAY, {Meter.DISK_READ: 7}, prices)], currency=currency)
    [unpriced] = rating.unpriced
    assert (unpriced.meter, unpriced.quantity, unpriced.reason) == (Meter.DISK_READ, 7, reason)
    assert rating.lines == ()


def test_a_price_of_zero_is_a_price() -> None:
    rating = rate({Meter.CPU: 1}, Prices({(Meter.CPU, "USD"): per_unit("0")}))
    assert rating.unpriced == ()
    assert rating.raw_cost == 0


def test_no_usage_gives_no_line() -> None:
    assert rate({}) == Rating("USD", (), ())
    assert rate({Meter.CPU: 0}) == Rating("USD", (), ())


def test_negative_usage_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        rate({Meter.CPU: -1})


def test_storage_keeps_what_decimals_cannot() -> None:
    [line] = rate({Meter.STORAGE: 1}).lines
    assert line.cost == Fraction(1, GB * 3_600_000 * 10_000)


@given(usages)
def test_the_parts_of_the_breakdown_add_up_to_the_raw_cost(usage: dict[Meter, int]) -> None:
    prices = Prices({(meter, "USD"): per_unit("0.000123") for meter in Meter})
    rating = rate(usage, prices)
    cost = break_down_cost(rating, credits_available=dollars("0"))
    parts = cost.cpu_cost + cost.memory_cost + cost.network_cost + cost.storage_cost + cost.gpu_cost
    assert parts == cost.raw_cost == sum(line.cost for line in rating.lines)


@given(usages, usages, cents)
def test_more_usage_never_costs_less(
    usage: dict[Meter, int], more: dict[Meter, int], credit: Decimal
) -> None:
    both = {meter: usage.get(meter, 0) + more.get(meter, 0) for meter in Meter}
    available = Money(credit, "USD")
    low = break_down_cost(rate(usage), credits_available=available)
    high = break_down_cost(rate(both), credits_available=available)
    assert low.raw_cost <= high.raw_cost
    assert low.final_cost.amount <= high.final_cost.amount


@given(usages, usages)
def test_neighbouring_spans_cost_exactly_what_both_cost(
    first: dict[Meter, int], second: dict[Meter, int]
) -> None:
    middle = datetime(2026, 5, 10, tzinfo=UTC)
    halves = [
        PricedUsage(Period(MAY.start, middle), first, DEFAULT),
        PricedUsage(Period(middle, MAY.end), second, DEFAULT),
    ]
    both = {meter: first.get(meter, 0) + second.get(meter, 0) for meter in Meter}
    assert rate_usage(halves, currency="USD").raw_cost == rate(both).raw_cost


@given(usages)
def test_all_usage_is_either_priced_or_shown_as_unpriced(usage: dict[Meter, int]) -> None:
    rating = rate(usage)
    seen = {line.meter: line.quantity for line in rating.lines}
    seen |= {entry.meter: entry.quantity for entry in rating.unpriced}
    assert seen == {meter: quantity for meter, quantity in usage.items() if quantity}


@given(usages, cents)
def test_what_is_printed_adds_up(usage: dict[Meter, int], credit: Decimal) -> None:
    rating = rate(usage)
    cost = break_down_cost(rating, credits_available=Money(credit, "USD"))
    assert cost.usage_fee.amount == sum(line.amount.amount for line in rating.lines)
    assert cost.final_cost == cost.usage_fee - cost.total_discount - cost.credits_used
    assert cost.final_cost.amount >= 0
    assert cost.credits_used.amount <= credit


@pytest.mark.parametrize(
    ("exact", "text"),
    [
        ("0", "0"),
        ("-0", "0"),
        ("3600", "3600"),
        ("0.282", "0.282"),
        ("1/3", "0.333333333333"),
        ("2/3", "0.666666666667"),
        ("-2/3", "-0.666666666667"),
        ("0.0000000000005", "0.000000000001"),
        ("0.0000000000004", "0"),
        ("-0.0000000000004", "0"),
        ("123456789012345678901234567890.5", "123456789012345678901234567890.5"),
    ],
)
def test_exact_numbers_are_written_without_exponent_or_trailing_zeros(
    exact: str, text: str
) -> None:
    assert decimal_text(Fraction(exact)) == text
