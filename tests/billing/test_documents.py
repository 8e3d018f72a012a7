from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import typst
from hypothesis import given
from hypothesis import strategies as st
from pypdf import PdfReader

from billing.documents import pdf
from billing.documents.as_json import invoice_json
from billing.documents.content import MOST_SANDBOXES, SANDBOXES_THAT_FIT, content_of
from billing.documents.document import (
    MOST_DAYS,
    MOST_LINES,
    Adjustment,
    DocumentKind,
    FeeLine,
    FeeLineKind,
    InvoiceDocument,
    MeterLines,
    PricePart,
    SandboxCost,
)
from billing.documents.pdf import render_pdf
from billing.documents.sheet import COLUMNS, lines_csv
from billing.lifecycle import InvoiceStatus
from billing.money import CurrencyMismatchError, Money, decimals_of
from billing.totals import Tax
from metering.period import Period
from tests.billing import documents
from tests.billing.documents import (
    MAY,
    days,
    document,
    money,
    needs_fonts,
    one_meter,
    usage_line,
)

IN_ANOTHER_PROCESS = """
import hashlib
from billing.documents.pdf import render_pdf
from tests.billing import documents
print(hashlib.sha256(render_pdf(documents.worldwide())).hexdigest())
"""
IN_A_FORK = """
import os, sys
from billing.documents.pdf import RenderedBeforeForkError, render_pdf
from tests.billing import documents
render_pdf(documents.small())
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
try:
    render_pdf(documents.small())
except RenderedBeforeForkError:
    os._exit(7)
os._exit(0)
"""


def pages(shown: InvoiceDocument) -> list[str]:
    reader = PdfReader(io.BytesIO(render_pdf(shown)))
    return [page.extract_text().replace("\N{NO-BREAK SPACE}", " ") for page in reader.pages]


def printed(amount: Money) -> str:
    text = f"{amount.amount:,.{decimals_of(amount.currency)}f}"
    return text.replace("-", "−")


def in_all_currencies(currency: str) -> InvoiceDocument:
    def amount(units: int) -> Money:
        return Money.of_minor_units(units, currency)

    lines = (
        usage_line("1234567.125", "0.0012", amount(123_456_789), name="CPU time"),
        usage_line("0.5", "1", amount(1), name="Memory"),
    )
    fee = FeeLine(FeeLineKind.FEE, "Team plan", MAY, amount(29_900))
    shown = document(
        currency=currency,
        fees=(fee,),
        meters=tuple(one_meter(line.description, "units", line) for line in lines),
        adjustments=(Adjustment("Correction", amount(-1234)),),
        tax=Tax(Decimal("0.055")),
    )
    return replace(shown, days=days(amount(5), amount(7)))


def figures(shown: InvoiceDocument) -> Iterator[Money]:
    """Yield every amount, with the sign with which it is printed."""
    t = shown.totals
    yield from (t.usage_fee, t.total_amount, t.amount_due, t.tax)
    if shown.fees:
        yield t.subscription_fee
    yield from (fee.amount for fee in shown.fees)
    for group in shown.meters:
        yield group.amount
        yield from (line.amount for line in group.lines)
        yield from (-line.discount for line in group.lines if line.discount)
    yield from (-discount.amount for discount in shown.discounts)
    yield from (discount.base for discount in shown.discounts)
    yield from (-credit.amount for credit in shown.credits + shown.prepaid)
    yield from (adjustment.amount for adjustment in shown.adjustments)
    if len(shown.sandboxes) <= SANDBOXES_THAT_FIT:
        yield from (sandbox.amount for sandbox in shown.sandboxes)


def test_a_pdf_is_the_same_bytes_again() -> None:
    assert render_pdf(documents.rich()) == render_pdf(documents.rich())


def test_a_pdf_is_the_same_bytes_in_another_process() -> None:
    other = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS], capture_output=True, text=True, check=True
    )
    here = hashlib.sha256(render_pdf(documents.worldwide())).hexdigest()
    assert other.stdout.strip() == here


def test_a_fork_of_a_process_that_made_a_pdf_is_refused_one() -> None:
    assert subprocess.run([sys.executable, "-c", IN_A_FORK], check=False).returncode == 7


def test_a_pdf_does_not_say_when_or_where_it_was_made() -> None:
    made = render_pdf(documents.small())
    assert b"CreationDate" not in made
    assert b"CreateDate" not in made
    assert str(pdf._FOLDER).encode() not in made


