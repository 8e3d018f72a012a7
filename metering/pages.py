"""The kinds of admin pages there are, in unfold's look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from django.db.models import Model
from django.http import HttpRequest

__all__ = ["ModelAdmin", "ModelForm", "Page", "ReadOnlyPage", "ReadOnlyRows", "TabularInline"]

M = TypeVar("M", bound=Model)
P = TypeVar("P", bound=Model)

if TYPE_CHECKING:
    # unfold has no types of its own; its classes take the place of Django's.
    from django.contrib.admin import ModelAdmin, TabularInline
    from django.forms import ModelForm
else:
    from django import forms
    from unfold import admin as unfold_admin

    class _OfModel:
        """Lets a class be written with its model in brackets, as Django's stubs have it."""

        def __class_getitem__(cls, _models: Any) -> type:
            return cls

    class ModelAdmin(_OfModel, unfold_admin.ModelAdmin):
        """A table's pages."""

    class TabularInline(_OfModel, unfold_admin.TabularInline):
        """Rows inside another's page."""

    class ModelForm(_OfModel, forms.ModelForm):
        """A form for one row."""


class Page(ModelAdmin[M]):
    """A table that staff edit. Nothing is deleted: other rows rest on it."""

    list_per_page = 50
    show_full_result_count = False

    def save_model(self, request: HttpRequest, obj: M, form: Any, change: Any) -> None:
        """Save what was changed in the form, and nothing else of the row.

        Programs write the same rows: what they wrote since the form's row was read would be lost.
        """
        del request
        fields = obj._meta.concrete_fields  # noqa: SLF001 - Django's documented way
        columns = {field.name for field in fields}
        obj.save(update_fields=columns.intersection(form.changed_data) if change else None)

    def has_delete_permission(self, request: HttpRequest, obj: M | None = None) -> bool:
        """Return that nobody deletes rows here."""
        del request, obj
        return False


class ReadOnlyPage(Page[M]):
    """A table to look at: only services write it."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return that nobody adds rows here."""
        del request
        return False

    def has_change_permission(self, request: HttpRequest, obj: M | None = None) -> bool:
        """Return that nobody changes rows here."""
        del request, obj
        return False


class ReadOnlyRows(TabularInline[M, P]):
    """Rows to look at inside another's page."""

    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: P | None = None) -> bool:
        """Return that nobody adds rows here."""
        del request, obj
        return False

    def has_change_permission(self, request: HttpRequest, obj: P | None = None) -> bool:
        """Return that nobody changes rows here."""
        del request, obj
        return False
