"""What customers' programs are told of, and what became of each on its way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from django.contrib import admin
from django.db.models import OuterRef, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import AutocompleteSelectFilter

from billing import services
from billing.admin.asking import (
    MISSING,
    Question,
    WithButtons,
    ask,
    ask_for_each,
    button,
    link_to,
)
from billing.admin.filters import StateFilter, count_of
from billing.models import Delivery, Event
from billing.models.outgoing import WAITING
from metering.pages import ReadOnlyPage, ReadOnlyRows

RIGHT = "billing.change_delivery"
SEND_AGAIN = Question(
    title="Send again",
    text="The next sweep sends it once more, with the id that it had: a program that keeps the "
    "ids knows it again.",
    yes="Send again",
)
_DELIVERED = Q(delivered_at__isnull=False)
_GIVEN_UP = Q(given_up_at__isnull=False)


class DeliveryStateFilter(StateFilter):
    """What became of a delivery."""

    def states(self, now: datetime) -> Mapping[str, Q]:
        """Return the states by name."""
        del now
        return {
            "waiting": WAITING,
            "delivered": _DELIVERED,
            "given up": _GIVEN_UP,
        }


@admin.display(description="state")
def _became(delivery: Delivery) -> str:
    """Return what became of a delivery."""
    if delivery.delivered_at:
        return "delivered"
    return "given up" if delivery.given_up_at else "waiting"


class DeliveryRows(ReadOnlyRows[Delivery, Event]):
    """Where an event was sent."""

    model = Delivery
    hide_title = True
    fields = ("endpoint", "state", "attempts", "tried_at", "response_status", "last_error")
    readonly_fields = ("state",)
    state = staticmethod(_became)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Delivery]:
        """Return the deliveries with their endpoints."""
        return super().get_queryset(request).select_related("endpoint")


@admin.register(Event)
class EventAdmin(WithButtons, ReadOnlyPage[Event]):
    """What customers' programs are told of."""

    list_display = ("type", "account", "subject_key", "created_at", "delivered", "waiting", "lost")
    list_filter = (("account", AutocompleteSelectFilter), "type")
    list_filter_submit = True
    list_select_related = ("account",)
    search_fields = ("=id", "subject_key", "account__name", "account__id")
    date_hierarchy = "created_at"
    fieldsets = (
        (None, {"fields": (("type", "account"), ("id", "created_at"), "subject_key")}),
        ("What is sent", {"fields": ("shown_data",)}),
    )
    readonly_fields = ("shown_data",)
    inlines = (DeliveryRows,)
    actions = ("send_chosen_again",)
    actions_detail = ("send_again",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Event]:
        """Return the events with how their deliveries stand."""
        deliveries = Delivery.objects.filter(event=OuterRef("pk"))
        return (
            super()
            .get_queryset(request)
            .annotate(
                delivered_count=count_of(deliveries.filter(_DELIVERED)),
                waiting_count=count_of(deliveries.filter(WAITING)),
                lost_count=count_of(deliveries.filter(_GIVEN_UP)),
            )
        )

    def has_send_permission(self, request: HttpRequest) -> bool:
        """Return whether the user's own rights let them send again."""
        return request.user.has_perm(RIGHT)

    @admin.display(description="delivered")
    def delivered(self, event: Any) -> int:
        """Return to how many endpoints it went."""
        return int(event.delivered_count)

    @admin.display(description="waiting")
    def waiting(self, event: Any) -> int:
        """Return for how many endpoints it waits."""
        return int(event.waiting_count)

    @admin.display(description="given up")
    def lost(self, event: Any) -> int:
        """Return how many endpoints did not take it."""
        return int(event.lost_count)

    @admin.display(description="data")
    def shown_data(self, event: Event) -> SafeString:
        """Return what it says, on lines."""
        return _on_lines(json.dumps(event.data, indent=2, ensure_ascii=False))

    @button("Send again", right=RIGHT)
    def send_again(self, request: HttpRequest, event: Event) -> HttpResponse:
        """Let it be sent once more to all that want its type."""
        return ask(self, request, event, SEND_AGAIN, partial(_send_event, event))

    @admin.action(description="Send again", permissions=["send"])
    def send_chosen_again(self, request: HttpRequest, rows: QuerySet[Event]) -> HttpResponse | None:
        """Let the chosen ones be sent once more."""
        return ask_for_each(self, request, rows, SEND_AGAIN, _send_event)


