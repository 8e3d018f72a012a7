from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import takewhile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.charges import (
    ChargeModel,
    ChargePart,
    Graduated,
    Package,
    PartKind,
    Percentage,
    PerUnit,
    Price,
    Tier,
    Volume,
)
from billing.money import Money
from billing.rating import (
    PricedUsage,
    Prices,
    Rating,
    Unpriced,
    _rate_spans,
    decimal_text,
    exact_sum,
    rate_usage,
    ratio_text,
)
from metering.meters import GB, UNITS, Meter
from metering.period import Period
from tests.billing.prices import charges_that_never_fall, prices, read_price

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


FEES = Price(
    Graduated((Tier(Decimal(100), Decimal(1), Decimal(10)), Tier(None, Decimal(2), Decimal(5))))
)


def period_of(at: int) -> Period:
    """The period of the span at this place: one of May's days."""
    return Period(MAY.start + timedelta(days=at), MAY.start + timedelta(days=at + 1))


def spans_of(
    *spans: tuple[Price | None, int] | tuple[Price | None, int, int], meter: Meter = Meter.CPU
) -> list[PricedUsage]:
    """Days with a price (None: unpriced), a quantity in base units and events."""
    return [
        PricedUsage(
            period_of(at),
            {meter: quantity},
            Prices({(meter, "USD"): price} if price else {}),
            *events,
        )
        for at, (price, quantity, *events) in enumerate(spans)
    ]


def costs_of(*spans: tuple[Price | None, int]) -> list[tuple[int, int, Fraction | int]]:
    """Each line's span, quantity and cost; disk bytes, of which one is one shown unit."""
    rating = rate_usage(spans_of(*spans, meter=Meter.DISK_READ), currency="USD")
    return [
        ((line.period.start - MAY.start).days, line.quantity, line.cost) for line in rating.lines
    ]


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


def page_rows(columns: str) -> list[list[str]]:
    """The rows of the page's table with these columns."""
    lines = PAGE.read_text().splitlines()
    first = lines.index(columns) + 2
    rows = takewhile(lambda line: line.startswith("|"), lines[first:])
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


PAGE_PRICES = {
    name: read_price(model, terms, free_units, minimum)
    for name, model, terms, free_units, minimum in page_rows(
        "| price | model | terms | free units | minimum |"
    )
}


@pytest.mark.parametrize(
    ("names", "units", "events", "costs"),
    [row[:4] for row in page_rows("| price | units | events | exact cost | how |")],
)
def test_the_pages_charges_cost_what_it_says(
    names: str, units: str, events: str, costs: str
) -> None:
    spans = [
        (PAGE_PRICES[name], int(Decimal(used) * 10**9), int(started))
        for name, used, started in zip(
            names.split(", then "), units.split(", then "), events.split(", then "), strict=True
        )
    ]
    rating = rate_usage(spans_of(*spans), currency="USD")
    by_span = dict.fromkeys((period_of(at) for at in range(len(spans))), Fraction(0))
    by_span |= {line.period: line.cost for line in rating.lines}
    assert [decimal_text(cost) for cost in by_span.values()] == costs.split(", then ")


def test_every_price_of_the_page_is_used_and_of_every_model() -> None:
    rows = page_rows("| price | units | events | exact cost | how |")
    used = {name for names, *_ in rows for name in names.split(", then ")}
    assert used == PAGE_PRICES.keys()
    assert {price.charge.model for price in PAGE_PRICES.values()} == set(ChargeModel)


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


def test_an_hour_720_times_is_rounded_at_the_line_not_by_the_hour() -> None:
    [line] = rate({Meter.CPU: 720 * 3600 * 10**9}).lines
    assert line.amount == dollars("31.10")


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


def test_only_what_has_no_price_is_shown_without_one() -> None:
    rating = rate({Meter.CPU: 10**9, Meter.DISK_READ: 7})
    assert [line.meter for line in rating.lines] == [Meter.CPU]
    assert [(entry.meter, entry.period) for entry in rating.unpriced] == [(Meter.DISK_READ, MAY)]


def test_the_fee_is_of_all_meters_whatever_their_charges() -> None:
    package = Price(Package(Decimal(3), Decimal(10)))
    rows = {Meter.DISK_READ: per_unit("1"), Meter.DISK_WRITE: package}
    prices = Prices({(meter, "USD"): price for meter, price in rows.items()})
    rating = rate({Meter.DISK_READ: 2, Meter.DISK_WRITE: 5}, prices)
    assert [line.amount for line in rating.lines] == [dollars("2"), dollars("3")]
    assert rating.usage_fee == dollars("5")


