from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse

from billing.admin.asking import MISSING, Question, WithButtons, ask, button, text_field
from metering.pages import ReadOnlyPage
from payments.admin.filters import OpenFilter
from payments.models import Difference, Reconciliation
from payments.services.differences import settle_difference


class SettleForm(forms.Form):
    """How a difference was settled; kept with it."""

    reason = text_field("Reason", "What was found, and what was done about it.")


SETTLE = Question(
    "Settle the difference",
    "It is listed no longer, as long as both sides say what they say now. Nothing else is changed "
    "by this: do what is proposed first, or say why not.",
    "Settled",
    SettleForm,
)


class OpenDifferences(OpenFilter):
    """Whether somebody has settled it; open ones unless asked for others."""

    column, over = "settled_at", "settled"


@admin.register(Difference)
class DifferenceAdmin(WithButtons, ReadOnlyPage[Difference]):
    """What the provider and we do not say alike, with what is proposed to do about it."""

    list_display = (
        "__str__",
        "account",
        "ours",
        "theirs",
        "proposed_action",
        "found_at",
        "last_seen_at",
        "settled_at",
    )
    list_filter = (OpenDifferences, "kind", ("found_at", admin.DateFieldListFilter))
    list_select_related = ("account",)
    search_fields = ("=subject", "account__name", "account__id")
    date_hierarchy = "found_at"
    actions_detail = ("settle",)
    fieldsets = (
        (
            None,
            {
                "fields": (
                    ("kind", "subject"),
                    ("account",),
                    ("ours", "theirs"),
                    "proposed_action",
                    ("found_at", "last_seen_at"),
                )
            },
        ),
        ("Settled", {"fields": (("settled_at", "settled_by"), "settled_reason")}),
    )
    readonly_fields = ("settled_by",)

    @button("Settled", right="payments.change_difference")
    def settle(self, request: HttpRequest, difference: Difference) -> HttpResponse:
        """Say that it is settled, and how."""

        def work(said: Mapping[str, Any]) -> str:
            settle_difference(
                difference.pk,
                reason=said["reason"],
                user_id=int(request.user.pk or 0),
                now=datetime.now(UTC),
            )
            return "It is settled."

        return ask(self, request, difference, SETTLE, work)


@admin.register(Reconciliation)
class ReconciliationAdmin(ReadOnlyPage[Reconciliation]):
    """Comparisons of both sides, each night and when somebody asked."""

    list_display = (
        "started_at",
        "took",
        "since",
        "events_fetched",
        "invoices_compared",
        "payments_compared",
        "refunds_compared",
        "healed",
        "differences",
        "error",
    )
    list_filter = (
        ("error", admin.EmptyFieldListFilter),
        ("started_at", admin.DateFieldListFilter),
    )
    date_hierarchy = "started_at"
    fieldsets = (
        (
            None,
            {
                "fields": (
                    ("started_at", "ended_at"),
                    ("since", "events_fetched"),
                    ("invoices_compared", "payments_compared"),
                    ("refunds_compared", "reached"),
                    ("healed", "differences"),
                    "error",
                )
            },
        ),
    )

    @admin.display(description="took")
    def took(self, comparison: Reconciliation) -> str:
        """Return how long it took."""
        if comparison.ended_at is None:
            return MISSING
        return f"{(comparison.ended_at - comparison.started_at).total_seconds():,.0f} s"
