from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pgtrigger
from django.apps import apps
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.core.exceptions import FieldDoesNotExist
from django.db.models import ForeignKey, Model, QuerySet
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from billing.admin.asking import MISSING, link_to
from billing.models import AuditTrail
from billing.models.audit import Audited
from metering.pages import ReadOnlyPage

SYSTEM, KEYS = "system", "api-keys"
MOST_PEOPLE = 200
_MODELS: dict[str, type[Model]] = {
    model._meta.db_table: model  # noqa: SLF001 - Django's public name for it
    for model in apps.get_models(include_auto_created=True)
    if not model._meta.proxy  # noqa: SLF001 - the same
}
_TABLES = sorted(
    {
        model._meta.db_table  # noqa: SLF001 - the same
        for model, trigger in pgtrigger.registered()
        if isinstance(trigger, Audited)
    }
    | {"billing_invoice", "billing_creditgrant"}
)


class TableFilter(admin.SimpleListFilter):
    """What was changed."""

    title = "what"
    parameter_name = "table_name"

    def lookups(
        self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]
    ) -> list[tuple[str, str]]:
        """Return the tables, as people call them."""
        del request, model_admin
        return [(table, _name_of(table)) for table in _TABLES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the changes of the chosen table."""
        del request
        return queryset.filter(table_name=self.value()) if self.value() else queryset


class ActorFilter(admin.SimpleListFilter):
    """Who changed it."""

    title = "who"
    parameter_name = "actor"

    def lookups(
        self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]
    ) -> list[tuple[str, str]]:
        """Return the staff, customers' keys, and the system."""
        del request, model_admin
        staff = get_user_model().objects.filter(is_staff=True).order_by("username")
        people = [(str(user.pk), user.get_username()) for user in staff[:MOST_PEOPLE]]
        return [(SYSTEM, SYSTEM), (KEYS, "customers' API keys"), *people]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the changes of the chosen person."""
        del request
        value = self.value() or ""
        if value == SYSTEM:
            return queryset.filter(actor=None, api_key=None)
        if value == KEYS:
            return queryset.filter(api_key__isnull=False)
        return queryset.filter(actor=value) if value.isdecimal() else queryset


@admin.register(AuditTrail)
class AuditTrailAdmin(ReadOnlyPage[AuditTrail]):
    """Who changed what, when, from what to what, and why."""

    list_display = ("when", "who", "what", "operation", "change", "reason", "of_account")
    list_display_links = ("when",)
    list_filter = (TableFilter, "operation", ActorFilter)
    list_select_related = ("actor", "account", "api_key")
    # A row is found by all of its number, an account by its name or by that.
    search_fields = ("actor__username", "reason", "=row_id", "account__name")
    date_hierarchy = "at"
    fields = ("when", "who", "what", "operation", "change", "reason", "of_account")
    readonly_fields = ("when", "who", "what", "change", "of_account")

    @admin.display(description="when (UTC)", ordering="at")
    def when(self, row: AuditTrail) -> str:
        """Return the moment, to the second."""
        return f"{row.at:%Y-%m-%d %H:%M:%S}"

    @admin.display(ordering="actor__username")
    def who(self, row: AuditTrail) -> str:
        """Return who was logged in, or the key that was shown."""
        if row.api_key_id is not None:
            return f"API key {row.api_key or row.api_key_id}"
        return row.actor.get_username() if row.actor else SYSTEM

    @admin.display(ordering="table_name")
    def what(self, row: AuditTrail) -> SafeString | str:
        """Return the changed row, with a link to its page if it has one."""
        name = f"{_name_of(row.table_name)} {row.row_id}"
        model = _MODELS.get(row.table_name)
        if model is None or not admin.site.is_registered(model) or row.operation == "delete":
            return name
        meta = model._meta  # noqa: SLF001 - Django's public name for it
        try:
            url = reverse(f"admin:{meta.app_label}_{meta.model_name}_change", args=(row.row_id,))
        except NoReverseMatch:
            return name
        return format_html('<a class="text-primary-600" href="{}">{}</a>', url, name)

    @admin.display(description="before → after")
    def change(self, row: AuditTrail) -> SafeString | str:
        """Return each column that changed, a line each."""
        return format_html_join("", "<div>{}: {}</div>", _changes(row)) or MISSING

    @admin.display(description="account", ordering="account__name")
    def of_account(self, row: AuditTrail) -> SafeString | str:
        """Return the account it was a change of."""
        return link_to(row.account, row.account) if row.account else MISSING


def _name_of(table: str) -> str:
    model = _MODELS.get(table)
    name = model._meta.verbose_name if model else table  # noqa: SLF001 - Django's public name
    return str(name).replace("-", " ")


def _changes(row: AuditTrail) -> Iterator[tuple[str, str]]:
    before, after = row.before or {}, row.after or {}
    model = _MODELS.get(row.table_name)
    for column in before | after:
        was, became = (_text(model, column, values.get(column)) for values in (before, after))
        if row.before is None or row.operation == "delete":
            yield column, was if row.operation == "delete" else became
        else:
            yield column, f"{was} → {became}"


def _text(model: type[Model] | None, column: str, value: Any) -> str:
    """Return a value for people; of another row, its name if it is there still."""
    if value is None or value == "":
        return MISSING
    try:
        field = model._meta.get_field(column.removesuffix("_id")) if model else None  # noqa: SLF001 - the same
    except FieldDoesNotExist:
        field = None
    if not isinstance(field, ForeignKey):
        return str(value)
    other = field.related_model._default_manager.filter(pk=value).first()  # noqa: SLF001 - the same
    return f"{other} ({value})" if other else str(value)