def test_a_price_of_zero_is_a_price() -> None:
    rating = rate({Meter.CPU: 1}, Prices({(Meter.CPU, "USD"): per_unit("0")}))
    assert rating.unpriced == ()
    assert rating.raw_cost == 0


def test_no_usage_gives_no_line() -> None:
    for rating in (rate({}), rate({Meter.CPU: 0}), rate_usage([], currency="USD")):
        assert (rating.lines, rating.unpriced, rating.usage_fee) == ((), (), dollars("0"))


@pytest.mark.parametrize("prices", [DEFAULT, Prices({}), None])
@pytest.mark.parametrize("spans", [1, 2])
def test_negative_usage_is_refused(prices: Prices | None, spans: int) -> None:
    usage = PricedUsage(MAY, {Meter.CPU: -1}, prices)
    with pytest.raises(ValueError, match=r"cpu in .* is negative: -1"):
        rate_usage([usage] * spans, currency="USD")


def test_negative_usage_is_refused_where_a_flat_fee_is_due_anyway() -> None:
    with pytest.raises(ValueError, match="negative"):
        rate_usage(spans_of((FEES, -1)), currency="USD")


def test_a_large_account_costs_741_exactly() -> None:
    rating = rate(
        {
            Meter.CPU: 36_000_000 * 10**9,
            Meter.MEMORY: 72_000_000 * GB * 1000,
            Meter.NETWORK_EGRESS: 1_000 * GB,
            Meter.STORAGE: 10_000 * GB * 3_600_000,
        }
    )
    assert [line.cost for line in rating.lines] == [432, 288, 20, 1]
    assert rating.raw_cost == 741


def test_storage_keeps_what_decimals_cannot() -> None:
    [line] = rate({Meter.STORAGE: 1}).lines
    assert line.cost == Fraction(1, GB * 3_600_000 * 10_000)


@given(usages, usages)
def test_more_usage_never_costs_less(usage: dict[Meter, int], more: dict[Meter, int]) -> None:
    both = {meter: usage.get(meter, 0) + more.get(meter, 0) for meter in Meter}
    assert rate(usage).raw_cost <= rate(both).raw_cost


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


def test_zero_usage_has_one_line_where_something_is_due() -> None:
    with_minimum = Price(PerUnit(Decimal(1)), minimum=Decimal(7))
    assert costs_of((FEES, 0)) == [(0, 0, 10)]
    assert costs_of((FEES, 0), (FEES, 0)) == [(0, 0, 10)]
    assert costs_of((with_minimum, 0)) == [(0, 0, 7)]
    assert costs_of((with_minimum, 0), (with_minimum, 0)) == [(1, 0, 7)]
    assert costs_of((per_unit("1"), 0), (FEES, 0)) == []


def test_a_line_without_usage_is_no_usage() -> None:
    rating = rate_usage(spans_of((FEES, 0)), currency="USD")
    assert len(rating.lines) == 1
    assert rating.usage == {}


def test_a_tier_that_a_span_begins_at_is_entered_in_it() -> None:
    spans = spans_of((FEES, 100), (FEES, 3), meter=Meter.DISK_READ)
    before, after = rate_usage(spans, currency="USD").lines
    assert [before.cost, after.cost] == [Fraction(110), Fraction(5 + 3 * 2)]
    assert after.parts == (
        ChargePart(PartKind.FLAT_FEE, 2, Fraction(1), Decimal(5), Fraction(5)),
        ChargePart(PartKind.UNITS, 2, Fraction(3), Decimal(2), Fraction(6)),
    )


def test_usage_without_a_price_does_not_count_towards_tiers() -> None:
    assert costs_of((FEES, 60), (None, 1000), (FEES, 40)) == [(0, 60, 70), (2, 40, 40)]


def test_usage_under_another_charge_model_does() -> None:
    assert costs_of((per_unit("3"), 60), (FEES, 50)) == [(0, 60, 180), (1, 50, 40 + 5 + 20)]


