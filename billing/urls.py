from __future__ import annotations

from django.urls import path

from billing.api import (
    account,
    api_keys,
    budgets,
    credit,
    credit_notes,
    events,
    invoices,
    members,
    plans,
    sandboxes,
    subscription,
    usage,
    webhook_endpoints,
)

urlpatterns = [
    path("account", account.AccountDetail.as_view(), name="account"),
    path("account/close", account.AccountClose.as_view(), name="account-closing"),
    path("members", members.Members.as_view(), name="members"),
    path("members/<int:pk>", members.MemberDetail.as_view(), name="member"),
    path("members/invitations", members.Invitations.as_view(), name="invitations"),
    path(
        "members/invitations/<uuid:invitation>",
        members.InvitationDetail.as_view(),
        name="invitation",
    ),
    path("subscription", subscription.SubscriptionDetail.as_view(), name="subscription"),
    path(
        "subscription/cancel",
        subscription.SubscriptionCancellation.as_view(),
        name="subscription-cancellation",
    ),
    path(
        "subscription/resume",
        subscription.SubscriptionResumption.as_view(),
        name="subscription-resumption",
    ),
    path("usage/current", usage.UsageCurrent.as_view(), name="usage-current"),
    path("usage/history", usage.UsageHistory.as_view(), name="usage-history"),
    path("usage/summary/<str:period>", usage.UsageSummary.as_view(), name="usage-summary"),
    path("usage/coverage", usage.UsageCoverage.as_view(), name="usage-coverage"),
    path("usage/costs", usage.UsageCosts.as_view(), name="usage-costs"),
    path("invoices", invoices.InvoiceList.as_view(), name="invoices"),
    path("invoices/<int:pk>", invoices.InvoiceDetail.as_view(), name="invoice"),
    path("invoices/<int:pk>/lines", invoices.InvoiceLines.as_view(), name="invoice-lines"),
    path("invoices/<int:pk>/explain", invoices.WholeExplanation.as_view(), name="invoice-explain"),
    path("invoices/<int:pk>/download", invoices.InvoiceDownload.as_view(), name="invoice-download"),
    path(
        "invoices/<int:pk>/lines/<int:line>/explain",
        invoices.LineExplanation.as_view(),
        name="line-explanation",
    ),
    path(
        "invoices/<int:pk>/lines/<int:line>/lives/<int:life>",
        invoices.LineWindows.as_view(),
        name="line-windows",
    ),
    path("credits", credit.Credits.as_view(), name="credits"),
    path("credits/entries", credit.CreditEntries.as_view(), name="credit-entries"),
    path("credit-notes", credit_notes.CreditNoteList.as_view(), name="credit-notes"),
    path(
        "credit-notes/<int:pk>/download",
        credit_notes.CreditNoteDownload.as_view(),
        name="credit-note-download",
    ),
    path("sandboxes", sandboxes.SandboxList.as_view(), name="sandboxes"),
    path("sandboxes/<str:sandbox_id>", sandboxes.SandboxDetail.as_view(), name="sandbox"),
    path(
        "sandboxes/<str:sandbox_id>/usage", sandboxes.SandboxUsage.as_view(), name="sandbox-usage"
    ),
    path(
        "sandboxes/<str:sandbox_id>/collect",
        sandboxes.SandboxCollect.as_view(),
        name="sandbox-collect",
    ),
    path("api-keys", api_keys.ApiKeys.as_view(), name="api-keys"),
    path("api-keys/<int:pk>", api_keys.ApiKeyDetail.as_view(), name="api-key"),
    path("api-keys/<int:pk>/rotate", api_keys.ApiKeyRotation.as_view(), name="api-key-rotation"),
    path("budgets", budgets.Budgets.as_view(), name="budgets"),
    path("budgets/<int:pk>", budgets.BudgetDetail.as_view(), name="budget"),
    path("plans", plans.PlanList.as_view(), name="plans"),
    path(
        "webhook-endpoints", webhook_endpoints.WebhookEndpoints.as_view(), name="webhook-endpoints"
    ),
    path(
        "webhook-endpoints/<uuid:pk>",
        webhook_endpoints.WebhookEndpointDetail.as_view(),
        name="webhook-endpoint",
    ),
    path(
        "webhook-endpoints/<uuid:pk>/rotate",
        webhook_endpoints.WebhookEndpointRotation.as_view(),
        name="webhook-endpoint-rotation",
    ),
    path(
        "webhook-endpoints/<uuid:pk>/ping",
        webhook_endpoints.WebhookEndpointPing.as_view(),
        name="webhook-endpoint-ping",
    ),
    path(
        "webhook-endpoints/<uuid:pk>/deliveries",
        webhook_endpoints.WebhookEndpointDeliveries.as_view(),
        name="webhook-endpoint-deliveries",
    ),
    path("events", events.Events.as_view(), name="events"),
    path("events/<uuid:pk>", events.EventDetail.as_view(), name="event"),
    path("events/<uuid:pk>/redeliver", events.EventRedelivery.as_view(), name="event-redelivery"),
]
