from __future__ import annotations

from django.urls import path

from metering.api import views

urlpatterns = [
    path("samples", views.Samples.as_view(), name="metering-samples"),
    path(
        "sandboxes/<str:sandbox_id>/collect",
        views.SandboxCollect.as_view(),
        name="metering-sandbox-collect",
    ),
]