def test_the_minimum_is_made_up_for_by_the_last_price_that_has_one() -> None:
    low, high = (Price(PerUnit(Decimal(1)), minimum=Decimal(limit)) for limit in ("10", "20"))
    assert costs_of((high, 3), (low, 4), (per_unit("1"), 1)) == [(0, 3, 3), (1, 4, 6), (2, 1, 1)]
    assert costs_of((low, 3), (high, 17)) == [(0, 3, 3), (1, 17, 17)]
    [line] = rate_usage(spans_of((low, 3 * 10**9)), currency="USD").lines
    assert line.amount == dollars("10")
    # A nanosecond below it too.
    one = Prices({(Meter.CPU, "USD"): Price(PerUnit(Decimal(1)), minimum=Decimal(1))})
    assert rate({Meter.CPU: 10**9 - 1}, one).raw_cost == 1
    assert line.parts == (
        ChargePart(PartKind.UNITS, None, Fraction(3), Decimal(1), Fraction(3)),
        ChargePart(PartKind.MINIMUM, None, Fraction(1), Decimal(10), Fraction(7)),
    )


def test_the_maximum_in_force_caps_the_periods_percentage() -> None:
    wide, narrow = (Price(Percentage(Decimal(50), maximum=Decimal(m))) for m in ("20", "10"))
    assert costs_of((wide, 30), (wide, 30)) == [(0, 30, 15), (1, 30, 5)]
    assert costs_of((wide, 30), (narrow, 30)) == [(0, 30, 15), (1, 30, 0)]
    assert costs_of((narrow, 30), (wide, 30)) == [(0, 30, 10), (1, 30, 10)]


def volume(*terms: tuple[str | None, str, str]) -> Price:
    return Price(
        Volume(
            tuple(
                Tier(Decimal(up_to) if up_to else None, Decimal(price), Decimal(fee))
                for up_to, price, fee in terms
            )
        )
    )


@pytest.mark.parametrize(
    ("quantities", "costs"),
    [
        # The fee of the tier reached, in the span that entered it.
        ((50, 50), [51, 50]),
        ((50, 51), [100, 104]),
        ((101, 0), [204]),
        ((0, 101), [204]),
        ((0, 100), [1, 100]),
        ((100, 1), [200, 4]),
    ],
)
def test_a_volumes_flat_fee_is_due_in_the_span_that_entered_the_tier(
    quantities: tuple[int, int], costs: list[int]
) -> None:
    price = volume(("100", "1", "1"), (None, "2", "2"))
    rated = costs_of(*((price, quantity) for quantity in quantities))
    assert [cost for *_, cost in rated] == costs


def test_a_volumes_flat_fee_is_due_once_where_versions_differ_in_their_tiers() -> None:
    low = volume(("10", "0", "1"), (None, "0", "2"))
    high = volume(("20", "0", "4"), (None, "0", "8"))
    assert costs_of((low, 15), (high, 10)) == [(0, 15, 2), (1, 10, 0)]
    assert costs_of((high, 15), (low, 1)) == [(0, 15, 4), (1, 1, 0)]
    # The first span does not reach what its version calls the period's tier; the second is there.
    lower = volume(("5", "0", "1"), (None, "0", "2"))
    assert costs_of((low, 8), (lower, 4)) == [(0, 8, 0), (1, 4, 2)]
    # The first tier was entered under another model.
    assert costs_of((FEES, 1), (low, 1)) == [(0, 1, 11), (1, 1, 0)]
    assert costs_of((FEES, 1), (low, 10)) == [(0, 1, 11), (1, 10, 2)]
    # Its edge was reached under the other model, and passed under this one.
    assert costs_of((FEES, 10), (low, 1)) == [(0, 10, 20), (1, 1, 2)]
    of_three = volume(("10", "0", "1"), ("20", "0", "2"), (None, "0", "4"))
    assert costs_of((FEES, 15), (of_three, 10)) == [(0, 15, 25), (1, 10, 4)]


def test_a_package_begun_before_a_change_of_price_is_not_billed_again() -> None:
    cheap, dear = (Price(Package(Decimal(price), Decimal(10))) for price in ("1", "2"))
    assert costs_of((cheap, 1), (dear, 9)) == [(0, 1, 1), (1, 9, 0)]
    assert costs_of((cheap, 1), (dear, 10)) == [(0, 1, 1), (1, 10, 2)]


@pytest.mark.parametrize(("currency", "amount"), [("JPY", "2"), ("KWD", "1.500"), ("USD", "1.50")])
def test_a_line_is_rounded_to_its_currencys_smallest_unit(currency: str, amount: str) -> None:
    prices = Prices({(Meter.DISK_READ, currency): per_unit("0.5")})
    rating = rate_usage([PricedUsage(MAY, {Meter.DISK_READ: 3}, prices)], currency=currency)
    assert [line.amount.text for line in rating.lines] == [rating.usage_fee.text] == [amount]


