from __future__ import annotations

from django.contrib import admin

from billing.admin.asking import CheckedForm, money, price_text
from billing.models import DiscountRule
from metering.pages import Page


class DiscountRuleForm(CheckedForm[DiscountRule]):
    """A discount that finance gives."""

    class Meta:
        model = DiscountRule
        fields = "__all__"
        help_texts = {
            "currency": "Accounts that pay in another have no part in it.",
            "min_amount": "The usage fee that has to be reached; of a commitment rule, the "
            "committed minimum.",
            "min_months": "Of commitment rules: the term that has to be committed to.",
            "priority": "The lower comes first on the invoice.",
            "valid_from": "For periods that start on this day or later.",
            "valid_to": "For periods that start before this day.",
        }


@admin.register(DiscountRule)
class DiscountRuleAdmin(Page[DiscountRule]):
    """Discounts: for what, how much, to whom and when."""

    form = DiscountRuleForm
    reached_amount = money("min_amount", description="reached amount")
    amount_off = money("amount")
    list_display = (
        "name",
        "kind",
        "for_whom",
        "reached_amount",
        "percent_off",
        "amount_off",
        "valid_from",
        "valid_to",
        "is_active",
        "priority",
    )
    list_filter = ("kind", "scope", "is_active", "currency")
    list_select_related = ("plan", "account")
    search_fields = ("name", "plan__name", "account__name")
    autocomplete_fields = ("plan", "account")
    fieldsets = (
        (None, {"fields": ("name", ("kind", "is_active"), ("currency", "priority"))}),
        ("What has to be reached", {"fields": (("min_amount", "min_months"),)}),
        ("What it takes off", {"fields": (("percent", "amount"),)}),
        ("To whom", {"fields": ("scope", ("plan", "account"))}),
        ("When", {"fields": (("valid_from", "valid_to"),)}),
    )

    @admin.display(description="scope", ordering="scope")
    def for_whom(self, rule: DiscountRule) -> str:
        """Return the plan or account it is for."""
        return f"{rule.scope} {rule.plan or rule.account or ''}".strip()

    @admin.display(description="percent", ordering="percent")
    def percent_off(self, rule: DiscountRule) -> str:
        """Return the percentage."""
        return f"{price_text(rule.percent)} %"
