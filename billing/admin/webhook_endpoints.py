"""Where customers have events sent, and whether it gets there."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from django.contrib import admin
from django.db.models import OuterRef, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import AutocompleteSelectFilter

from billing import services
from billing.admin.asking import MISSING, Question, WithButtons, ask, ask_for_each, button
from billing.admin.filters import StateFilter, count_of
from billing.models import Delivery, WebhookEndpoint
from billing.models.outgoing import ENABLED, WAITING
from metering.pages import ReadOnlyPage

RIGHT = "billing.change_webhookendpoint"
DISABLE = Question(
    title="Disable",
    text="Nothing is sent there any more, and what waits is given up. The customer can enable it "
    "again.",
    yes="Disable",
)
ENABLE = Question(
    title="Enable",
    text="What happens from now on is sent there. What was given up is not, unless it is sent "
    "again.",
    yes="Enable",
)


class EndpointStateFilter(StateFilter):
    """Whether an endpoint is sent to."""

    def states(self, now: datetime) -> Mapping[str, Q]:
        """Return the states by name; one that fails is enabled still."""
        del now
        return {
            "enabled": ENABLED,
            "failing": ENABLED & Q(failing_since__isnull=False),
            "disabled": Q(disabled_at__isnull=False, removed_at__isnull=True),
            "removed": Q(removed_at__isnull=False),
        }


@admin.register(WebhookEndpoint)
class WebhookEndpointAdmin(WithButtons, ReadOnlyPage[WebhookEndpoint]):
    """Where customers have events sent. Their secrets are nowhere to be seen."""

    list_display = (
        "url",
        "account",
        "state",
        "shown_types",
        "waiting",
        "failing_since",
        "last_took",
    )
    list_filter = (("account", AutocompleteSelectFilter), EndpointStateFilter)
    list_filter_submit = True
    list_select_related = ("account",)
    search_fields = ("url", "description", "=id", "account__name", "account__id")
    fieldsets = (
        (
            None,
            {
                "fields": (
                    ("url", "account"),
                    ("id", "created_at"),
                    ("description", "shown_types"),
                    ("state", "deliveries"),
                )
            },
        ),
        (
            "Sending",
            {
                "fields": (
                    ("failing_since", "last_took"),
                    ("disabled_at", "disabled_reason"),
                    ("removed_at", "old_secret_until"),
                )
            },
        ),
    )
    readonly_fields = ("state", "shown_types", "deliveries", "last_took")
    actions = ("disable_chosen", "enable_chosen")
    actions_detail = ("disable", "enable")

    def get_queryset(self, request: HttpRequest) -> QuerySet[WebhookEndpoint]:
        """Return the endpoints with how much waits for them."""
        waiting = Delivery.objects.filter(WAITING, endpoint=OuterRef("pk"))
        return (
            super()
            .get_queryset(request)
            .defer("secret_seed", "secret_check", "old_secret_seed", "old_secret_check")
            .annotate(waiting_count=count_of(waiting))
        )

    def has_switch_permission(self, request: HttpRequest) -> bool:
        """Return whether the user's own rights let them switch endpoints off and on."""
        return request.user.has_perm(RIGHT)

    @admin.display(description="state")
    def state(self, endpoint: WebhookEndpoint) -> str:
        """Return whether it is sent to."""
        if endpoint.removed_at:
            return "removed"
        if endpoint.disabled_at:
            return "disabled"
        return "failing" if endpoint.failing_since else "enabled"

    @admin.display(description="events")
    def shown_types(self, endpoint: WebhookEndpoint) -> str:
        """Return the types that it wants."""
        return ", ".join(endpoint.event_types) or "all"

    @admin.display(description="waiting", ordering="waiting_count")
    def waiting(self, endpoint: Any) -> int:
        """Return how many events wait for it."""
        return int(endpoint.waiting_count)

    @admin.display(description="last answer took", ordering="last_took_ms")
    def last_took(self, endpoint: WebhookEndpoint) -> str:
        """Return how long it took to answer."""
        return f"{endpoint.last_took_ms} ms" if endpoint.last_took_ms else MISSING

    @admin.display(description="deliveries")
    def deliveries(self, endpoint: WebhookEndpoint) -> SafeString:
        """Return a link to what was sent to it."""
        listed = reverse("admin:billing_delivery_changelist")
        return format_html(
            '<a class="text-primary-600" href="{}?endpoint__id__exact={}">What was sent to it</a>',
            listed,
            endpoint.pk,
        )

    @button("Disable", right=RIGHT)
    def disable(self, request: HttpRequest, endpoint: WebhookEndpoint) -> HttpResponse:
        """Send nothing there any more."""
        return ask(self, request, endpoint, DISABLE, partial(_disable, endpoint))

    @button("Enable", right=RIGHT)
    def enable(self, request: HttpRequest, endpoint: WebhookEndpoint) -> HttpResponse:
        """Send there again."""
        return ask(self, request, endpoint, ENABLE, partial(_enable, endpoint))

    @admin.action(description="Disable", permissions=["switch"])
    def disable_chosen(
        self, request: HttpRequest, rows: QuerySet[WebhookEndpoint]
    ) -> HttpResponse | None:
        """Send nothing to the chosen ones any more."""
        return ask_for_each(self, request, rows, DISABLE, _disable)

    @admin.action(description="Enable", permissions=["switch"])
    def enable_chosen(
        self, request: HttpRequest, rows: QuerySet[WebhookEndpoint]
    ) -> HttpResponse | None:
        """Send to the chosen ones again."""
        return ask_for_each(self, request, rows, ENABLE, _enable)


def _disable(endpoint: WebhookEndpoint, said: Mapping[str, Any]) -> str:
    del said
    return _switch(endpoint, is_enabled=False)


def _enable(endpoint: WebhookEndpoint, said: Mapping[str, Any]) -> str:
    del said
    return _switch(endpoint, is_enabled=True)


def _switch(endpoint: WebhookEndpoint, *, is_enabled: bool) -> str:
    if endpoint.removed_at:
        raise services.WebhookRefusedError("The customer has removed it.")
    change = services.EndpointChange(is_enabled=is_enabled)
    services.change_endpoint(endpoint.pk, change, now=datetime.now(UTC))
    return "It is enabled." if is_enabled else "Nothing is sent there any more."
