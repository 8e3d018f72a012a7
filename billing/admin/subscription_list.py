"""The list of subscriptions: by what they are now, and the fees of those in force."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.contrib import admin
from django.db.models import Count, Q, QuerySet, Sum
from django.http import HttpRequest

from billing.admin.listing import Totals, WithTotals, grouped_money
from billing.models import Subscription

STATES = ("active", "trial", "ends", "to come", "cancelled now", "over")


class StateFilter(admin.SimpleListFilter):
    """What a subscription is now, as its list says."""

    title = "state"
    parameter_name = "state"

    def lookups(
        self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]
    ) -> list[tuple[str, str]]:
        """Return the states there are."""
        del request, model_admin
        return [(state, state) for state in STATES]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[Subscription]
    ) -> QuerySet[Subscription]:
        """Return the subscriptions in the state; the list has named it."""
        del request
        state = self.value()
        return queryset.filter(Q(state_now=state)) if state else queryset


class SubscriptionList(WithTotals[Subscription]):
    """How subscriptions are found and added up."""

    list_filter = (
        "plan",
        StateFilter,
        "interval",
        "account__currency",
        ("expires_at", admin.EmptyFieldListFilter),
        ("expires_at", admin.DateFieldListFilter),
    )
    list_select_related = ("account", "plan", "price_book")
    search_fields = ("account__name", "account__id")

    def totals_of(self, rows: QuerySet[Subscription]) -> Totals:
        """Return how many there are, and the fees of those in force, by currency and interval."""
        now = datetime.now(UTC)
        in_force = Q(started_at__lte=now) & (Q(expires_at__isnull=True) | Q(expires_at__gt=now))
        sums = (
            rows.values("account__currency", "interval")
            .annotate(
                count=Count("pk"),
                running=Count("pk", filter=in_force),
                fees=Sum("fee", filter=in_force),
            )
            .order_by("account__currency", "interval")
        )
        return Totals(
            ("currency and interval", "subscriptions", "in force", "fees of those in force"),
            [
                [
                    f"{row['account__currency']}, {row['interval']}",
                    f"{row['count']:,}",
                    f"{row['running']:,}",
                    grouped_money(row["fees"], row["account__currency"]),
                ]
                for row in sums
            ],
            "Of all that the filters leave; a fee is for a month, or for a year of annual ones.",
        )
