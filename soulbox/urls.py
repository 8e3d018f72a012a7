from __future__ import annotations

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

from billing.api.codes import problem_codes
from billing.operator_views import GenerateInvoices, UsageReport

handler400 = "soulbox.doors.bad_request"
handler404 = "soulbox.doors.not_found"
handler500 = "soulbox.doors.server_error"

urlpatterns: list[URLPattern | URLResolver] = [
    # The operator's routes stand before the admin, which would send a program to its log-in page.
    path("admin/usage-report", UsageReport.as_view(), name="usage-report"),
    path("admin/generate-invoices", GenerateInvoices.as_view(), name="generate-invoices"),
    path("admin/reports/", include("billing.admin.reports")),
    path("admin/two-factor/", include("soulbox.staff.urls")),
    path("admin/", admin.site.urls),
    path("api/schema/", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs/", SpectacularSwaggerSplitView.as_view(url_name="schema"), name="docs"),
    path("api/problems", problem_codes, name="problems"),
    path("api/v1/", include("billing.urls")),
    path("api/v1/", include("payments.urls")),
    path("api/v1/metering/", include("metering.api.urls")),
    path("", include("soulbox.portal.urls")),
]
