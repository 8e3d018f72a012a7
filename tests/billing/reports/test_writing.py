from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest

from billing.money import Money
from billing.reports.month import Month
from billing.reports.receivables import age_of
from billing.reports.rows import FocusRow, Row, Sums
from billing.reports.writing import ROWS_AT_ONCE, Format, write

HOSTILE = (
    "=cmd()",
    "+1",
    "-2+3",
    "@x",
    "\tx",
    "\rx",
    "a\nb",
    'say "x", y',
    "＝1+1",
    "x" * 10_000,
    "שלום",
    "👩‍🚀",
    "'quoted",
)


@dataclass(frozen=True, slots=True)
class Line(Row):
    name: str
    amount: Money | None
    quantity: Fraction
    at: datetime


def line(name: str, amount: str = "-1.5") -> Line:
    at = datetime(2026, 5, 1, tzinfo=UTC)
    return Line(name, Money(Decimal(amount), "USD"), Fraction(1, 8), at)


def read_csv(rows: list[Line]) -> list[list[str]]:
    text = b"".join(write(Line, rows, Format.CSV)).decode("utf-8-sig")
    return list(csv.reader(io.StringIO(text, newline=""), strict=True))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_comes_back_as_one_cell_that_is_no_formula(name: str) -> None:
    [header, cells] = read_csv([line(name)])
    assert header == ["name", "amount", "quantity", "at"]
    assert cells[0].removeprefix("'") == name.removeprefix("'")
    assert not cells[0].startswith(tuple("=+-@\t\r\n＝＋－＠"))


def test_figures_stay_figures_below_zero_too() -> None:
    [_, cells] = read_csv([line("x")])
    assert cells[1:] == ["-1.50", "0.125", "2026-05-01T00:00:00Z"]


@pytest.mark.parametrize("name", HOSTILE)
def test_json_gives_text_back_as_it_was_and_figures_as_text(name: str) -> None:
    [row] = json.loads(b"".join(write(Line, [line(name)], Format.JSON)))
    assert row == {
        "name": name,
        "amount": "-1.50",
        "quantity": "0.125",
        "at": "2026-05-01T00:00:00Z",
    }


@pytest.mark.parametrize("count", [0, 1, ROWS_AT_ONCE - 1, ROWS_AT_ONCE, 2 * ROWS_AT_ONCE + 1])
def test_every_row_is_written_once_however_the_pieces_fall(count: int) -> None:
    rows = [line(str(number)) for number in range(count)]
    names = [str(number) for number in range(count)]
    assert [row[0] for row in read_csv(rows)[1:]] == names
    written = json.loads(b"".join(write(Line, rows, Format.JSON)))
    assert [row["name"] for row in written] == names


def test_rows_are_written_before_the_last_one_is_made() -> None:
    made = 0

    def rows() -> object:
        nonlocal made
        for made in range(1, 10 * ROWS_AT_ONCE + 1):  # noqa: B007 - counted for the test
            yield line("x")

    next(iter(write(Line, rows(), Format.CSV)))  # type: ignore[arg-type] # a generator of lines
    assert made == ROWS_AT_ONCE


def test_sums_are_by_currency() -> None:
    sums = Sums()
    for row in (line("a", "1"), line("b", "2.25")):
        sums.add(row)
    at = datetime(2026, 5, 1, tzinfo=UTC)
    sums.add(Line("c", Money(Decimal(7), "JPY"), Fraction(0), at))
    sums.add(Line("d", None, Fraction(0), at))
    assert [(currency, figures["amount"].text) for currency, figures in sums.by_currency()] == [
        ("JPY", "7"),
        ("USD", "3.25"),
    ]


def test_focus_columns_are_named_as_in_the_specification() -> None:
    columns = FocusRow.columns()
    assert {
        "BilledCost",
        "EffectiveCost",
        "BillingAccountId",
        "ChargePeriodStart",
        "ConsumedUnit",
        "InvoiceId",
        "InvoiceIssuerName",
        "SkuPriceId",
        "SubAccountId",
        "Tags",
    } <= set(columns)


@pytest.mark.parametrize(
    "text",
    ["", "2026", "2026-13", "2026-00", "26-05", "2026-5", "2026-05-01", "٢٠٢٦-٠٥", "0001-01"],
)
def test_what_is_no_month_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="month"):
        Month.parse(text)


def test_a_month_is_known_in_every_time_zone() -> None:
    around = Month.parse("2026-12").around
    assert around.start == datetime(2026, 11, 29, 22, tzinfo=UTC)
    assert around.end == datetime(2027, 1, 2, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("days", "column"),
    [
        (-5, "not_due"),
        (0, "not_due"),
        (1, "days_1_to_30"),
        (30, "days_1_to_30"),
        (31, "days_31_to_60"),
        (60, "days_31_to_60"),
        (61, "days_61_to_90"),
        (90, "days_61_to_90"),
        (91, "days_over_90"),
    ],
)
def test_an_invoice_ages_from_the_day_after_it_was_due(days: int, column: str) -> None:
    assert age_of(days) == column