@pytest.mark.parametrize(
    "shown",
    [
        pytest.param(documents.small(), id="small"),
        pytest.param(documents.rich(), id="rich"),
        pytest.param(documents.long(), id="long"),
        pytest.param(documents.worldwide(), id="worldwide"),
        pytest.param(in_all_currencies("JPY"), id="JPY"),
        pytest.param(in_all_currencies("KWD"), id="KWD"),
        pytest.param(in_all_currencies("EUR"), id="EUR"),
    ],
)
def test_a_pdf_says_every_figure(shown: InvoiceDocument) -> None:
    said = "\n".join(pages(shown)).split()
    assert [printed(amount) for amount in figures(shown) if printed(amount) not in said] == []
    for line in shown.usage_lines:
        assert f"{Decimal(line.quantity):,}" in said
        assert line.unit_price is None or line.unit_price in said
        for part in line.parts:
            assert part.unit_price in said


def test_a_pdf_says_who_when_and_what_it_rests_on() -> None:
    said = "\n".join(pages(documents.rich()))
    for text in (
        "SB-2026-000123",
        "SoulBox GmbH",
        "VAT ID DE123456789",
        "Bristol BS1 5TY",
        "Company no. 07654321",
        "3 Jun 2026",
        "1–31 May 2026",
        "Due by 17 Jun 2026",
        "1 May 2026, 00:00 – 17 May 2026, 14:15",
        "Units, tier 2",
        "At least",
        "Discount: 2.5 % of 3,592.50 USD + 5.00 USD",
        "Welcome, until 30 June 2026",
        "VAT 19 %",
        "Prepaid credit used",
        "Highest on 10 May 2026: 180.97 USD",
        "Payable within 14 days",
        "Europe/Berlin",
        "Thank you for building with SoulBox.",
    ):
        assert text in said


@needs_fonts
@pytest.mark.parametrize("name", documents.WORLD[:3] + documents.WORLD[6:9])
def test_a_name_from_anywhere_can_be_copied_from_the_pdf(name: str) -> None:
    assert name in "\n".join(pages(documents.worldwide()))


def test_figures_of_a_column_stand_under_each_other() -> None:
    starts: dict[str, set[int]] = {"quantity": set(), "amount": set()}

    def note(text: str, _user: object, matrix: list[float], *_: object) -> None:
        # In tenths of a point. A digit is as wide as any other, so figures of one length that
        # end at one place start at one place too.
        if re.fullmatch(r"[0-9]{2}\.[0-9]{2}", text.strip()):
            starts["amount"].add(round(matrix[4] * 10))
        if re.fullmatch(r"[0-9]{3},[0-9]{3}\.[0-9]{2}", text.strip()):
            starts["quantity"].add(round(matrix[4] * 10))

    PdfReader(io.BytesIO(render_pdf(documents.long()))).pages[1].extract_text(visitor_text=note)
    assert {column: len(places) for column, places in starts.items()} == {
        "quantity": 1,
        "amount": 1,
    }


def test_a_quantity_with_fewer_decimals_is_told_to_stand_under_the_point() -> None:
    told = json.dumps(content_of(documents.rich()))
    content = json.loads(told)
    lines = [line for group in content["meters"] for line in group["lines"]]
    assert content["quantity_decimals"] == 12
    assert [line["quantity_decimals"] for line in lines] == [9, 2, 0, 12]


@needs_fonts
def test_a_long_invoice_has_numbered_pages_with_the_headings_repeated() -> None:
    said = pages(documents.long())
    assert len(said) == 4
    for at, page in enumerate(said, start=1):
        assert f"{at} / 4" in page
    for page in said[:3]:
        assert "UNIT PRICE" in page
    for page in said[1:]:
        assert "Invoice SB-2026-000123" in page
    assert "Amount due USD" in said[-1]


def test_many_sandboxes_have_an_annex_with_its_headings_on_each_page() -> None:
    shown = documents.with_annex(300)
    said = pages(shown)
    annex = [page for page in said if "COST USD" in page]
    assert len(annex) == 3
    assert "Annex: cost by sandbox" in annex[0]
    assert all(page.count("SANDBOX\n") + page.count("SANDBOX ") >= 1 for page in annex)
    words = " ".join(annex).split()
    for sandbox in shown.sandboxes:
        assert sandbox.sandbox in words
    assert printed(Money.total((entry.amount for entry in shown.sandboxes), "USD")) in words


