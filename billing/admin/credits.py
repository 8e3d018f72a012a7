from __future__ import annotations

from django.contrib import admin

from billing.models import CreditEntry, CreditGrant
from metering.pages import ReadOnlyPage, ReadOnlyRows


class CreditEntryRows(ReadOnlyRows[CreditEntry, CreditGrant]):
    """What became of a grant."""

    model = CreditEntry
    fields = ("kind", "amount", "invoice", "recorded_at")


@admin.register(CreditGrant)
class CreditGrantAdmin(ReadOnlyPage[CreditGrant]):
    """Credits that came with a plan, by period."""

    list_display = ("account", "plan", "period_start", "period_end")
    list_filter = ("subscription__plan",)
    list_select_related = ("subscription__account", "subscription__plan")
    search_fields = ("subscription__account__name", "subscription__account__id")
    date_hierarchy = "period_start"
    inlines = (CreditEntryRows,)

    @admin.display(ordering="subscription__account__name")
    def account(self, grant: CreditGrant) -> str:
        """Return whose credit it is."""
        return grant.subscription.account.name

    @admin.display(ordering="subscription__plan__name")
    def plan(self, grant: CreditGrant) -> str:
        """Return the plan it came with."""
        return grant.subscription.plan.name


@admin.register(CreditEntry)
class CreditEntryAdmin(ReadOnlyPage[CreditEntry]):
    """The credit ledger."""

    list_display = ("recorded_at", "account", "kind", "amount", "invoice")
    list_filter = ("kind",)
    list_select_related = ("grant__subscription__account", "invoice")
    search_fields = ("grant__subscription__account__name", "invoice__number")
    date_hierarchy = "recorded_at"

    @admin.display(ordering="grant__subscription__account__name")
    def account(self, entry: CreditEntry) -> str:
        """Return whose ledger it is."""
        return entry.grant.subscription.account.name
