from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from django.contrib import admin
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from billing.admin.asking import (
    MISSING,
    Question,
    WithButtons,
    ask,
    ask_for_each,
    button,
)
from metering.pages import ReadOnlyPage
from payments.hurrying import hurry
from payments.models import WebhookEvent
from payments.services.events import replay_event
from payments.tasks import apply_event

RIGHT = "payments.replay_webhookevent"
MOST_SHOWN = 100_000
"""So many characters of a body the page shows."""
APPLY_AGAIN = Question(
    title="Apply again",
    text="The object that it names is read at the provider once more, and taken over as it stands "
    "there now. What was taken over before is not done twice.",
    yes="Apply again",
)


@admin.register(WebhookEvent)
class WebhookEventAdmin(WithButtons, ReadOnlyPage[WebhookEvent]):
    """What the provider said happened, and what became of it."""

    list_display = (
        "type",
        "event_id",
        "about",
        "status",
        "result",
        "tries",
        "source",
        "happened_at",
        "received_at",
    )
    list_filter = (
        "status",
        "source",
        "object_type",
        ("received_at", admin.DateFieldListFilter),
        "is_live_mode",
        "type",
    )
    search_fields = ("=event_id", "=object_id", "type")
    date_hierarchy = "received_at"
    actions = ("apply_chosen_again",)
    actions_detail = ("apply_again",)
    fieldsets = (
        (
            None,
            {
                "fields": (
                    ("type", "event_id"),
                    ("about", "source"),
                    ("status", "result"),
                    ("happened_at", "received_at"),
                    ("applied_at", "tries"),
                    ("try_at", "claimed_until"),
                    ("api_version", "is_live_mode"),
                )
            },
        ),
        ("As it came, without secrets", {"fields": ("shown_body",)}),
    )
    readonly_fields = ("about", "shown_body")

    def get_queryset(self, request: HttpRequest) -> QuerySet[WebhookEvent]:
        """Return the events; what came is long, and only shown on a row's own page."""
        return super().get_queryset(request).defer("body")

    def has_replay_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may have events applied again."""
        return request.user.has_perm(RIGHT)

    @admin.display(description="about", ordering="object_id")
    def about(self, event: WebhookEvent) -> SafeString | str:
        """Return what it is about, as a link to all events about it."""
        if not event.object_id:
            return event.object_type or MISSING
        every = reverse("admin:payments_webhookevent_changelist")
        return format_html(
            '{} <a class="text-primary-600" href="{}?{}">{}</a>',
            event.object_type,
            every,
            urlencode({"q": event.object_id}),
            event.object_id,
        )

    @admin.display(description="body")
    def shown_body(self, event: WebhookEvent) -> SafeString:
        """Return the body on lines."""
        text = json.dumps(event.body, indent=2, ensure_ascii=False)
        cut = f"\n… and {len(text) - MOST_SHOWN} characters more" if len(text) > MOST_SHOWN else ""
        return format_html(
            '<pre class="bg-base-50 break-words overflow-auto p-3 rounded-default text-xs'
            ' whitespace-pre-wrap dark:bg-base-800">{}{}</pre>',
            text[:MOST_SHOWN],
            cut,
        )

    @button("Apply again", right=RIGHT)
    def apply_again(self, request: HttpRequest, event: WebhookEvent) -> HttpResponse:
        """Let it be applied once more."""
        return ask(self, request, event, APPLY_AGAIN, partial(_apply_again, event))

    @admin.action(description="Apply again", permissions=["replay"])
    def apply_chosen_again(
        self, request: HttpRequest, rows: QuerySet[WebhookEvent]
    ) -> HttpResponse | None:
        """Let the chosen ones be applied once more."""
        return ask_for_each(self, request, rows, APPLY_AGAIN, _apply_again)


def _apply_again(event: WebhookEvent, said: Mapping[str, Any]) -> str:
    del said
    if not replay_event(event.event_id, now=datetime.now(UTC)):
        return f"{event.event_id} is being applied right now."
    transaction.on_commit(partial(hurry, apply_event, event.event_id))
    return f"{event.event_id} is applied within a minute."
