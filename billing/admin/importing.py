"""Files that change what people maintain by hand: shown first, then imported, all or nothing.

Each row goes through a form with the rules of the table's own page, one at a time, so that a file
can do nothing that the page would refuse. django-import-export brings the pages and the preview.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import pghistory
from django import forms
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import UploadedFile
from django.db import transaction
from django.db.models import Model
from django.forms.models import model_to_dict, modelform_factory
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html
from import_export.admin import ImportMixin
from import_export.fields import Field
from import_export.formats.base_formats import Format
from import_export.forms import ConfirmImportForm
from import_export.resources import ModelResource
from import_export.results import Result
from import_export.tmp_storages import BaseStorage
from import_export.widgets import Widget
from tablib import Dataset
from unfold.contrib.import_export.forms import ImportForm

from billing.admin.asking import LONGEST_REASON, text_field
from billing.admin.exporting import Exports
from billing.admin.sealing import SealBrokenError, Sealed, seal, unseal
from billing.documents.text import visible_text
from billing.reports.writing import cell_text
from billing.sheets import (
    Layout,
    SheetRefusedError,
    number_refusal,
    quoted,
    read_sheet,
    written_text,
)

MOST_ROWS: Final = 1_000
MOST_BYTES: Final = 1_700_000
"""As of files of credit: it goes to the page and back."""
ROW: Final = "__row__"
"""The column in which a row's number travels through the library."""

Read = Callable[[str, str, str], object]
"""Reads a cell, given its column and what the row has now as text. Raises ValidationError."""


def layout_of(columns: Sequence[str], required: Sequence[str]) -> Layout:
    """Return the layout of a file to import."""
    return Layout(columns, required, most_rows=MOST_ROWS, most_bytes=MOST_BYTES)


def text(column: str, cell: str, before: str) -> str:
    """Return the text that was written."""
    written = written_text(cell, before)
    if written != before and visible_text(written) != written:
        raise ValidationError(f"{column} holds a character that does not show. Take it out.")
    return written


def number(column: str, cell: str, _before: str) -> str:
    """Return a number as everybody reads it; the form knows its bounds."""
    if cell and (refusal := number_refusal(column, cell)):
        raise ValidationError(refusal)
    return cell


def flag(column: str, cell: str, _before: str) -> bool:
    """Return whether it is so."""
    if cell not in {"true", "false"}:
        raise ValidationError(f"{column} is {quoted(cell)}. Use true or false.")
    return cell == "true"


def day(column: str, cell: str, _before: str) -> str:
    """Return a day; the form knows the calendar."""
    if cell and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", cell):
        raise ValidationError(f"{column} is {quoted(cell)}. Use a day, as in 2027-01-31.")
    return cell


def moment(column: str, cell: str) -> datetime:
    """Return a moment. Raises ValidationError when it names none, or no zone."""
    try:
        found = datetime.fromisoformat(cell)
        if found.tzinfo is not None:
            return found.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValidationError(
        f"{column} is {quoted(cell)}. Use a time with its zone, as in 2027-01-31T12:00:00Z."
    )


@dataclass(frozen=True, slots=True)
class ImportColumn:
    """A column of a file: how its cells are read, and how the row shows what it has."""

    name: str
    read: Read
    show: Callable[[Any], Any]


class _Shown(Widget):  # type: ignore[misc]  # the library has no types
    def render(self, value: Any, obj: Any = None, **_options: Any) -> str:
        del obj
        return str(value).lower() if isinstance(value, bool) else cell_text(value)


class _ShownField(Field):  # type: ignore[misc]  # the library has no types
    def __init__(self, column: ImportColumn) -> None:
        super().__init__(attribute=column.name, column_name=column.name, widget=_Shown())
        self.column = column

    def get_value(self, instance: Any) -> Any:
        return self.column.show(instance)


class _Change:
    """What a row's columns were and become.

    The library's own looks for the shortest way from one text to the other, which a file could
    make last.
    """

    def __init__(self, resource: FormResource, instance: Any, new: bool) -> None:  # noqa: FBT001 - the library calls it so
        self.before = [] if new else self._texts(resource, instance)
        self.after: list[str] = []

    def compare_with(self, resource: FormResource, instance: Any) -> None:
        self.after = self._texts(resource, instance)

    def as_html(self) -> list[str]:
        before = self.before or [""] * len(self.after)
        return [
            format_html("{}", new)
            if old == new
            else format_html("<del>{}</del> <ins>{}</ins>", old, new)
            for old, new in zip(before, self.after, strict=True)
        ]

    @staticmethod
    def _texts(resource: FormResource, instance: Any) -> list[str]:
        return [field.export(instance) for field in resource.get_import_fields()]


