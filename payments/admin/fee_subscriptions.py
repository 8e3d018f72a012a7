from __future__ import annotations

from django.contrib import admin

from metering.pages import ReadOnlyPage
from payments.models import FeeSubscription


@admin.register(FeeSubscription)
class FeeSubscriptionAdmin(ReadOnlyPage[FeeSubscription]):
    """Subscriptions at the provider, which collects their accounts' flat fees."""

    list_display = (
        "__str__",
        "account",
        "status",
        "asked_price_id",
        "period_start",
        "period_end",
        "waiting_for",
        "ended_at",
    )
    list_filter = (
        "status",
        ("ended_at", admin.EmptyFieldListFilter),
        ("waiting_for", admin.EmptyFieldListFilter),
    )
    list_select_related = ("account",)
    search_fields = ("=provider_id", "account__name", "account__id")
    date_hierarchy = "started_at"
    fieldsets = (
        (
            None,
            {
                "fields": (
                    ("account", "provider_id"),
                    ("status", "waiting_for"),
                    ("asked_price_id", "asked_to_end"),
                    ("period_start", "period_end"),
                    ("paid_price_id", "failures"),
                )
            },
        ),
        (
            "Times",
            {"fields": (("started_at", "ended_at"), ("looked_at", "try_at"))},
        ),
    )
