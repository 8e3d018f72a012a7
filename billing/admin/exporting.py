"""Lists as files: what the list's filters leave, as CSV, XLSX or JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from io import BytesIO, StringIO
from typing import Any, Final

from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from import_export.admin import ExportMixin
from import_export.fields import Field
from import_export.formats import base_formats
from import_export.resources import ModelResource
from import_export.widgets import Widget
from openpyxl import Workbook
from unfold.contrib.import_export.forms import (
    SelectableFieldsExportForm,
)

from billing.documents.sheet import text_cell
from billing.documents.text import visible_text
from billing.money import Money
from billing.reports.writing import cell_text

MOST_ROWS: Final = 50_000
"""So many rows one file has; the library holds a file in memory."""
MOST_EXACT_DIGITS: Final = 15
"""What a spreadsheet keeps of a number; longer ones are text there."""

Make = Callable[[Any], Any]
"""Makes a cell of a row."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a file, and what a row has in it."""

    name: str
    value: Make


def plain(name: str, path: str = "") -> Column:
    """Return the column of an attribute, `path` where it has another name, dots for steps."""
    return Column(name, value_at(path or name))


def amount(name: str, currency: str = "currency") -> Column:
    """Return the column of an amount with the decimals of the currency found at that path."""
    of, currency_of = value_at(name), value_at(currency)

    def value(row: Any) -> Money | None:
        found = of(row)
        return None if found is None else Money(found, currency_of(row))

    return Column(name, value)


def value_at(path: str) -> Make:
    """Return what follows a path of attributes; nothing where a step on the way is nothing."""

    def value(row: Any) -> Any:
        for step in path.split("."):
            if row is None:
                return None
            row = getattr(row, step)
        return row

    return value


class _AsItIs(Widget):  # type: ignore[misc]  # the library has no types
    """Leaves a value to the file's format: numbers are to stay numbers."""

    def render(self, value: Any, obj: Any = None, **_options: Any) -> Any:
        del obj
        return value


class _Computed(Field):  # type: ignore[misc]  # the library has no types
    """A field that knows how its value is made."""

    def __init__(self, column: Column) -> None:
        super().__init__(
            attribute=column.name, column_name=column.name, readonly=True, widget=_AsItIs()
        )
        self.column = column

    def get_value(self, instance: Any) -> Any:
        """Return the row's value."""
        return self.column.value(instance)


class TooManyRowsError(ValueError):
    """A file would be too large; the message says what to do."""


def table(
    model: type[Model],
    columns: Sequence[Column],
    *,
    title: str = "",
    joins: Sequence[str] = (),
    rows_of: Callable[[QuerySet[Any]], QuerySet[Any]] = lambda listed: listed,
) -> type[ModelResource]:
    """Return what the library calls a resource: a table's columns for a file.

    `joins` are what the columns' paths go through. `rows_of` makes the file's rows out of the
    list's, where these are of another table.
    """
    names = [column.name for column in columns]

    class Table(ModelResource):  # type: ignore[misc]  # the library has no types
        class Meta:
            fields = names
            export_order = names

        def filter_export(self, queryset: QuerySet[Any], **_options: Any) -> QuerySet[Any]:
            rows = rows_of(queryset)
            if rows.order_by()[: MOST_ROWS + 1].count() > MOST_ROWS:
                raise TooManyRowsError(
                    f"These are more than {MOST_ROWS:,} rows. Filter the list, and export again."
                )
            return rows.select_related(*joins) if joins else rows

        @classmethod
        def get_display_name(cls) -> str:
            return title or str(model._meta.verbose_name_plural).capitalize()  # noqa: SLF001 - public name

    Table.Meta.model = model  # type: ignore[attr-defined]  # as the library has it
    Table._meta.model = model  # noqa: SLF001 - where the library looks
    Table.fields = {column.name: _Computed(column) for column in columns}
    Table.__name__ = f"{title or model.__name__}".replace(" ", "")
    return Table