class _Result(Result):  # type: ignore[misc]  # the library has no types
    """Numbers rows as spreadsheets do."""

    def append_invalid_row(self, _number: int, row: Mapping[str, Any], error: Any) -> None:
        super().append_invalid_row(row[ROW], row, error)


class FormResource(ModelResource):  # type: ignore[misc]  # the library has no types
    """What a file may change of a table: `form_fields`, by the rules of the page's own form."""

    layout: Layout
    columns: Sequence[ImportColumn] = ()
    form_fields: Sequence[str] = ()

    class Meta:
        use_transactions = True
        skip_unchanged = True
        report_skipped = True
        # The form does, the table's constraints included.
        clean_model_instances = False

    def __init__(self, *, form: type[forms.ModelForm[Any]], **options: Any) -> None:
        super().__init__(**options)
        self.form_class = modelform_factory(self._meta.model, form=form, fields=self.form_fields)
        self.fields = {column.name: _ShownField(column) for column in self.columns}

    def find(self, row: Mapping[str, str]) -> Model | None:
        """Return what the row changes; None when it is new. Raises ValidationError."""
        raise NotImplementedError

    def begun(self, row: Mapping[str, str]) -> Model:
        """Return a new row with what the form leaves out. Raises ValidationError."""
        del row
        new: Model = self._meta.model()
        return new

    def get_instance(self, _loader: Any, row: Mapping[str, str]) -> Model | None:
        """Return what the row changes, for the library."""
        return self.find(row)

    def init_instance(self, row: Mapping[str, str] | None = None) -> Model:
        """Return a new row, for the library."""
        return self.begun(row or {})

    def import_instance(self, instance: Any, row: Mapping[str, str], **_options: Any) -> None:
        """Put the row's cells into the instance. Raises ValidationError, by column."""
        # What the file leaves out stays, and a new row has the table's defaults.
        said: dict[str, Any] = model_to_dict(instance, fields=self.form_fields)
        refused: dict[str, ValidationError] = {}
        for column in self.columns:
            if column.name in row and column.name in self.form_fields:
                before = cell_text(column.show(instance)) if instance.pk else ""
                try:
                    said[column.name] = column.read(column.name, row[column.name], before)
                except ValidationError as error:
                    refused[column.name] = error
        form = self.form_class(said, instance=instance)
        if refused:
            raise ValidationError(refused)
        if not form.is_valid():
            raise ValidationError(form.errors.as_data())

    def do_instance_save(self, instance: Any, is_create: bool) -> None:  # noqa: FBT001 - the library calls it so
        """Save the form's columns alone: the others may be changing meanwhile."""
        if is_create:
            instance.save(force_insert=True)
        else:
            instance.save(update_fields=self.form_fields)

    def after_import(self, dataset: Dataset, result: Result, **_options: Any) -> None:
        """Leave the sequences alone: keys come from them, and our role may not set them."""

    @classmethod
    def get_result_class(cls) -> type[Result]:
        """Return the result that numbers rows as spreadsheets do."""
        return _Result

    @classmethod
    def get_diff_class(cls) -> type[_Change]:
        """Return the diff that shows before and after."""
        return _Change


class _FileForm(ImportForm):  # type: ignore[misc]  # unfold has no types
    """Which file, and why."""

    reason = text_field("Reason", "It stands in the audit trail.", max_length=LONGEST_REASON)

    def clean_import_file(self) -> UploadedFile[Any]:
        """Return the file. Raises ValidationError for one that is not worth reading."""
        file: UploadedFile[Any] = self.cleaned_data["import_file"]
        if (file.size or 0) > MOST_BYTES:
            raise ValidationError(
                f"The file has {file.size:,} bytes; {MOST_BYTES:,} is the most. Split it."
            )
        return file


class _ConfirmForm(ConfirmImportForm):  # type: ignore[misc]  # the library has no types
    """The file that was shown, as it comes back."""

    reason = forms.CharField(widget=forms.HiddenInput, max_length=LONGEST_REASON)

    def __init__(self, *args: Any, seal_for: tuple[str, int], **options: Any) -> None:
        super().__init__(*args, **options)
        self.seal_for = seal_for

    def clean_import_file_name(self) -> bytes:
        """Return the file itself: the field holds it, and no name of a file on the disk."""
        purpose, user_id = self.seal_for
        try:
            sealed = unseal(self.cleaned_data["import_file_name"], purpose=purpose, user_id=user_id)
        except SealBrokenError as broken:
            raise ValidationError(str(broken)) from None
        return sealed.content


