"""Which accounts a hard cap keeps stopped, since when, and what was used above it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from django.contrib import admin
from django.db.models import Q
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import AutocompleteSelectFilter

from billing.admin.asking import MISSING, link_to, money, money_text
from billing.admin.filters import StateFilter
from billing.models import BudgetCap
from billing.services.caps import overshoot_bound
from metering.pages import ReadOnlyPage


class CapStateFilter(StateFilter):
    """Whether a cap holds."""

    def states(self, now: datetime) -> Mapping[str, Q]:
        """Return the states by name."""
        del now
        return {"holds": Q(lifted_at__isnull=True), "lifted": Q(lifted_at__isnull=False)}


@admin.register(BudgetCap)
class BudgetCapAdmin(ReadOnlyPage[BudgetCap]):
    """Accounts that are capped, or were. A cap is lifted through its budget."""

    cap_amount = money("amount", of="account", description="hard cap")
    cost_then = money("cost_at_cap", of="account", description="cost when capped")
    cost_now = money("latest_cost", of="account", description="latest cost")
    rate = money("burn_rate", of="account", description="cost an hour when capped")
    list_display = (
        "account",
        "budget_name",
        "state",
        "capped_at",
        "cap_amount",
        "cost_now",
        "above",
        "most_above",
        "lifted_at",
    )
    list_filter = (("account", AutocompleteSelectFilter), CapStateFilter, "lifted_because")
    list_filter_submit = True
    list_select_related = ("account",)
    search_fields = ("budget_name", "account__name", "account__id")
    date_hierarchy = "capped_at"
    fieldsets = (
        (
            None,
            {
                "fields": (
                    ("account", "of_budget"),
                    ("state", "how_to_lift"),
                    ("capped_at", "lifted_at"),
                    ("period_start", "period_end"),
                    "asked",
                )
            },
        ),
        (
            "Cost",
            {
                "fields": (
                    ("cap_amount", "cost_then"),
                    ("cost_now", "latest_at"),
                    ("above", "most_above"),
                    "rate",
                )
            },
        ),
    )
    readonly_fields = (
        "of_budget",
        "state",
        "how_to_lift",
        "cap_amount",
        "cost_then",
        "cost_now",
        "above",
        "most_above",
        "rate",
        "asked",
    )

    @admin.display(description="budget")
    def of_budget(self, cap: BudgetCap) -> SafeString | str:
        """Return a link to the budget, if it is there still."""
        return link_to(cap.budget, cap.budget_name) if cap.budget else cap.budget_name

    @admin.display(description="state", ordering="lifted_because")
    def state(self, cap: BudgetCap) -> str:
        """Return whether it holds, or why it does not any more."""
        if cap.lifted_at is None:
            return "holds"
        return f"lifted: {cap.get_lifted_because_display().lower()}"

    @admin.display(description="to lift it")
    def how_to_lift(self, cap: BudgetCap) -> str:
        """Return what a person does to lift it."""
        if cap.lifted_at:
            return MISSING
        return (
            "Raise the budget above the latest cost, or switch its hard cap off. It is lifted "
            "with the next look, some seconds later."
        )

    @admin.display(description="above the cap")
    def above(self, cap: BudgetCap) -> str:
        """Return what was used above it."""
        return money_text(cap.overshoot, cap.account.currency)

    @admin.display(description="expected at most")
    def most_above(self, cap: BudgetCap) -> str:
        """Return what may be used above it until the platform is asked, at the rate of then."""
        # Of an account that had been looked at once, no rate is known.
        if not cap.burn_rate:
            return MISSING
        return money_text(overshoot_bound(cap.burn_rate), cap.account.currency)

    @admin.display(description="platform")
    def asked(self, cap: BudgetCap) -> SafeString:
        """Return a link to what the platform was asked."""
        return format_html(
            '<a class="text-primary-600" href="{}?account__id__exact={}">What the platform was '
            "asked to do</a>",
            reverse("admin:payments_platformrequest_changelist"),
            cap.account_id,
        )
