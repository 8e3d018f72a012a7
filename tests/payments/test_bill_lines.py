from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.money import Money
from metering.period import Period
from payments.bill_lines import MOST_CHARACTERS, MOST_LINES, Charge, Item, bill_lines, breakdown

MAY = Period(datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC))
METERS = ("", "cpu", "memory", "network_egress")


def usd(amount: str) -> Money:
    return Money(Decimal(amount), "USD")


def charge(
    items: list[Item],
    *,
    owed: str,
    off: tuple[tuple[str, str], ...] = (),
    name: str = "Invoice 2026-000001",
) -> Charge:
    return Charge(
        name=name,
        reference=name.rsplit(" ", 1)[-1],
        period=MAY,
        items=items,
        off=[(what, usd(amount)) for what, amount in off],
        owed=usd(owed),
    )


def item(amount: str, *, meter: str = "cpu", description: str = "CPU") -> Item:
    return Item(description, meter, usd(amount), MAY)


def test_each_item_has_a_line_with_its_meter_and_period() -> None:
    later = Period(MAY.start + timedelta(days=3), MAY.end)
    lines = bill_lines([charge([Item("CPU", "cpu", usd("3.00"), later)], owed="3.00")])
    assert [(line.description, line.amount, line.period) for line in lines] == [
        ("CPU", usd("3.00"), later)
    ]
    assert lines[0].metadata == {"reference": "2026-000001", "meter": "cpu"}


def test_discounts_credits_and_tax_have_lines_of_their_own() -> None:
    lines = bill_lines(
        [
            charge(
                [item("100.00")],
                off=(
                    ("Discounts", "-10.00"),
                    ("Credits", "-40.00"),
                    ("VAT", "9.50"),
                    ("None", "0"),
                ),
                owed="59.50",
            )
        ]
    )
    assert [(line.description, line.amount.text) for line in lines] == [
        ("CPU", "100.00"),
        ("Discounts", "-10.00"),
        ("Credits", "-40.00"),
        ("VAT", "9.50"),
    ]


def test_what_was_credited_or_paid_before_is_taken_off() -> None:
    lines = bill_lines([charge([item("100.00")], owed="70.00")])
    assert lines[-1].description == "Credited or paid before"
    assert lines[-1].amount == usd("-30.00")


def test_an_item_of_nothing_has_no_line() -> None:
    assert len(bill_lines([charge([item("0.00"), item("1.00")], owed="1.00")])) == 1


@pytest.mark.parametrize(
    ("items", "lines"),
    [(MOST_LINES, MOST_LINES), (MOST_LINES + 1, 2)],
    ids=["as many as fit", "one more is rolled up by meter"],
)
def test_more_lines_than_the_provider_takes_are_rolled_up(items: int, lines: int) -> None:
    many = [item("0.01", meter=METERS[1 + at % 2]) for at in range(items)]
    found = bill_lines([charge(many, owed=str(Decimal(items) / 100))])
    assert len(found) == lines
    assert Money.total((line.amount for line in found), "USD") == usd(str(Decimal(items) / 100))


def test_too_many_charges_have_a_line_each() -> None:
    charges = [charge([item("0.10", meter=m) for m in METERS], owed="0.40") for _ in range(100)]
    lines = bill_lines(charges)
    assert len(lines) == 100
    assert {line.amount for line in lines} == {usd("0.40")}


def test_a_description_is_cut_to_what_the_provider_takes() -> None:
    [line] = bill_lines([charge([item("1.00", description="x" * 900)], owed="1.00")])
    assert len(line.description) == MOST_CHARACTERS


def test_the_breakdown_says_what_the_total_is_made_of() -> None:
    made = charge(
        [item("3.00"), item("2.00"), item("99.00", meter="")],
        off=(("Credits", "-5.00"), ("Prepaid credit", "0")),
        owed="99.00",
    )
    assert breakdown([made]) == {
        "cpu": "5.00 USD",
        "fees": "99.00 USD",
        "credits": "-5.00 USD",
    }


_cents = st.integers(-100_000, 100_000).map(lambda cents: Decimal(cents) / 100)


@given(
    parts=st.lists(
        st.tuples(
            st.lists(st.tuples(_cents, st.sampled_from(METERS)), max_size=300), _cents, _cents
        ),
        min_size=1,
        max_size=4,
    )
)
def test_the_lines_always_come_to_what_is_owed(
    parts: list[tuple[list[tuple[Decimal, str]], Decimal, Decimal]],
) -> None:
    charges = [
        charge(
            [item(str(amount), meter=meter) for amount, meter in items],
            off=(("Discounts", str(off)),),
            owed=str(owed),
        )
        for items, off, owed in parts
    ]
    lines = bill_lines(charges)
    assert len(lines) <= MOST_LINES
    assert Money.total((line.amount for line in lines), "USD") == Money.total(
        (one.owed for one in charges), "USD"
    )