def test_very_large_quantities_are_exact() -> None:
    [line] = rate_usage(
        spans_of((per_unit("0.01"), 10**30 + 1), meter=Meter.DISK_READ), currency="USD"
    ).lines
    assert line.cost == Fraction(10**30 + 1, 100)
    assert line.amount.text == f"{10**28}.01"


def sums(rating: Rating) -> list[object]:
    return [(*line[:5], line.cost, line.amount, line.parts) for line in rating.lines]


small = st.integers(min_value=0, max_value=12)
# Disk bytes and small prices: edges, allowances and limits are met within a few units.
versions = st.lists(st.tuples(prices(), small, small), min_size=1, max_size=4)


@given(versions)
def test_the_short_way_for_one_span_gives_what_the_long_way_does(
    spans: list[tuple[Price, int, int]],
) -> None:
    for one in spans_of(*spans, meter=Meter.DISK_READ):
        short, long = rate_usage([one], currency="USD"), _rate_spans([one], "USD")
        assert sums(short) == sums(long)
        assert (short.unpriced, short.usage_fee) == (long.unpriced, long.usage_fee)


@given(versions)
def test_the_parts_of_a_line_sum_to_its_cost(spans: list[tuple[Price, int, int]]) -> None:
    rating = rate_usage(spans_of(*spans, meter=Meter.DISK_READ), currency="USD")
    for line in rating.lines:
        assert sum(part.cost for part in line.parts) == line.cost >= 0
        assert line.amount == Money.rounded(line.cost, "USD")
    assert rating.usage_fee == Money.total((line.amount for line in rating.lines), "USD")


@given(prices(), st.lists(st.tuples(small, small), min_size=1, max_size=4))
def test_cutting_a_period_changes_no_total(price: Price, used: list[tuple[int, int]]) -> None:
    cut = spans_of(*((price, *quantities) for quantities in used), meter=Meter.DISK_READ)
    quantity, events = (sum(column) for column in zip(*used, strict=True))
    whole = spans_of((price, quantity, events), meter=Meter.DISK_READ)
    costs = [rate_usage(spans, currency="USD").raw_cost for spans in (cut, whole)]
    assert costs[0] == costs[1]


@given(
    st.lists(st.tuples(prices(charges_that_never_fall), small, small), min_size=1, max_size=3),
    small,
)
def test_a_charge_never_falls_when_usage_grows(
    spans: list[tuple[Price, int, int]], more: int
) -> None:
    *before, (price, quantity, events) = spans
    grown = [*before, (price, quantity + more, events)]
    low, high = (
        rate_usage(spans_of(*used, meter=Meter.DISK_READ), currency="USD").raw_cost
        for used in (spans, grown)
    )
    assert low <= high


@given(st.integers(-(10**30), 10**30), st.integers(1, 10**20), st.integers(1, 10**6))
def test_a_ratio_is_written_to_the_nearest_of_twelve_decimals(
    numerator: int, denominator: int, factor: int
) -> None:
    text = ratio_text(numerator * factor, denominator * factor)
    assert text == decimal_text(Fraction(numerator, denominator))
    apart = abs(Fraction(text) - Fraction(numerator, denominator))
    assert apart <= Fraction(1, 2 * 10**12)
    # A half goes away from zero.
    if apart == Fraction(1, 2 * 10**12):
        assert abs(Fraction(text)) > abs(Fraction(numerator, denominator))
    assert text == "0" or not text.strip("-").startswith("00")
    assert "." not in text or text[-1] not in "0."
    assert text != "-0"


@pytest.mark.parametrize(
    ("numerator", "denominator", "text"),
    [
        (0, 5, "0"),
        (100, 1, "100"),
        (-100, 1, "-100"),
        (1, 2 * 10**12, "0.000000000001"),
        (-1, 2 * 10**12, "-0.000000000001"),
        (1, 3 * 10**12, "0"),
        (-1, 3 * 10**12, "0"),
        (6, 4, "1.5"),
    ],
)
def test_a_ratio_is_written_as_short_as_can_be(numerator: int, denominator: int, text: str) -> None:
    assert ratio_text(numerator, denominator) == text


@given(st.lists(st.fractions()))
def test_a_sum_is_exact(amounts: list[Fraction]) -> None:
    assert exact_sum(amounts) == sum(amounts, start=Fraction(0))