@pytest.mark.parametrize(
    ("count", "has_annex"),
    [(0, False), (SANDBOXES_THAT_FIT, False), (SANDBOXES_THAT_FIT + 1, True)],
)
def test_sandboxes_that_do_not_fit_have_an_annex(count: int, *, has_annex: bool) -> None:
    shown = documents.with_annex(count)
    assert content_of(shown)["has_annex"] is has_annex
    assert ("Annex" in "".join(pages(shown))) is has_annex


def test_an_annex_is_bounded_and_adds_up_all_the_same() -> None:
    cost = SandboxCost("box", money("0.01"))
    shown = replace(documents.small(), sandboxes=(cost,) * (MOST_SANDBOXES + 7))
    content = json.loads(json.dumps(content_of(shown)))
    assert len(content["sandboxes"]) == MOST_SANDBOXES + 1
    assert content["sandboxes"][-1] == ["7 more sandboxes", "0.07"]
    assert content["sandboxes_amount"] == "100.07"
    assert content["sandboxes_count"] == "10,007"


def test_without_fonts_there_are_boxes_and_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = typst.Compiler(
        pdf._TEMPLATE, root=pdf._FOLDER, font_paths=typst.Fonts(include_system_fonts=False)
    )
    monkeypatch.setattr(pdf, "_compiler", lambda: bare)
    said = "\n".join(pages(documents.worldwide()))
    assert "JPY 11,545" in said
    assert documents.WORLD[2] in said
    assert documents.WORLD[7] not in said


def test_what_was_large_is_forgotten() -> None:
    def resident_pages() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    def render(at: int) -> None:
        render_pdf(replace(documents.with_annex(1500), number=f"SB-2026-{at}"))

    render(0)
    before = resident_pages()
    for at in range(1, 4):
        render(at)
    # Kept, each would take 40 MB and more.
    assert (resident_pages() - before) * resource.getpagesize() < 60_000_000


@pytest.mark.parametrize(
    ("number", "status", "kind", "said"),
    [
        (None, InvoiceStatus.DRAFT, DocumentKind.USAGE, ["Draft", "DRAFT", "may still change"]),
        ("SB-1", InvoiceStatus.VOID, DocumentKind.USAGE, ["VOID", "nothing is due"]),
        (
            "SB-1",
            InvoiceStatus.PAID,
            DocumentKind.FINAL,
            ["Final invoice", "Amount paid", "Paid on 5 Jun 2026."],
        ),
        ("SB-1", InvoiceStatus.PENDING, DocumentKind.CREDIT_NOTE, ["Credit note"]),
    ],
)
def test_a_pdf_says_how_the_invoice_stands(
    number: str | None, status: InvoiceStatus, kind: DocumentKind, said: list[str]
) -> None:
    shown = replace(
        documents.small(), number=number, status=status, kind=kind, paid_on=date(2026, 6, 5)
    )
    text = "".join(pages(shown))
    assert [words for words in said if words not in text] == []


def test_an_empty_invoice_is_one_page() -> None:
    shown = replace(document(), payment_terms="", due_on=None, issued_on=None)
    (page,) = pages(shown)
    assert "USD 0.00" in page
    assert "Nothing is left to pay." in page


def test_what_is_left_below_zero_is_shown_as_carried_over() -> None:
    gone = FeeLine(FeeLineKind.UNUSED_FEE, "Unused year", MAY, money("-100.00"))
    (page,) = pages(document(fees=(gone,), tax=Tax(Decimal("0.1"))))
    assert "Carried over as prepaid credit 110.00" in page
    assert "−10.00" in page


