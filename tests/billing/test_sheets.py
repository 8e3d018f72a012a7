from __future__ import annotations

import pytest

from billing.documents.sheet import text_cell
from billing.sheets import Layout, SheetRefusedError, number_refusal, read_sheet, written_text

LAYOUT = Layout(columns=("id", "name", "note"), required=("id", "name"), most_rows=3, most_bytes=99)


@pytest.mark.parametrize(
    "content",
    [
        b"id,name\n1,Ada\n",
        b"\xef\xbb\xbfid,name\r\n1,Ada\r\n",
        b'id,name\r1,"Ada"\r',
        b" id , name \n\n 1 , Ada \n,\n",
    ],
)
def test_ways_of_writing_the_same_are_read_alike(content: bytes) -> None:
    (row,) = read_sheet(content, LAYOUT)
    assert (dict(row.cells), row.fault) == ({"id": "1", "name": "Ada"}, "")


def test_rows_have_the_numbers_that_spreadsheets_show() -> None:
    content = b'id,name\n1,"two\nlines"\n\n3,x\n'
    assert [row.number for row in read_sheet(content, LAYOUT)] == [2, 4]


@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        (b"", "has to name the columns: id,name,note"),
        (b"id;name\n1;Ada\n", "divided by semicolons"),
        (b"id\tname\n1\tAda\n", "divided by tabs"),
        (b"\xff\xfei\x00d\x00", "UTF-16"),
        (b"id,name\n1,Ad\xe4\n", "Line 2 holds a byte that is not UTF-8"),
        (b"id,name\n1,\x00\n", "Line 2 holds a NUL"),
        (b'id,name\n1,"Ada\n', "is not CSV"),
        (b"id,name,colour\n1,Ada,red\n", "no column 'colour'"),
        (b"id,name,id\n1,Ada,1\n", "column id is there twice"),
        (b"id,note\n1,x\n", "column name is missing"),
        (b"id,name\n", "no rows below its header"),
        (b"id,name\n1,a\n2,b\n3,c\n4,d\n", "more than 3 rows"),
        (b"id,name\n1," + b"x" * 99, "99 is the most"),
    ],
)
def test_what_is_not_clear_is_refused_with_the_way_out(content: bytes, refusal: str) -> None:
    with pytest.raises(SheetRefusedError, match=refusal):
        read_sheet(content, LAYOUT)


def test_a_cell_longer_than_csv_reads_is_refused_and_no_error() -> None:
    wide = Layout(LAYOUT.columns, LAYOUT.required, most_rows=3, most_bytes=10**6)
    with pytest.raises(SheetRefusedError, match="field larger than field limit"):
        read_sheet(b"id,name\n1," + b"x" * 200_000, wide)


def test_a_row_with_a_cell_too_many_says_so_and_stops_no_other() -> None:
    broken, good = read_sheet(b"id,name\n1,Ada, Countess\n2,Bob\n", LAYOUT)
    assert "3 cells, and the header 2" in broken.fault
    assert not good.fault


@pytest.mark.parametrize("cell", ["1", "-1", "0.5", "1234.50"])
def test_plain_numbers_are_numbers(cell: str) -> None:
    assert not number_refusal("amount", cell)


@pytest.mark.parametrize(
    "cell", ["", "1,50", "1.234,50", "1e5", "1_000", "+1", "NaN", "٣", "=1", ".5", "1.", "9" * 19]
)
def test_what_people_read_in_two_ways_is_no_number(cell: str) -> None:
    assert "amount is" in number_refusal("amount", cell)


@pytest.mark.parametrize("text", ["Ada", "=1+1", "'=1", "'", "-", "", "a\u202eb"])
def test_text_comes_back_from_our_own_files_as_it_was(text: str) -> None:
    assert written_text(text_cell(text), text) == text


def test_an_apostrophe_before_a_formula_is_ours_and_another_is_not() -> None:
    assert written_text("'=1+1") == "=1+1"
    assert written_text("'tis") == "'tis"
