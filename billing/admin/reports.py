"""The page where finance take reports from, and see what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import path

from billing.money import Money
from billing.operator_access import SEES_REPORTS
from billing.operator_views import download
from billing.reports.catalogue import REPORTS, Asked, Report, ReportRefusedError, Span, ask
from billing.reports.rows import Cell, Sums
from billing.reports.writing import Format, cell_text

MOST_ROWS = 200
"""So many rows the page shows; a file has them all."""
IN_FILES_ONLY = frozenset({"account_id", "base_quantity", "base_unit", "BillingAccountId"})
"""Columns that the page has no room for: what people look for would be off the screen."""


def reports_page(request: HttpRequest) -> HttpResponseBase:
    """Show a report, or send it as a file. Raises PermissionDenied."""
    if not request.user.has_perm(SEES_REPORTS):
        raise PermissionDenied
    said = request.GET
    now = datetime.now(UTC)
    report = REPORTS.get(said.get("report", ""))
    month, as_of = said.get("month", ""), said.get("as_of", "")
    context: dict[str, Any] = {
        **admin.site.each_context(request),
        "title": "Reports",
        "reports": REPORTS.values(),
        "chosen": report,
        "month": month or f"{now:%Y-%m}",
        "as_of": as_of or f"{now:%Y-%m-%d}",
        "formats": [form.value for form in Format],
    }
    if report:
        try:
            # Both fields are on the page; only the one that the report is about counts.
            asked = (
                ask(report, now=now, month=month)
                if report.about is Span.MONTH
                else ask(report, now=now, as_of=as_of)
            )
        except ReportRefusedError as error:
            context["error"] = error.message
        else:
            if said.get("format") in context["formats"]:
                return download(report, asked, Format(said["format"]))
            context |= _shown(report, asked)
    return TemplateResponse(request, "admin/billing/reports.html", context)


urlpatterns = [path("", admin.site.admin_view(reports_page), name="reports")]


def _shown(report: Report, asked: Asked) -> dict[str, Any]:
    """Return the first rows, and the sums of all."""
    columns = report.row_type.columns()
    shown = [at for at, column in enumerate(columns) if column not in IN_FILES_ONLY]
    sums, rows, count = Sums(), [], 0
    for row in report.rows(asked):
        sums.add(row)
        count += 1
        if count <= MOST_ROWS:
            rows.append([_Shown(row.cells[at]) for at in shown])
    return {
        "columns": [columns[at].replace("_", " ") for at in shown],
        "rows": rows,
        "count": count,
        "left_out": max(0, count - MOST_ROWS),
        "totals": [
            (currency, [(name.replace("_", " "), f"{amount:,}") for name, amount in by_name])
            for currency, by_name in _totals(sums)
        ],
    }


def _totals(sums: Sums) -> Sequence[tuple[str, Sequence[tuple[str, Decimal]]]]:
    return [
        (currency, [(name, Decimal(amount.text)) for name, amount in by_name.items()])
        for currency, by_name in sums.by_currency()
    ]


class _Shown:
    """A cell on the page: its text, and whether it is a figure."""

    def __init__(self, cell: Cell) -> None:
        self.is_figure = isinstance(cell, Money | Fraction | Decimal | int)
        # Periods begin at midnights, mostly at those of UTC: then the day says it.
        self.text = (
            f"{cell:%Y-%m-%d %H:%M}".removesuffix(" 00:00")
            if isinstance(cell, datetime)
            else cell_text(cell)
        )
