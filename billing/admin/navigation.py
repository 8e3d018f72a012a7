"""The sidebar: what there is, grouped by what staff come to do. To add a page, add a line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from django.urls import reverse

from billing.operator_access import SEES_REPORTS


@dataclass(frozen=True, slots=True)
class Entry:
    """A page of the sidebar: its icon is one of Material Symbols, its right as in `app.code`."""

    title: str
    icon: str
    url: str
    right: str


def _list_of(title: str, icon: str, table: str) -> Entry:
    """Return the entry of a table's list, for who may see it; `table` is `app.model`."""
    app, model = table.split(".")
    return Entry(title, icon, f"admin:{app}_{model}_changelist", f"{app}.view_{model}")


GROUPS: Mapping[str, Iterable[Entry]] = {
    "Customers": (
        _list_of("Accounts", "domain", "billing.account"),
        _list_of("Subscriptions", "autorenew", "billing.subscription"),
        _list_of("Members", "groups", "billing.membership"),
        _list_of("Invitations", "person_add", "billing.invitation"),
        _list_of("API keys", "key", "billing.apikey"),
        _list_of("Budgets", "data_usage", "billing.budget"),
        _list_of("Hard caps", "front_hand", "billing.budgetcap"),
        _list_of("Closings", "door_front", "billing.accountclosing"),
    ),
    "Customers' webhooks": (
        _list_of("Endpoints", "outbound", "billing.webhookendpoint"),
        _list_of("Events", "campaign", "billing.event"),
        _list_of("Deliveries", "local_shipping", "billing.delivery"),
    ),
    "Invoices": (
        _list_of("Invoices", "receipt_long", "billing.invoice"),
        _list_of("Credit notes", "receipt", "billing.creditnote"),
        _list_of("Corrections", "rule", "billing.correction"),
        _list_of("Unpriced usage", "money_off", "billing.unpricedusage"),
        _list_of("Unbilled late usage", "schedule", "billing.unbilledlateusage"),
        _list_of("Mail messages", "mail", "billing.mailmessage"),
        Entry("Reports", "summarize", "reports", SEES_REPORTS),
    ),
    "Prices and discounts": (
        _list_of("Plans", "view_list", "billing.plan"),
        _list_of("Price books", "menu_book", "billing.pricebook"),
        _list_of("Price book versions", "history", "billing.pricebookversion"),
        _list_of("Prices", "sell", "billing.price"),
        _list_of("Discount rules", "percent", "billing.discountrule"),
    ),
    "Credits": (
        _list_of("Credits", "savings", "billing.creditgrant"),
        _list_of("Credit ledger", "list_alt", "billing.creditentry"),
        _list_of("Top-ups", "add_card", "billing.topup"),
    ),
    "Payments": (
        _list_of("Dunning board", "running_with_errors", "payments.dunningcase"),
        _list_of("Collections", "account_balance", "payments.collection"),
        _list_of("Payment attempts", "credit_score", "payments.paymentattempt"),
        _list_of("Payments", "payments", "payments.payment"),
        _list_of("Refunds", "undo", "payments.refund"),
        _list_of("Disputes", "gavel", "payments.dispute"),
        _list_of("Differences", "difference", "payments.difference"),
        _list_of("Customers", "contacts", "payments.customer"),
        _list_of("Fee subscriptions", "event_upcoming", "payments.feesubscription"),
        _list_of("Payment methods", "credit_card", "payments.paymentmethod"),
        _list_of("Dunning schedule", "event_repeat", "payments.dunningstep"),
        _list_of("Platform requests", "dns", "payments.platformrequest"),
        _list_of("Webhook events", "webhook", "payments.webhookevent"),
        _list_of("Reconciliations", "balance", "payments.reconciliation"),
    ),
    "Metering": (
        _list_of("Usage records", "monitoring", "metering.usagerow"),
        _list_of("Daily usage", "calendar_month", "metering.dailyusagesummary"),
        _list_of("Sandboxes", "deployed_code", "metering.sandbox"),
        _list_of("Starts of sandboxes", "play_circle", "metering.life"),
        _list_of("Gaps", "signal_disconnected", "metering.gap"),
        _list_of("Late usage", "schedule", "metering.lateusage"),
        _list_of("Refused samples", "block", "metering.refusal"),
        _list_of("Hosts", "dns", "metering.host"),
        _list_of("Metered accounts", "group_work", "metering.accountregistration"),
        _list_of("Metering keys", "vpn_key", "metering.meteringkey"),
    ),
    "Staff and audit": (
        _list_of("Audit trail", "history_edu", "billing.audittrail"),
        _list_of("Users", "person", "auth.user"),
        _list_of("Groups", "group", "auth.group"),
        _list_of("Operator keys", "vpn_key", "billing.operatorkey"),
    ),
}
"""The groups in order, and their pages; each shows to who has its right."""

FOLDED = frozenset({"Metering", "Staff and audit"})
"""Groups that show their pages when asked to."""


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """Return the sidebar for the one who asks, as unfold takes it."""
    desk = {"title": "Desk", "icon": "home", "link": reverse("admin:index")}
    groups: list[dict[str, Any]] = [{"items": [desk]}]
    for title, entries in GROUPS.items():
        items = [
            {"title": entry.title, "icon": entry.icon, "link": reverse(entry.url)}
            for entry in entries
            if request.user.has_perm(entry.right)
        ]
        if items:
            is_folded = title in FOLDED
            groups.append({"title": title, "collapsible": is_folded, "items": items})
    return groups
