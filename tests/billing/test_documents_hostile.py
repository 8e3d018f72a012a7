from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pypdf import PdfReader

from billing.documents.as_json import invoice_json
from billing.documents.content import MOST_CHARACTERS, content_of
from billing.documents.document import InvoiceDocument, Party, TaxId
from billing.documents.pdf import render_pdf
from billing.documents.sheet import lines_csv
from billing.documents.text import MARK, one_line, visible_text
from tests.billing import documents

OVERRIDE = "\N{RIGHT-TO-LEFT OVERRIDE}"
HOSTILE = {
    "typst import": '#import "@preview/cetz:0.3.0": *',
    "typst panic": '#panic("no") #read("/etc/hostname") #sys.inputs',
    "typst file": '#image("/etc/hostname") #include "pdf.py"',
    "typst markup": "= Not a heading *not bold* _no_ `raw` $x^2$ <label> @ref",
    "typst brackets": "] } ) #[ { ( /* // */ ~ --- ...",
    "backslashes": "\\ \\\\ \\u{41} \\n \\#",
    "quotes": "\" ' ` \"\"\" '''",
    "json": '","total":"0.00","x":"',
    "html": "<b>bold</b> <script>alert(1)</script> &amp;",
    "formula": '=HYPERLINK("http://x.invalid","y")',
    "command": "@SUM(1+1)*cmd|' /C calc'!A0",
    "emoji": "👩‍🚀 🏳️‍🌈 🇩🇪 ❤️",
    "combining": "Z" + "\N{COMBINING ACUTE ACCENT}" * 40,
    "hebrew": "שלום 1,000.00 עולם",
}


def hostile(text: str) -> InvoiceDocument:
    """The text in every field of text."""
    shown = documents.rich()
    party = Party(text, (text, text), (TaxId(text, text),))
    return replace(
        shown,
        number=text,
        seller=party,
        buyer=party,
        tax_name=text,
        payment_terms=text,
        notes=(text,),
        fees=tuple(replace(fee, description=text, basis=text) for fee in shown.fees),
        meters=tuple(
            replace(
                group,
                meter=text,
                name=text,
                unit=text,
                lines=tuple(replace(line, description=text + ".") for line in group.lines),
            )
            for group in shown.meters
        ),
        discounts=tuple(replace(entry, name=text) for entry in shown.discounts),
        credits=tuple(replace(entry, name=text) for entry in shown.credits),
        prepaid=tuple(replace(entry, name=text) for entry in shown.prepaid),
        adjustments=tuple(replace(entry, description=text) for entry in shown.adjustments),
        sandboxes=tuple(replace(entry, sandbox=text) for entry in shown.sandboxes),
    )


def words(shown: InvoiceDocument) -> str:
    """Return what a PDF says, without the places where its lines end or may end."""
    pages = PdfReader(io.BytesIO(render_pdf(shown))).pages
    said = "".join(page.extract_text() for page in pages)
    return "".join(said.replace("\N{ZERO WIDTH SPACE}", "").split())


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(text, marks=documents.needs_fonts if name == "emoji" else ())
        for name, text in HOSTILE.items()
        # Neither of them is copied from a PDF in the order in which it was written.
        if name not in ("combining", "hebrew")
    ],
    ids=repr,
)
def test_a_hostile_text_is_shown_as_text_in_every_field(text: str) -> None:
    said = words(hostile(text))
    # In each of 43 places, and on top of the second page unless it is cut there.
    assert said.count("".join(text.split())) in (43, 44, 45)
    assert "1,893.91" in said


@pytest.mark.parametrize("text", HOSTILE.values())
def test_a_hostile_text_changes_no_figure(text: str) -> None:
    said = words(hostile(text))
    for figure in ("1,893.91", "−1,054.55", "36,000,000.123456789", "2,888.00", "−600.00"):
        assert figure in said


