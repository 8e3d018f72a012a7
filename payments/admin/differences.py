from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse

from billing.admin.asking import (
    MISSING,
    Question,
    WithButtons,
    ask,
    ask_at_list,
    button,
    text_field,
)
from billing.admin.bulk_grants import list_button
from metering.pages import ReadOnlyPage
from payments.admin.filters import OpenFilter
from payments.hurrying import hurry
from payments.models import Difference, Reconciliation
from payments.services.differences import settle_difference
from payments.services.providing import provider
from payments.services.reconciling import begin_reconciliation
from payments.tasks import reconcile


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


COMPARE = Question(
    "Compare both sides now",
    "What happened since the last look is compared: events that did not come are fetched, what "
    "reading again puts right is put right, and the rest is listed under Differences. It is done "
    "once a day by itself, too.",
    "Compare now",
)


@admin.register(Reconciliation)
class ReconciliationAdmin(WithButtons, ReadOnlyPage[Reconciliation]):
    """Comparisons of both sides, once a day and when somebody asked."""

    actions_list = ("compare_now",)

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

    @list_button("Compare now", right="payments.add_reconciliation", icon="balance")
    def compare_now(self, request: HttpRequest) -> HttpResponse:
        """Begin a comparison, which the workers go on with."""

        def work(said: Mapping[str, Any]) -> str:
            del said
            # Refused where there is nobody to compare with.
            provider()
            row = begin_reconciliation(since=None, now=datetime.now(UTC))
            hurry(reconcile)
            return f"{row} is under way. It says here what it finds, in some minutes."

        return ask_at_list(self, request, COMPARE, work)

    @admin.display(description="took")
    def took(self, comparison: Reconciliation) -> str:
        """Return how long it took."""
        if comparison.ended_at is None:
            return MISSING
        return f"{(comparison.ended_at - comparison.started_at).total_seconds():,.0f} s"
