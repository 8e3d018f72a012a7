"""A report as CSV or JSON, written row by row."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from typing import Any, Final

from billing.documents.sheet import text_cell
from billing.money import Money
from billing.rating import decimal_text
from billing.reports.rows import Cell, Row

ROWS_AT_ONCE: Final = 500
"""So many rows go out in one piece."""


class Format(StrEnum):
    """How a report is written. The value names it in addresses and file names."""

    CSV = "csv"
    JSON = "json"


CONTENT_TYPES: Final = {
    Format.CSV: "text/csv; charset=utf-8",
    Format.JSON: "application/json",
}


def write(row_type: type[Row], rows: Iterable[Row], form: Format) -> Iterator[bytes]:
    """Yield the report in pieces, each of a bounded number of rows."""
    return _csv(row_type, rows) if form is Format.CSV else _json(row_type, rows)


# A datetime is a date too, so it comes first.
_TEXTS: Final[tuple[tuple[type, Callable[[Any], str]], ...]] = (
    (Money, lambda cell: cell.text),
    (Fraction, decimal_text),
    (Decimal, lambda cell: f"{cell:f}"),
    (datetime, lambda cell: cell.isoformat().replace("+00:00", "Z")),
    (date, date.isoformat),
    (Mapping, lambda cell: json.dumps(dict(cell))),
)


class _Echo:
    """A file that gives back what is written to it, as csv's writer hands it on."""

    def write(self, text: str) -> str:
        return text


def _csv(row_type: type[Row], rows: Iterable[Row]) -> Iterator[bytes]:
    writer = csv.writer(_Echo(), lineterminator="\r\n")
    # With a byte order mark, for the same reason as an invoice's lines.
    piece = ["\N{ZERO WIDTH NO-BREAK SPACE}", writer.writerow(row_type.columns())]
    for count, row in enumerate(rows, 1):
        piece.append(writer.writerow([_sheet_cell(cell) for cell in row.cells]))
        if count % ROWS_AT_ONCE == 0:
            yield "".join(piece).encode()
            piece.clear()
    yield "".join(piece).encode()


def _json(row_type: type[Row], rows: Iterable[Row]) -> Iterator[bytes]:
    columns = row_type.columns()
    piece = ["["]
    between = "\n"
    for count, row in enumerate(rows, 1):
        cells = (_json_cell(cell) for cell in row.cells)
        piece.append(between + json.dumps(dict(zip(columns, cells, strict=True))))
        between = ",\n"
        if count % ROWS_AT_ONCE == 0:
            yield "".join(piece).encode()
            piece.clear()
    yield ("".join(piece) + "\n]\n").encode()


def cell_text(cell: Cell) -> str:
    """Return a cell as text: decimals plain and to their end, times in UTC, nothing as nothing."""
    for kind, text in _TEXTS:
        if isinstance(cell, kind):
            return text(cell)
    return "" if cell is None else str(cell)


def _sheet_cell(cell: Cell) -> str:
    # Figures stay figures, below zero too; what people wrote is kept from being a formula.
    return text_cell(cell) if isinstance(cell, str) else cell_text(cell)


def _json_cell(cell: Cell) -> object:
    match cell:
        case None | str() | int():
            return cell
        case Mapping():
            return dict(cell)
        case _:
            return cell_text(cell)