class Csv(base_formats.CSV):  # type: ignore[misc]  # the library has no types
    """CSV in UTF-8 that no spreadsheet takes for formulas."""

    CONTENT_TYPE = "text/csv; charset=utf-8"

    def export_data(self, dataset: Any, **_options: Any) -> bytes:
        """Return the file, with a byte order mark as all our CSV."""
        sheet = StringIO(newline="")
        writer = csv.writer(sheet, lineterminator="\r\n")
        writer.writerow(dataset.headers)
        for row in range(dataset.height):
            writer.writerow([_csv_cell(cell) for cell in dataset[row]])
        return sheet.getvalue().encode("utf-8-sig")


class Xlsx(base_formats.XLSX):  # type: ignore[misc]  # the library has no types
    """A workbook of one sheet, without formulas; numbers are numbers."""

    def export_data(self, dataset: Any, **_options: Any) -> bytes:
        """Return the file. It is written row by row, unlike the library's."""
        book = Workbook(write_only=True)
        sheet = book.create_sheet("Sheet")
        sheet.append(dataset.headers)
        for row in range(dataset.height):
            sheet.append([_xlsx_cell(cell) for cell in dataset[row]])
        written = BytesIO()
        book.save(written)
        return written.getvalue()


class Json(base_formats.JSON):  # type: ignore[misc]  # the library has no types
    """A list of objects. Decimals are text, so that nothing rounds them."""

    def export_data(self, dataset: Any, **_options: Any) -> bytes:
        """Return the file."""
        rows = [
            dict(zip(dataset.headers, map(_json_cell, dataset[row]), strict=True))
            for row in range(dataset.height)
        ]
        return json.dumps(rows, indent=1).encode()


def _csv_cell(cell: Any) -> str:
    match cell:
        case bool():
            return "true" if cell else "false"
        case str():
            return text_cell(cell)
    return cell_text(cell)


def _xlsx_cell(cell: Any) -> Any:
    match cell:
        case None | bool():
            return cell
        case Money():
            return _exact_number(Decimal(cell.text))
        case int() | Decimal():
            return _exact_number(Decimal(cell))
    # A text that begins as a formula would be one: openpyxl asks nobody.
    return _csv_cell(cell)


def _exact_number(number: Decimal) -> Decimal | str:
    digits = len(number.normalize().as_tuple().digits)
    return number if digits <= MOST_EXACT_DIGITS else f"{number:f}"


def _json_cell(cell: Any) -> Any:
    match cell:
        case None | int() | Mapping():
            return cell
        case str():
            return visible_text(cell)
    return cell_text(cell)


class Exports(ExportMixin):  # type: ignore[misc]  # the library has no types
    """A list that can be taken as a file, by who may see it."""

    export_form_class = SelectableFieldsExportForm
    export_formats = (Csv, Xlsx, Json)
    export_tables: Sequence[type[ModelResource]] = ()

    def has_export_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may see what a file would hold."""
        return self.has_view_permission(request) and bool(self.get_export_resource_classes(request))

    def get_export_resource_classes(self, request: HttpRequest) -> list[type[ModelResource]]:
        """Return the tables whose rows the user may see."""
        return [table for table in self.export_tables if _may_see(request, table)]

    def get_export_data(
        self, file_format: Any, request: HttpRequest, queryset: QuerySet[Any], **options: Any
    ) -> bytes:
        """Return the file. Raises TooManyRowsError, which the page shows, and PermissionDenied."""
        if not self.has_export_permission(request):
            raise PermissionDenied
        data = self.get_data_for_export(request, queryset, **options)
        exported: bytes = file_format.export_data(data)
        return exported

    def get_valid_export_item_pks(self, _request: HttpRequest) -> Sequence[Any]:
        """Return none: files hold what a list's filters leave, not what is ticked."""
        return ()


def _may_see(request: HttpRequest, resource: type[ModelResource]) -> bool:
    meta = resource._meta.model._meta  # noqa: SLF001 - both libraries' name for it
    return request.user.has_perm(f"{meta.app_label}.view_{meta.model_name}")
