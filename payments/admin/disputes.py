from __future__ import annotations

from django.contrib import admin

from billing.admin.asking import money
from metering.pages import ReadOnlyPage
from payments.models import Dispute


@admin.register(Dispute)
class DisputeAdmin(ReadOnlyPage[Dispute]):
    """Payments that the customers' banks take back. They are answered at the provider."""

    own_amount = money("amount", of="payment")
    list_display = (
        "provider_id",
        "account",
        "own_amount",
        "status",
        "reason",
        "payment",
        "opened_at",
        "answer_by",
        "closed_at",
    )
    list_filter = ("status", "reason", ("opened_at", admin.DateFieldListFilter))
    list_select_related = ("payment__account",)
    search_fields = (
        "=provider_id",
        "=payment__provider_id",
        "payment__account__name",
        "payment__account__id",
    )
    date_hierarchy = "opened_at"
    fieldsets = (
        (
            None,
            {
                "fields": (
                    ("account", "payment"),
                    ("provider_id", "own_amount"),
                    ("status", "reason"),
                    ("opened_at", "answer_by"),
                    ("closed_at",),
                )
            },
        ),
    )
    readonly_fields = ("own_amount", "account")

    @admin.display(ordering="payment__account__name")
    def account(self, dispute: Dispute) -> str:
        """Return whose payment it is."""
        return str(dispute.payment.account)
