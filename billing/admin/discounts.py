from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Count, F, Q, QuerySet, Sum
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.decorators import method_decorator
from django.views.decorators.http import require_POST

from billing.admin.asking import AsksWhy, CheckedForm, money, price_text
from billing.admin.export_tables import DISCOUNT_RULES
from billing.admin.import_tables import DiscountRuleResource
from billing.admin.importing import Imports
from billing.admin.listing import Totals, WithTotals, grouped_money
from billing.lifecycle import NOT_FINAL
from billing.models import DiscountRule, InvoiceDiscount
from billing.rule_preview import LAST_MONTH, MOST_ACCOUNTS, TIME_LIMIT_S, preview_rule

LISTED = 50
"""So many accounts a preview names, those that would save the most first."""


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
class DiscountRuleAdmin(Imports, AsksWhy, WithTotals[DiscountRule]):
    """Discounts: for what, how much, to whom and when."""

    change_form_outer_after_template = "admin/billing/rule_preview_area.html"

    form = DiscountRuleForm
    export_tables = (DISCOUNT_RULES,)
    import_resource = DiscountRuleResource
    import_rights = ("billing.add_discountrule", "billing.change_discountrule")
    reached_amount = money("min_amount", description="reached amount")
    amount_off = money("amount")
    given_so_far = money("given", description="given so far")
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
        "uses",
        "given_so_far",
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

    @admin.display(description="uses", ordering="use_count")
    def uses(self, rule: DiscountRule) -> int:
        """Return on how many final invoices it is."""
        count: int = vars(rule)["use_count"]
        return count

    def get_queryset(self, request: HttpRequest) -> QuerySet[DiscountRule]:
        """Return the rules with how often they were used, and what they took off."""
        # In the rule's currency; before that was changed they took off another.
        is_counted = Q(invoicediscount__invoice__currency=F("currency")) & ~Q(
            invoicediscount__invoice__status__in=NOT_FINAL
        )
        return (
            super()
            .get_queryset(request)
            .annotate(
                use_count=Count("invoicediscount", filter=is_counted),
                given=Sum("invoicediscount__amount", filter=is_counted),
            )
        )

    def totals_of(self, rows: QuerySet[DiscountRule]) -> Totals:
        """Return how many rules there are, and what they took off, a currency a row."""
        rules = rows.values("currency").annotate(
            count=Count("pk"), active=Count("pk", filter=Q(is_active=True))
        )
        given = dict(
            InvoiceDiscount.objects.filter(rule__in=rows)
            .exclude(invoice__status__in=NOT_FINAL)
            .values_list("invoice__currency")
            .annotate(total=Sum("amount"))
        )
        return Totals(
            ("currency", "rules", "active", "given so far"),
            [
                [
                    row["currency"],
                    f"{row['count']:,}",
                    f"{row['active']:,}",
                    grouped_money(given.get(row["currency"]), row["currency"]),
                ]
                for row in rules.order_by("currency")
            ],
            "Of all that the filters leave; given on final invoices that are not void.",
        )

    def get_urls(self) -> list[URLPattern]:
        """Return the pages of rules, and that of the preview."""
        preview = self.admin_site.admin_view(self.preview)
        name = "billing_discountrule_preview"
        return [path("preview/", preview, name=name), *super().get_urls()]

    @method_decorator(require_POST)
    def preview(self, request: HttpRequest) -> HttpResponse:
        """Show what the rule in the form, which is not saved, would have changed last month."""
        rule = self._rule_asked(request)
        right = "change" if rule else "add"
        may = request.user.has_perm
        if not (may(f"billing.{right}_discountrule") and may("billing.view_invoice")):
            raise PermissionDenied
        form = self.get_form(request, rule, change=rule is not None)(request.POST, instance=rule)
        context: dict[str, Any] = {
            **self.admin_site.each_context(request),
            "title": "Effect of the rule on last month",
            "opts": self.opts,
            "form": form,
            "most_accounts": MOST_ACCOUNTS,
            "days": LAST_MONTH.days,
            "seconds": int(TIME_LIMIT_S),
        }
        if form.is_valid():
            # The form has put what was typed into the row in memory, and saves nothing.
            found = preview_rule(form.instance, now=datetime.now(UTC))
            context |= {"preview": found, "listed": found.effects[:LISTED]}
        is_part = request.headers.get("X-Requested-With") == "fetch"
        template = "rule_preview.html" if is_part else "rule_preview_page.html"
        return TemplateResponse(request, f"admin/billing/{template}", context)

    def _rule_asked(self, request: HttpRequest) -> DiscountRule | None:
        if not (key := request.GET.get("rule")):
            return None
        rule = self.get_object(request, key)
        if rule is None:
            raise Http404
        return rule

    class Media:
        js = ("billing/rule_preview.js",)
