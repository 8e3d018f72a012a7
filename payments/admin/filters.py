"""Filters that the lists of payments share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest


class OpenFilter(admin.SimpleListFilter):
    """Whether a row is over; those that are not, unless asked for others."""

    title = "state"
    parameter_name = "state"
    column = "closed_at"
    over = "closed"

    def lookups(
        self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]
    ) -> list[tuple[str, str]]:
        """Return what can be chosen instead of the open ones."""
        del request, model_admin
        return [(self.over, self.over.capitalize()), ("all", "All")]

    def choices(self, changelist: Any) -> Iterator[Any]:
        """Yield the choices, with the open ones in the place of all."""
        for value, label in (("", "Open"), *self.lookup_choices):
            yield {
                "selected": (self.value() or "") == value,
                "query_string": changelist.get_query_string(
                    {self.parameter_name: value} if value else {}, [self.parameter_name]
                ),
                "display": label,
            }

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the rows of the state."""
        del request
        if self.value() == "all":
            return queryset
        return queryset.filter(**{f"{self.column}__isnull": self.value() != self.over})
