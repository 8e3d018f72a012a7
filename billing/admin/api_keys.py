from __future__ import annotations

from datetime import UTC, datetime

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from billing import services
from billing.models import ApiKey
from metering.pages import ReadOnlyPage


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnlyPage[ApiKey]):
    """Customers' keys. They are issued from the account's list."""

    list_display = ("name", "prefix", "account", "created_at", "last_used_at", "revoked_at")
    list_filter = (("revoked_at", admin.EmptyFieldListFilter),)
    list_select_related = ("account",)
    search_fields = ("name", "prefix", "account__name")
    exclude = ("key_hash",)
    actions = ("revoke",)

    @admin.action(description="Revoke", permissions=["revoke"])
    def revoke(self, request: HttpRequest, api_keys: QuerySet[ApiKey]) -> None:
        """Refuse the keys from now on."""
        now = datetime.now(UTC)
        for api_key in api_keys:
            services.revoke_api_key(api_key.pk, now=now)
        self.message_user(request, "Revoked.", messages.SUCCESS)

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        """Return whether the user's own rights let them change keys."""
        return request.user.has_perm("billing.change_apikey")