@documents.needs_fonts
@pytest.mark.parametrize(
    "text", ["x" * 10_000, "word " * 2_000, "字" * 10_000, "x" * 2_000_000], ids=len
)
def test_a_text_however_long_stays_on_the_paper(text: str) -> None:
    shown = replace(documents.rich(), buyer=Party(text), notes=(text,))
    pages = PdfReader(io.BytesIO(render_pdf(shown))).pages
    said: list[str] = []

    def note(part: str, _user: object, matrix: list[float], *_: object) -> None:
        if part.strip():
            assert 0 <= matrix[4] <= 595
            assert 0 <= matrix[5] <= 842
            said.append(part)

    for page in pages:
        page.extract_text(visitor_text=note)
    characters = sum(part.count(text[0]) for part in said)
    # Twice all of them, or all but the last, which stands for those that were cut.
    assert characters >= 2 * (text[:MOST_CHARACTERS].count(text[0]) - 1)
    # No line is wider than its column.
    assert max(len(part.strip()) for part in said) < 150


def test_a_text_past_the_limit_is_cut_in_the_pdf_and_whole_in_json() -> None:
    text = "x" * (MOST_CHARACTERS + 1)
    shown = replace(documents.rich(), notes=(text, text[1:]))
    cut, whole = json.loads(json.dumps(content_of(shown)))["notes"]
    assert cut == "x" * (MOST_CHARACTERS - 1) + "…"
    assert whole == text[1:]
    assert json.loads(invoice_json(shown))["notes"] == [text, text[1:]]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("nul\x00 bell\x07 delete\x7f next\x85", f"nul{MARK} bell{MARK} delete{MARK} next{MARK}"),
        ("half \ud800 \udfff pair", f"half {MARK} {MARK} pair"),
        ("no character \ufdd0 \uffff \U0010ffff", f"no character {MARK} {MARK} {MARK}"),
        (f"pay {OVERRIDE}00.1\u202c now", f"pay {MARK}00.1{MARK} now"),
        ("isolate \u2066a\u2069", f"isolate {MARK}a{MARK}"),
        ("tab\tline\nline\r\nline\u2028end", "tab line line line end"),
    ],
)
def test_what_cannot_be_shown_has_a_mark(text: str, shown: str) -> None:
    assert one_line(text) == shown
    said = words(hostile(text))
    assert "".join(shown.split()) in said
    assert "1,893.91" in said
    assert OVERRIDE not in said


@pytest.mark.parametrize("text", [*documents.WORLD, "\u200fשלום\u200e", "e\u0301", "👨‍👩‍👧"])
def test_a_name_keeps_every_character_that_it_needs(text: str) -> None:
    assert visible_text(text) == text


@given(st.text())
def test_what_is_shown_can_be_written_down(text: str) -> None:
    shown = one_line(text)
    assert shown.encode("utf-8").decode("utf-8") == shown
    assert not any(ord(character) < 32 for character in shown)
    assert one_line(shown) == shown


@given(st.text(st.characters(codec=None), max_size=60))
def test_any_text_at_all_makes_a_document(text: str) -> None:
    shown = replace(documents.small(), buyer=Party(text, (text,)), notes=(text,))
    assert render_pdf(shown).startswith(b"%PDF-")
    assert json.loads(invoice_json(shown))["notes"] == [text]
    assert lines_csv(shown)


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "＋1", "－1", "＠1"]
)
def test_text_that_a_spreadsheet_would_run_begins_with_an_apostrophe(text: str) -> None:
    sheet = lines_csv(hostile(text)).decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(sheet, newline="")))
    assert {row["invoice"] for row in rows} == {f"'{text}"}
    assert {row["description"] for row in rows} == {f"'{text}", f"'{text}."}
    assert {row["meter"] for row in rows} == {"", f"'{text}"}
    assert {row["unit"] for row in rows} == {"", f"'{text}"}
    # A number below zero is a number.
    assert [row["amount"] for row in rows][1] == "-1054.55"
    for row in rows:
        for column in ("quantity", "unit_price", "discount", "amount"):
            assert row[column] == "" or Decimal(row[column]).is_finite()


@pytest.mark.parametrize("text", ["plain", "a=b", "1 = 1", "'quoted", "", ' "', "a,b", "a\nb"])
def test_other_text_is_in_the_sheet_as_it_is(text: str) -> None:
    sheet = lines_csv(hostile(text)).decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(sheet, newline="")))
    assert rows[0]["description"] == text


def test_a_control_character_in_the_sheet_has_a_mark() -> None:
    sheet = lines_csv(hostile(f"a\x00b{OVERRIDE}c\ud800")).decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(sheet, newline="")))
    assert rows[0]["description"] == f"a{MARK}b{MARK}c{MARK}"