@pytest.mark.parametrize(
    ("start", "end", "zone", "span"),
    [
        ("2026-05-01T00:00", "2026-06-01T00:00", "UTC", "1–31 May 2026"),
        ("2026-05-01T00:00", "2026-05-02T00:00", "UTC", "1 May 2026"),
        ("2026-05-15T00:00", "2026-06-15T00:00", "UTC", "15 May 2026 – 14 Jun 2026"),
        ("2026-01-01T00:00", "2027-01-01T00:00", "UTC", "1 Jan 2026 – 31 Dec 2026"),
        ("2026-04-30T22:00", "2026-05-31T22:00", "Europe/Berlin", "1–31 May 2026"),
        ("2026-03-01T05:00", "2026-04-01T04:00", "America/New_York", "1–31 Mar 2026"),
        ("2026-05-01T00:00", "2026-05-01T06:15", "UTC", "1 May 2026, 00:00–06:15"),
        (
            "2026-05-01T00:00",
            "2026-05-02T06:15:30",
            "UTC",
            "1 May 2026, 00:00 – 2 May 2026, 06:15:30",
        ),
        # The hour that comes twice: without the days it would end before it starts.
        (
            "2026-10-25T00:45",
            "2026-10-25T01:15",
            "Europe/Berlin",
            "25 Oct 2026, 02:45 – 25 Oct 2026, 02:15",
        ),
    ],
)
def test_a_span_is_told_in_local_time(start: str, end: str, zone: str, span: str) -> None:
    period = Period(*(datetime.fromisoformat(edge).replace(tzinfo=UTC) for edge in (start, end)))
    shown = replace(documents.small(), period=period, zone=ZoneInfo(zone))
    facts = json.loads(json.dumps(content_of(shown)))["facts"]
    told = {fact["name"]: fact["value"] for fact in facts}
    assert told["Period"].replace("\N{NO-BREAK SPACE}", " ") == span


@given(st.decimals(allow_nan=False, allow_infinity=False, places=9))
def test_a_figure_says_the_number_and_nothing_else(number: Decimal) -> None:
    text = f"{number:f}"
    line = usage_line(text, text, money("0"), name="CPU time")
    shown = document(meters=(one_meter("CPU time", "cpu_seconds", line),))
    told = json.loads(json.dumps(content_of(shown)))["meters"][0]["lines"][0]
    for figure in (told["quantity"], told["price"]):
        assert Decimal(figure.replace(",", "").replace("−", "-")) == number
    assert told["quantity_decimals"] == 9


def test_bars_are_as_high_as_their_day_cost() -> None:
    shown = replace(documents.small(), days=days(money("0"), money("1"), money("4"), money("2.5")))
    assert json.loads(json.dumps(content_of(shown)))["days"]["bars"] == [0, 250, 1000, 625]
    without = replace(documents.small(), days=days(money("0"), money("0")))
    assert content_of(without)["days"] is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"number": None}, "pending invoice has the number None"),
        ({"status": InvoiceStatus.DRAFT}, "draft invoice has the number"),
        ({"meters": ()}, "usage add up to"),
        ({"fees": ()}, "fees add up to"),
        ({"discounts": ()}, "discounts add up to"),
        ({"credits": ()}, "credits add up to"),
        ({"prepaid": ()}, "prepaid credit add up to"),
        ({"adjustments": ()}, "adjustments add up to"),
        ({"tax": Tax(Decimal("0.19"), is_inclusive=True)}, "total add up to"),
        ({"days": days(money("0.005"))}, "not in whole smallest units"),
        ({"days": days(money("-1"))}, "less than nothing"),
        ({"days": days(money("1")) * (MOST_DAYS + 1)}, "401 days"),
        ({"sandboxes": (SandboxCost("box", Money(Decimal("0.5"), "JPY")),)}, "two currencies"),
    ],
)
def test_a_document_that_is_not_right_is_refused(changes: dict[str, object], reason: str) -> None:
    shown = documents.rich()
    with pytest.raises(ValueError, match=reason):
        replace(shown, **changes)  # type: ignore[arg-type] # one field each


def test_a_second_currency_is_refused_by_name() -> None:
    with pytest.raises(CurrencyMismatchError):
        replace(documents.small(), days=days(Money(Decimal(1), "EUR")))


def test_a_document_of_too_many_lines_is_refused() -> None:
    line = usage_line("1", "0", money("0"), name="CPU time")
    group = one_meter("CPU time", "cpu_seconds", *[line] * MOST_LINES)
    document(meters=(group,))
    with pytest.raises(ValueError, match="5001 lines"):
        document(meters=(group, one_meter("Memory", "memory_gb_seconds", line)))


@pytest.mark.parametrize("text", ["", "1e3", "1,000", "=1", "1/3", "NaN", " 1", "1.", ".5", "١"])
def test_a_quantity_that_is_no_decimal_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a decimal number"):
        usage_line(text, "1", money("0"), name="CPU time")
    with pytest.raises(ValueError, match="not a decimal number"):
        usage_line("1", text, money("0"), name="CPU time")
    part = documents.rich().usage_lines[1].parts[0]
    for field in ("quantity", "unit_price"):
        with pytest.raises(ValueError, match=f"PricePart.{field} is not a decimal number"):
            replace(part, **{field: text})  # type: ignore[arg-type] # one of two texts


