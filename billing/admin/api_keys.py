from __future__ import annotations

from datetime import UTC, datetime

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.contrib.filters.admin import AutocompleteSelectFilter

from billing import services
from billing.models import ApiKey
from metering.pages import ReadOnlyPage


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnlyPage[ApiKey]):
    """Customers' keys. They are issued from the account's list."""

    list_display = (
        "name",
        "prefix",
        "account",
        "shown_scopes",
        "created_at",
        "expires_at",
        "last_used_at",
        "revoked_at",
    )
    list_filter = (
        ("account", AutocompleteSelectFilter),
        ("revoked_at", admin.EmptyFieldListFilter),
        ("expires_at", admin.EmptyFieldListFilter),
    )
    list_filter_submit = True
    list_select_related = ("account",)
    search_fields = ("name", "prefix", "account__name")
    fields = list_display
    readonly_fields = ("shown_scopes",)
    actions = ("revoke",)

    @admin.action(description="Revoke", permissions=["revoke"])
    def revoke(self, request: HttpRequest, api_keys: QuerySet[ApiKey]) -> None:
        """Refuse the keys from now on."""
        now = datetime.now(UTC)
        for api_key in api_keys:
            services.revoke_api_key(api_key.pk, now=now)
            self.log_change(request, api_key, "Revoked.")
        self.message_user(request, "Revoked.", messages.SUCCESS)

    @admin.display(description="scopes")
    def shown_scopes(self, api_key: ApiKey) -> str:
        """Return what it may do."""
        return ", ".join(api_key.scopes)

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        """Return whether the user's own rights let them change keys."""
        return request.user.has_perm("billing.change_apikey")
