from __future__ import annotations

from django.urls import path

from billing import views
from billing.api import api_keys, subscription, usage

urlpatterns = [
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
    path("invoices", views.InvoiceList.as_view(), name="invoices"),
    path("invoices/<int:pk>", views.InvoiceDetail.as_view(), name="invoice"),
    path("invoices/<int:pk>/download", views.InvoiceDownload.as_view(), name="invoice-download"),
    path(
        "invoices/<int:pk>/lines/<int:line>/explain",
        views.LineExplanation.as_view(),
        name="line-explanation",
    ),
    path(
        "invoices/<int:pk>/lines/<int:line>/lives/<int:life>",
        views.LineWindows.as_view(),
        name="line-windows",
    ),
    path("credit-notes", views.CreditNoteList.as_view(), name="credit-notes"),
    path(
        "credit-notes/<int:pk>/download",
        views.CreditNoteDownload.as_view(),
        name="credit-note-download",
    ),
    path("api-keys", api_keys.ApiKeys.as_view(), name="api-keys"),
    path("api-keys/<int:pk>", api_keys.ApiKeyDetail.as_view(), name="api-key"),
    path("api-keys/<int:pk>/rotate", api_keys.ApiKeyRotation.as_view(), name="api-key-rotation"),
    path("plans", views.PlanList.as_view(), name="plans"),
]