def test_a_meter_without_lines_is_refused() -> None:
    with pytest.raises(ValueError, match="is empty"):
        MeterLines("cpu", "CPU time", "cpu_seconds", ())


def test_the_sheet_has_a_row_a_line_with_plain_numbers() -> None:
    shown = documents.rich()
    sheet = lines_csv(shown)
    assert sheet.startswith(b"\xef\xbb\xbfinvoice,kind,meter,")
    lines = (*shown.fees, *shown.usage_lines, *shown.adjustments)
    assert sheet.count(b"\r\n") == 1 + len(lines)
    assert sheet.replace(b"\r\n", b"").count(b"\n") == 0
    header, *rows = csv.reader(io.StringIO(sheet.decode("utf-8-sig"), newline=""))
    assert tuple(header) == COLUMNS
    named = [dict(zip(header, row, strict=True)) for row in rows]
    fees, usage = named[: len(shown.fees)], named[len(shown.fees) : -len(shown.adjustments)]
    adjusted = named[-len(shown.adjustments) :]
    assert [(row["kind"], row["amount"]) for row in adjusted] == [
        ("adjustment", "-120.00"),
        ("adjustment", "3.21"),
    ]
    assert [row["amount"] for row in fees] == ["299.00", "-1054.55"]
    assert [row["kind"] for row in fees] == ["fee", "unused_fee"]
    for row, line in zip(usage, shown.usage_lines, strict=True):
        assert (row["invoice"], row["kind"], row["currency"]) == ("SB-2026-000123", "usage", "USD")
        assert (row["quantity"], row["unit_price"]) == (line.quantity, line.unit_price or "")
        assert (row["amount"], row["discount"]) == (line.amount.text, line.discount.text)
        assert row["start"] == line.period.start.strftime("%Y-%m-%dT%H:%M:%SZ")
        assert row["end"] == line.period.end.strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize(("currency", "amount"), [("JPY", "123456789"), ("KWD", "123456.789")])
def test_the_sheet_has_the_decimals_of_the_currency(currency: str, amount: str) -> None:
    text = lines_csv(in_all_currencies(currency)).decode("utf-8-sig")
    assert [row["amount"] for row in csv.DictReader(io.StringIO(text))][1] == amount


def test_json_holds_everything_and_no_number_for_an_amount() -> None:
    def refuse(text: str) -> None:
        raise AssertionError(text)

    shown = documents.rich()
    content = json.loads(invoice_json(shown), parse_float=refuse)
    assert (content["number"], content["currency"]) == ("SB-2026-000123", "USD")
    assert (content["kind"], content["status"]) == ("usage", "pending")
    assert content["period"] == {"start": "2026-04-30T22:00:00Z", "end": "2026-05-31T22:00:00Z"}
    assert (content["zone"], content["issued_on"]) == ("Europe/Berlin", "2026-06-03")
    assert content["paid_on"] is None
    assert content["tax"] == {"rate": "0.19", "is_inclusive": False}
    assert content["totals"]["amount_due"] == "1893.91"
    assert content["totals"]["adjustments"] == "-116.79"
    assert content["discounts"][1] == {
        "name": "By the year",
        "base": "3592.50",
        "percent": "2.5",
        "fixed_amount": "5.00",
        "amount": "94.81",
    }
    line = content["meters"][0]["lines"][0]
    assert (line["quantity"], line["unit_price"]) == ("36000000.123456789", "0.000012")
    part: PricePart = shown.usage_lines[1].parts[3]
    assert content["meters"][0]["lines"][1]["parts"][3] == {
        "kind": "units",
        "tier": 2,
        "quantity": part.quantity,
        "unit_price": part.unit_price,
    }
    assert content["days"][0] == {"day": "2026-05-01", "amount": "70.00"}
    assert len(content["sandboxes"]) == len(shown.sandboxes)


@pytest.mark.parametrize(("currency", "due"), [("JPY", "130277156"), ("KWD", "130277.156")])
def test_json_has_the_decimals_of_the_currency(currency: str, due: str) -> None:
    assert json.loads(invoice_json(in_all_currencies(currency)))["totals"]["amount_due"] == due
