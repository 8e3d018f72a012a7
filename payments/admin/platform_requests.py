from __future__ import annotations

from django.contrib import admin

from metering.pages import ReadOnlyPage
from payments.models import PlatformRequest


@admin.register(PlatformRequest)
class PlatformRequestAdmin(ReadOnlyPage[PlatformRequest]):
    """What the platform is asked to do with accounts' sandboxes, and whether it said yes."""

    list_display = (
        "account",
        "action",
        "state",
        "reason",
        "requested_at",
        "tries",
        "try_at",
        "last_error",
    )
    list_filter = (
        "action",
        ("accepted_at", admin.EmptyFieldListFilter),
        ("replaced_at", admin.EmptyFieldListFilter),
        ("requested_at", admin.DateFieldListFilter),
    )
    list_select_related = ("account",)
    search_fields = ("account__name", "account__id")
    date_hierarchy = "requested_at"
    fieldsets = (
        (
            None,
            {
                "fields": (
                    ("account", "action"),
                    ("state", "reason"),
                    ("requested_at", "accepted_at"),
                    ("replaced_at", "try_at"),
                    ("tries", "last_error"),
                )
            },
        ),
    )
    readonly_fields = ("state",)

    @admin.display(description="state")
    def state(self, asked: PlatformRequest) -> str:
        """Return whether the platform has it, is asked still, or was asked for something else."""
        if asked.accepted_at:
            return "accepted"
        return "replaced by a later one" if asked.replaced_at else "waits for the platform"
