"""What a list has above its rows: the totals of all that is filtered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar

from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse

from billing.money import decimals_of
from metering.pages import Page

M = TypeVar("M", bound=Model)


@dataclass(frozen=True, slots=True)
class Totals:
    """A table above a list: the sums of all rows that the filters leave, a currency a row."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def grouped_money(amount: Decimal | None, currency: str) -> str:
    """Return an amount with its currency, thousands apart, on one line; zero for none."""
    space = "\N{NO-BREAK SPACE}"
    return f"{amount or Decimal(0):,.{decimals_of(currency)}f}{space}{currency}"


class WithTotals(Page[M]):
    """A list with the totals of what its filters and its search leave, over all pages."""

    list_before_template = "admin/billing/totals.html"

    def totals_of(self, rows: QuerySet[M]) -> Totals:
        """Return the totals of the rows, in one query or two."""
        raise NotImplementedError

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Return the list, with the totals where it is one and not an action's page."""
        response = super().changelist_view(request, extra_context)
        context = getattr(response, "context_data", None) or {}
        if changes := context.get("cl"):
            # By key: what the list annotates and joins for its columns would count rows twice.
            chosen = changes.queryset.order_by().values("pk")
            rows = self.model._default_manager.filter(pk__in=chosen)  # noqa: SLF001 - public name
            context["totals"] = self.totals_of(rows.order_by())
        return response