class _InThePage(BaseStorage):  # type: ignore[misc]  # the library has no types
    """Where the library keeps a file between two requests: nowhere but in its own name."""

    def save(self, data: bytes) -> None:
        self.name = data

    def read(self) -> bytes:
        content: bytes = self.name
        return content

    def remove(self) -> None:
        """Do nothing: nothing is kept."""


def strict_csv(layout: Layout) -> type[Format]:
    """Return the library's format of a file with these columns."""

    class StrictCsv(Format):  # type: ignore[misc]  # the library has no types
        def __init__(self, encoding: str | None = None) -> None:
            self.encoding = encoding

        def get_title(self) -> str:
            return "csv"

        def can_import(self) -> bool:
            return True

        def create_dataset(self, in_stream: bytes) -> Dataset:
            rows = read_sheet(in_stream, layout)
            columns = list(rows[0].cells)
            dataset = Dataset(headers=[ROW, *columns])
            for row in rows:
                if row.fault:
                    raise SheetRefusedError(f"Row {row.number}: {row.fault}")
                dataset.append([row.number, *(row.cells[name] for name in columns)])
            return dataset

    return StrictCsv


class Imports(ImportMixin, Exports):  # type: ignore[misc]  # the library has no types
    """A list that a file can change, by who may change it by hand; it can be exported too."""

    import_export_change_list_template = "admin/import_export/change_list_import_export.html"
    import_resource: type[FormResource]
    import_rights: Sequence[str] = ()
    import_form_class = _FileForm
    confirm_form_class = _ConfirmForm
    tmp_storage_class = _InThePage

    def has_import_permission(self, request: HttpRequest) -> bool:
        """Return whether the user's own rights let them do all that a file can."""
        return request.user.has_perms(self.import_rights)

    def get_import_resource_classes(self, request: HttpRequest) -> list[type[FormResource]]:
        """Return the one there is."""
        del request
        return [self.import_resource]

    def get_import_resource_kwargs(self, request: HttpRequest, **options: Any) -> dict[str, Any]:
        """Return what the resource is made with: the page's form."""
        del request, options
        return {"form": self.form}

    def get_import_formats(self) -> list[type[Format]]:
        """Return CSV with the table's columns."""
        return [strict_csv(self.import_resource.layout)]

    def add_data_read_fail_error_to_form(self, form: forms.Form, e: Exception) -> None:
        """Say what is wrong with the file. Raises what is wrong with us."""
        if not isinstance(e, SheetRefusedError):
            raise e
        form.add_error("import_file", str(e))

    def get_confirm_form_kwargs(
        self, request: HttpRequest, import_form: forms.Form | None = None
    ) -> dict[str, Any]:
        """Return what the form of the answer takes: also for whom a file is sealed."""
        options: dict[str, Any] = super().get_confirm_form_kwargs(request, import_form)
        return {**options, "seal_for": self._seal_for(request)}

    def get_confirm_form_initial(
        self, request: HttpRequest, import_form: forms.Form | None
    ) -> dict[str, Any]:
        """Return what goes to the page and comes back: the file, and why."""
        initial: dict[str, Any] = super().get_confirm_form_initial(request, import_form)
        if import_form is not None:
            purpose, user_id = self._seal_for(request)
            content = Sealed(initial["import_file_name"])
            initial["import_file_name"] = seal(content, purpose=purpose, user_id=user_id)
            initial["reason"] = import_form.cleaned_data["reason"]
        return initial

    def process_dataset(
        self, dataset: Dataset, form: forms.Form, request: HttpRequest, **options: Any
    ) -> Result:
        """Import it all or nothing, with the reason in the audit trail."""
        # Without entering it, this adds to the context of the request that the middleware opened.
        pghistory.context(reason=form.cleaned_data["reason"])
        with transaction.atomic():
            return super().process_dataset(
                dataset, form, request, rollback_on_validation_errors=True, **options
            )

    def process_result(self, result: Result, request: HttpRequest) -> HttpResponse:
        """Go back to the list, or say that it came to nothing."""
        if result.has_errors() or result.has_validation_errors():
            messages.error(
                request,
                "Something changed since this was shown, and a row is refused now. Nothing was "
                "imported; upload the file again to see which.",
            )
            name = f"admin:{self.opts.app_label}_{self.opts.model_name}_import"
            return HttpResponseRedirect(reverse(name))
        response: HttpResponse = super().process_result(result, request)
        return response

    def _seal_for(self, request: HttpRequest) -> tuple[str, int]:
        return f"import.{self.opts.label_lower}", request.user.pk or 0
