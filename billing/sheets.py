"""Rows that people bring as CSV, read strictly: what is not clear is refused, with the way out."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Final

from billing.documents.sheet import text_cell
from billing.documents.text import visible_text

HEADER_ROW: Final = 1
"""A file's first row; spreadsheets count the same way."""
MOST_SHOWN: Final = 40
"""So many characters of a cell a message quotes."""

# What other programs put between cells; the exports of spreadsheets differ by country.
_OTHER_DELIMITERS: Final = {";": "semicolons", "\t": "tabs", "|": "bars"}
_UTF_16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")


class SheetRefusedError(ValueError):
    """A file cannot be read as rows at all; the message says what to do with it."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Which columns a file may have, which it must have, and how large it may be."""

    columns: Sequence[str]
    required: Sequence[str]
    most_rows: int
    most_bytes: int


@dataclass(frozen=True, slots=True)
class SheetRow:
    """A row: its number as spreadsheets show it, and its cells by column, stripped.

    `fault` says why the row has no cells that could be read. Empty: it has.
    """

    number: int
    cells: Mapping[str, str]
    fault: str = ""


def sha256_of(content: bytes) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def read_sheet(content: bytes, layout: Layout) -> tuple[SheetRow, ...]:
    """Return the rows below the header; empty ones are left out. Raises SheetRefusedError.

    UTF-8, with or without a byte order mark, and commas between the cells.
    """
    if len(content) > layout.most_bytes:
        raise SheetRefusedError(
            f"The file has {len(content):,} bytes, and {layout.most_bytes:,} is the most. Split it."
        )
    records = _records(_text(content))
    header = _header(next(records, []), layout)
    rows: list[SheetRow] = []
    for number, cells in enumerate(records, HEADER_ROW + 1):
        if not any(cell.strip() for cell in cells):
            continue
        if len(rows) == layout.most_rows:
            raise SheetRefusedError(
                f"The file has more than {layout.most_rows:,} rows. Split it into several."
            )
        rows.append(_row(number, cells, header))
    if not rows:
        raise SheetRefusedError("The file has no rows below its header.")
    return tuple(rows)


def quoted(cell: str) -> str:
    """Return the beginning of a cell as a message quotes it."""
    shown = visible_text(cell)
    return repr(shown if len(shown) <= MOST_SHOWN else f"{shown[:MOST_SHOWN]}…")


def written_text(cell: str, before: str = "") -> str:
    """Return the text that a cell of our own files was written from.

    They put an apostrophe before what a spreadsheet would take for a formula, and marks for
    characters that do not show: a cell that says what `before` is written as is that.
    """
    if cell == text_cell(before).strip():
        return before
    rest = cell.removeprefix("'")
    return rest if rest != cell and text_cell(rest) == cell else cell


def _text(content: bytes) -> str:
    if content.startswith(_UTF_16_MARKS):
        raise SheetRefusedError(
            "The file is in UTF-16. Save it as CSV UTF-8 (in Excel: CSV UTF-8, comma delimited)."
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise SheetRefusedError(
            f"Line {line} holds a byte that is not UTF-8. Save the file as CSV UTF-8."
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise SheetRefusedError(f"Line {line} holds a NUL. The file is not CSV: export it again.")
    return text


def _records(text: str) -> Iterator[list[str]]:
    # Line ends are left to csv's reader: inside quotes they are part of a cell.
    reader = csv.reader(StringIO(text, newline=""), strict=True)
    try:
        yield from reader
    except csv.Error as error:
        raise SheetRefusedError(
            f"Line {reader.line_num} is not CSV: {error}. Look at its quotes."
        ) from None


def _header(cells: Sequence[str], layout: Layout) -> Sequence[str]:
    names = [cell.strip() for cell in cells]
    expected = ",".join(layout.columns)
    if len(names) < 2:  # A file of one column alone says too little for any import.
        for mark, name in _OTHER_DELIMITERS.items():
            if mark in "".join(names):
                raise SheetRefusedError(
                    f"The cells are divided by {name}. Save the file with commas between them."
                )
        if len(layout.required) > 1 or names != list(layout.required):
            raise SheetRefusedError(f"The first row has to name the columns: {expected}")
    for name in names:
        if name not in layout.columns:
            raise SheetRefusedError(f"There is no column {quoted(name)}. There are: {expected}")
        if names.count(name) > 1:
            raise SheetRefusedError(f"The column {name} is there twice. Leave one out.")
    for name in layout.required:
        if name not in names:
            raise SheetRefusedError(f"The column {name} is missing. Add it to the first row.")
    return names


def _row(number: int, cells: Sequence[str], header: Sequence[str]) -> SheetRow:
    fault = (
        f"The row has {len(cells)} cells, and the header {len(header)}. Put a text that holds a "
        "comma in double quotes; leave no cell out."
        if len(cells) != len(header)
        else ""
    )
    return SheetRow(
        number,
        {name: cell.strip() for name, cell in zip(header, cells, strict=False)},
        fault,
    )


_PLAIN_NUMBER: Final = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,12})?")


def number_refusal(column: str, cell: str) -> str:
    """Return why a cell is no number that everybody reads alike; empty if it is one."""
    if _PLAIN_NUMBER.fullmatch(cell):
        return ""
    return (
        f"{column} is {quoted(cell)}. Use digits and a point for the decimals, nothing between "
        "the thousands, as in 1234.50."
    )
