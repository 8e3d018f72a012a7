"""What the lists of billing share: filters by state, and counts of what a row has."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django.contrib import admin
from django.db.models import Count, Q, QuerySet, Subquery, Value
from django.db.models.functions import Coalesce
from django.http import HttpRequest


class StateFilter(admin.SimpleListFilter):
    """The state that a row is in now, as its columns say."""

    title = "state"
    parameter_name = "state"

    def states(self, now: datetime) -> Mapping[str, Q]:
        """Return the states by name, as they are told apart at a moment."""
        raise NotImplementedError

    def lookups(
        self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]
    ) -> list[tuple[str, str]]:
        """Return the states."""
        del request, model_admin
        return [(name, name.capitalize()) for name in self.states(datetime.now(UTC))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the rows in the chosen state."""
        del request
        chosen = self.states(datetime.now(UTC)).get(self.value() or "")
        return queryset if chosen is None else queryset.filter(chosen)


def count_of(rows: QuerySet[Any]) -> Coalesce:
    """Return how many rows an outer row has; `rows` name it by OuterRef.

    Only the rows of the page are counted, unlike with a join.
    """
    grouped = rows.order_by().values(one=Value(1)).annotate(count=Count("pk")).values("count")
    return Coalesce(Subquery(grouped), 0)
