from __future__ import annotations

from django.contrib import admin

from billing.models import (
    UnpricedUsage,
)
from billing.rating import decimal_text
from metering.meters import UNITS, Meter
from metering.pages import ReadOnlyPage


class UnpricedInWords:
    """The columns of unpriced usage."""

    @admin.display(description="quantity")
    def shown_quantity(self, row: UnpricedUsage) -> str:
        """Return the quantity with its unit."""
        return f"{decimal_text(row.exact_quantity)} {UNITS[Meter(row.meter)].shown}"


@admin.register(UnpricedUsage)
class UnpricedUsageAdmin(UnpricedInWords, ReadOnlyPage[UnpricedUsage]):
    """Usage that no price was found for, as of the last look."""

    list_display = (
        "account",
        "meter",
        "shown_quantity",
        "reason",
        "period_start",
        "period_end",
        "billing_period_start",
        "noted_at",
    )
    list_filter = ("reason", "meter")
    list_select_related = ("account",)
    search_fields = ("account__name", "account__id")
    date_hierarchy = "billing_period_start"
    readonly_fields = ("shown_quantity",)
