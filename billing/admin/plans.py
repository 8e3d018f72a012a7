from __future__ import annotations

from django.contrib import admin
from django.forms import ModelForm
from django.http import HttpRequest

from billing.admin.asking import AsksWhy, CheckedForm, money
from billing.admin.export_tables import PLANS
from billing.admin.exporting import Exports
from billing.caching import Kind, forget_of
from billing.models import Plan, Subscription
from metering.pages import Page


class PlanForm(CheckedForm[Plan]):
    """What is on offer."""

    class Meta:
        model = Plan
        fields = "__all__"
        help_texts = {
            "monthly_fee": "Empty: not offered monthly. Both empty: agreed with each customer.",
            "annual_fee": "For a year. Empty: not offered annually.",
            "credit_rollover_periods": "For how many more periods a monthly credit may be used.",
            "is_offered": "Customers see it and may choose it.",
            "stripe_price_id": "The price whose monthly fee Stripe collects in advance, for who "
            "subscribes from now on without terms of its own. Empty: the fee is on our invoices.",
        }


@admin.register(Plan)
class PlanAdmin(Exports, AsksWhy, Page[Plan]):
    """What is on offer."""

    form = PlanForm
    export_tables = (PLANS,)
    shown_monthly_fee = money("monthly_fee")
    shown_annual_fee = money("annual_fee")
    shown_credits = money("monthly_credits")
    list_display = (
        "name",
        "shown_monthly_fee",
        "shown_annual_fee",
        "shown_credits",
        "trial_days",
        "is_offered",
        "price_book",
    )
    list_filter = ("is_offered", "price_book", "currency")
    list_select_related = ("price_book",)
    search_fields = ("name", "code")
    fieldsets = (
        (None, {"fields": (("name", "code"), ("price_book", "currency"), "is_offered")}),
        ("Fee", {"fields": (("monthly_fee", "annual_fee"), ("trial_days", "stripe_price_id"))}),
        ("Credits", {"fields": (("monthly_credits", "credit_rollover_periods"),)}),
    )

    def get_readonly_fields(self, request: HttpRequest, obj: Plan | None = None) -> tuple[str, ...]:
        """Return what stays once the plan is there.

        Another book would price anew what was used already, this period, by everybody on the
        plan; another price is a new version of the book.
        """
        del request
        return ("code", "price_book", "currency") if obj else ()

    def save_model(
        self,
        request: HttpRequest,
        obj: Plan,
        form: ModelForm[Plan],
        change: bool,  # noqa: FBT001 - Django passes it so
    ) -> None:
        """Save it; whoever is on it is shown its name as it is now."""
        super().save_model(request, obj, form, change)
        on_it = Subscription.objects.filter(plan=obj).values_list("account_id", flat=True)
        forget_of(on_it.distinct().iterator(), Kind.SUBSCRIPTION)
