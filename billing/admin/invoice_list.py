"""The list of invoices: its filters, its search and its totals."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any

from django.contrib import admin
from django.db.models import Count, Max, Min, Q, QuerySet, Sum
from django.http import HttpRequest
from unfold.contrib.filters.admin import RangeNumericFilter

from billing.admin.listing import Totals, WithTotals, grouped_money
from billing.desk_queries import OUTSTANDING
from billing.models import Invoice
from billing.outstanding import with_outstanding

MOST_MONTHS_LISTED = 36


class PeriodMonthFilter(admin.SimpleListFilter):
    """The month, in UTC, in which an invoice's period started."""

    title = "month of period"
    parameter_name = "month"

    def lookups(
        self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]
    ) -> Iterable[tuple[str, str]]:
        """Return the months there are invoices of, the newest first."""
        del request, model_admin
        ends = Invoice.objects.aggregate(first=Min("period_start"), last=Max("period_start"))
        if ends["first"] is None:
            return []
        first, month = ends["first"].date().replace(day=1), ends["last"].date().replace(day=1)
        months: list[str] = []
        while month >= first and len(months) < MOST_MONTHS_LISTED:
            months.append(f"{month:%Y-%m}")
            month = date(month.year - (month.month == 1), (month.month - 2) % 12 + 1, 1)
        return [(month_text, month_text) for month_text in months]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Invoice]) -> QuerySet[Invoice]:
        """Return the invoices of the month; all, when it is none."""
        del request
        try:
            start = datetime.strptime(self.value() or "", "%Y-%m").replace(tzinfo=UTC)
        except ValueError:
            return queryset
        end = datetime(start.year + start.month // 12, start.month % 12 + 1, 1, tzinfo=UTC)
        return queryset.filter(period_start__gte=start, period_start__lt=end)


class InvoiceList(WithTotals[Invoice]):
    """How invoices are found and added up."""

    list_filter = (
        "status",
        "kind",
        PeriodMonthFilter,
        "currency",
        ("total_amount", RangeNumericFilter),
        ("finalised_at", admin.EmptyFieldListFilter),
        ("finalised_at", admin.DateFieldListFilter),
    )
    # A range has two fields and so a button.
    list_filter_submit = True
    list_select_related = ("account",)
    search_fields = ("number", "account__name", "account__id")

    def totals_of(self, rows: QuerySet[Invoice]) -> Totals:
        """Return how many there are and what they ask for, a currency a row."""
        is_asked = ~Q(status=Invoice.Status.VOID)
        sums = (
            with_outstanding(rows)
            .values("currency")
            .annotate(
                count=Count("pk"),
                total=Sum("total_amount", filter=is_asked),
                due=Sum("amount_due", filter=is_asked),
                owed=Sum("outstanding", filter=Q(status__in=OUTSTANDING)),
            )
            .order_by("currency")
        )
        return Totals(
            ("currency", "invoices", "total", "due", "outstanding"),
            [
                [
                    row["currency"],
                    f"{row['count']:,}",
                    *(
                        grouped_money(row[name], row["currency"])
                        for name in ("total", "due", "owed")
                    ),
                ]
                for row in sums
            ],
            "Of all that the filters leave. Void invoices are counted, and ask for nothing.",
        )
