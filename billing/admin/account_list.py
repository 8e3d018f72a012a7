"""The list of accounts: their plans, what credit is left, and the totals of both."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django.contrib import admin
from django.db.models import Count, Exists, OuterRef, Q, QuerySet, Subquery, Sum
from django.http import HttpRequest

from billing.admin.asking import MISSING, money
from billing.admin.listing import Totals, WithTotals, grouped_money
from billing.credits import CreditKind
from billing.models import Account, CreditEntry, Plan, Subscription

_PREPAID = Q(grant__kind=CreditKind.PREPAID)


def _subscribed(now: datetime) -> QuerySet[Subscription]:
    """Return the subscription that an outer account has at that moment."""
    return Subscription.objects.filter(account=OuterRef("pk"), started_at__lte=now).filter(
        Q(expires_at__isnull=True) | Q(expires_at__gt=now)
    )


class PlanFilter(admin.SimpleListFilter):
    """The plan that an account is on now."""

    title = "plan"
    parameter_name = "plan"
    NONE = "none"

    def lookups(
        self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]
    ) -> list[tuple[str, str]]:
        """Return the plans there are, and none."""
        del request, model_admin
        plans = Plan.objects.order_by("name").values_list("code", "name")
        return [*plans, (self.NONE, "No subscription")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Account]) -> QuerySet[Account]:
        """Return the accounts on the plan."""
        del request
        subscribed = _subscribed(datetime.now(UTC))
        match self.value():
            case None:
                return queryset
            case self.NONE:
                return queryset.filter(~Exists(subscribed))
            case code:
                return queryset.filter(Exists(subscribed.filter(plan__code=code)))


class AccountList(WithTotals[Account]):
    """How accounts are found and added up."""

    usage_left = money("left_for_usage", description="usage credit")
    prepaid_left = money("left_prepaid", description="prepaid credit")
    list_display = (
        "name",
        "plan_now",
        "currency",
        "usage_left",
        "prepaid_left",
        "open_period_end",
        "parked_reason",
        "time_zone",
        "id",
    )
    list_filter = (
        ("parked_at", admin.EmptyFieldListFilter),
        ("closing_at", admin.EmptyFieldListFilter),
        PlanFilter,
        "currency",
    )
    search_fields = ("name", "id", "memberships__user__email", "memberships__user__username")

    @admin.display(description="plan", ordering="plan_name")
    def plan_now(self, account: Account) -> str:
        """Return the plan it is on now."""
        return vars(account)["plan_name"] or MISSING

    def get_queryset(self, request: HttpRequest) -> QuerySet[Account]:
        """Return the accounts with their plans and what credit is left."""
        entries = CreditEntry.objects.filter(grant__account=OuterRef("pk")).order_by()
        # Grouped by the account and no more, so that there is one row.
        grouped = entries.values("grant__account").annotate(left=Sum("amount")).values("left")
        plan = _subscribed(datetime.now(UTC)).values("plan__name")[:1]
        return (
            super()
            .get_queryset(request)
            .annotate(
                plan_name=Subquery(plan),
                left_for_usage=Subquery(grouped.filter(~_PREPAID)),
                left_prepaid=Subquery(grouped.filter(_PREPAID)),
            )
        )

    def totals_of(self, rows: QuerySet[Account]) -> Totals:
        """Return how many there are and what credit is left, a currency a row."""
        counts = (
            rows.values("currency")
            .annotate(count=Count("pk"), parked=Count("pk", filter=Q(parked_at__isnull=False)))
            .order_by("currency")
        )
        left = {
            row["grant__account__currency"]: (row["usage"], row["prepaid"])
            for row in CreditEntry.objects.filter(grant__account__in=rows)
            .values("grant__account__currency")
            .annotate(usage=Sum("amount", filter=~_PREPAID), prepaid=Sum("amount", filter=_PREPAID))
        }
        nothing = (Decimal(0), Decimal(0))
        return Totals(
            ("currency", "accounts", "parked", "usage credit", "prepaid credit"),
            [
                [
                    row["currency"],
                    f"{row['count']:,}",
                    f"{row['parked']:,}",
                    *(
                        grouped_money(amount, row["currency"])
                        for amount in left.get(row["currency"], nothing)
                    ),
                ]
                for row in counts
            ],
            "Of all that the filters leave.",
        )
