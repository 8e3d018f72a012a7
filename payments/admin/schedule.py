from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest

from billing.admin.asking import AsksWhy
from metering.pages import Page
from payments.models import DunningStep


@admin.register(DunningStep)
class DunningStepAdmin(AsksWhy, Page[DunningStep]):
    """What is done about an unpaid invoice, and after how many days."""

    list_display = ("__str__", "after_days", "action")
    list_filter = ("action",)
    fields = (("after_days", "action"),)

    def has_delete_permission(self, request: HttpRequest, obj: DunningStep | None = None) -> bool:
        """Return whether the step may be taken out: no other row names it."""
        return obj is not None and request.user.has_perm("payments.delete_dunningstep")