@admin.register(Delivery)
class DeliveryAdmin(WithButtons, ReadOnlyPage[Delivery]):
    """Events on their way to endpoints, and what these answered."""

    list_display = (
        "what",
        "account",
        "endpoint",
        "state",
        "attempts",
        "tried_at",
        "answer",
    )
    list_filter = (
        ("event__account", AutocompleteSelectFilter),
        DeliveryStateFilter,
        "event__type",
    )
    list_filter_submit = True
    list_select_related = ("event__account", "endpoint")
    search_fields = ("=event__id", "endpoint__url", "event__account__name", "event__account__id")
    date_hierarchy = "created_at"
    fieldsets = (
        (None, {"fields": (("of_event", "account"), ("endpoint", "state"))}),
        (
            "Sending",
            {
                "fields": (
                    ("created_at", "attempts"),
                    ("try_at", "tried_at"),
                    ("delivered_at", "given_up_at"),
                )
            },
        ),
        (
            "The last answer",
            {"fields": (("response_status", "last_error"), "shown_answer")},
        ),
    )
    readonly_fields = ("of_event", "account", "state", "shown_answer")
    actions = ("send_chosen_again",)
    actions_detail = ("send_again",)
    state = staticmethod(_became)

    def has_send_permission(self, request: HttpRequest) -> bool:
        """Return whether the user's own rights let them send again."""
        return request.user.has_perm(RIGHT)

    @admin.display(description="event", ordering="event__type")
    def what(self, delivery: Delivery) -> str:
        """Return the type of the event."""
        return delivery.event.type

    @admin.display(description="event")
    def of_event(self, delivery: Delivery) -> SafeString:
        """Return a link to the event."""
        return link_to(delivery.event, delivery.event)

    @admin.display(description="account", ordering="event__account__name")
    def account(self, delivery: Delivery) -> SafeString:
        """Return a link to the account."""
        return link_to(delivery.event.account, delivery.event.account)

    @admin.display(description="last answer", ordering="response_status")
    def answer(self, delivery: Delivery) -> str:
        """Return what went wrong, or the status that was answered."""
        return delivery.last_error or str(delivery.response_status or MISSING)

    @admin.display(description="answer")
    def shown_answer(self, delivery: Delivery) -> SafeString | str:
        """Return the beginning of what the endpoint answered."""
        return _on_lines(delivery.response_excerpt) if delivery.response_excerpt else MISSING

    @button("Send again", right=RIGHT)
    def send_again(self, request: HttpRequest, delivery: Delivery) -> HttpResponse:
        """Let it be sent once more."""
        return ask(self, request, delivery, SEND_AGAIN, partial(_send_delivery, delivery))

    @admin.action(description="Send again", permissions=["send"])
    def send_chosen_again(
        self, request: HttpRequest, rows: QuerySet[Delivery]
    ) -> HttpResponse | None:
        """Let the chosen ones be sent once more."""
        return ask_for_each(self, request, rows, SEND_AGAIN, _send_delivery)


def _on_lines(text: str) -> SafeString:
    return format_html(
        '<pre class="bg-base-50 break-words overflow-auto p-3 rounded-default text-xs'
        ' whitespace-pre-wrap dark:bg-base-800">{}</pre>',
        text,
    )


def _send_event(event: Event, said: Mapping[str, Any]) -> str:
    del said
    sent = services.redeliver(event.pk, now=datetime.now(UTC))
    return f"It is sent within a minute to {', '.join(str(each.endpoint) for each in sent)}."


def _send_delivery(delivery: Delivery, said: Mapping[str, Any]) -> str:
    del said
    services.redeliver(delivery.event_id, endpoint_id=delivery.endpoint_id, now=datetime.now(UTC))
    return f"It is sent within a minute to {delivery.endpoint}."
