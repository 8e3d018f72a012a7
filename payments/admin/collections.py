from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Count, OuterRef, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from billing.admin.asking import (
    MISSING,
    Question,
    WithButtons,
    ask,
    button,
    link_to,
    money,
    money_text,
    text_field,
)
from billing.admin.listing import Totals, WithTotals, grouped_money
from metering.pages import ReadOnlyPage, ReadOnlyRows
from payments.admin.conversation import WithConversation
from payments.models import Collection, CollectionPart, PaymentAttempt
from payments.services.anew import collect_by_hand

COLLECT_RIGHT = "payments.change_collection"


class AnewForm(forms.Form):
    """What was put right; kept with the difference that it settles."""

    reason = text_field("Reason", "What stood in the way, and what was done about it.")


COLLECT_ANEW = Question(
    "Collect it anew",
    "What the provider has of it is taken back there first, so that it cannot be paid twice. Then "
    "it is asked for by another invoice at the provider, and the card is charged. Do so once what "
    "it was refused for is put right, else it is refused again.",
    "Collect anew",
    AnewForm,
)


class CollectionPartsInside(ReadOnlyRows[CollectionPart, Collection]):
    """What a collection asks for."""

    model = CollectionPart
    hide_title = True
    own_amount = money("amount", of="collection")
    fields = ("target", "own_amount", "is_live")
    readonly_fields = ("target", "own_amount")
    verbose_name_plural = "what it asks for"

    def get_queryset(self, request: HttpRequest) -> QuerySet[CollectionPart]:
        """Return the parts with what they are of."""
        return super().get_queryset(request).select_related("collection", "invoice", "top_up")

    @admin.display(description="invoice or top-up")
    def target(self, part: CollectionPart) -> SafeString | str:
        """Return a link to it."""
        target = part.invoice or part.top_up
        return link_to(target, part) if target else MISSING


class AttemptsInside(ReadOnlyRows[PaymentAttempt, Collection]):
    """The tries to have a collection paid."""

    model = PaymentAttempt
    hide_title = True
    ordering = ("number",)
    fields = ("own_page", "status", "failure", "trigger", "requested_by", "started_at", "ended_at")
    readonly_fields = ("own_page", "failure", "requested_by")
    verbose_name_plural = "attempts"

    def get_queryset(self, request: HttpRequest) -> QuerySet[PaymentAttempt]:
        """Return the attempts with who asked for them."""
        return super().get_queryset(request).select_related("requested_by")

    @admin.display(description="attempt")
    def own_page(self, attempt: PaymentAttempt) -> SafeString:
        """Return a link to the attempt's own page."""
        return link_to(attempt, attempt.number)

    @admin.display(description="why it failed")
    def failure(self, attempt: PaymentAttempt) -> str:
        """Return the provider's words."""
        return failure_of(attempt)


@admin.register(Collection)
class CollectionAdmin(
    WithTotals[Collection], WithButtons, WithConversation, ReadOnlyPage[Collection]
):
    """What was asked for at the provider, and all that was said about it."""

    own_amount = money("amount")
    list_display = (
        "__str__",
        "account",
        "own_amount",
        "status",
        "attempt_count",
        "waiting_for",
        "try_at",
        "started_at",
    )
    list_filter = (
        "status",
        "currency",
        ("waiting_for", admin.EmptyFieldListFilter),
        ("try_at", admin.EmptyFieldListFilter),
        ("started_at", admin.DateFieldListFilter),
    )
    list_select_related = ("account",)
    search_fields = (
        "provider_number",
        "=provider_id",
        "account__name",
        "account__id",
        "parts__invoice__number",
    )
    date_hierarchy = "started_at"
    inlines = (CollectionPartsInside, AttemptsInside)
    actions_detail = ("collect_anew",)
    fieldsets = (
        (
            None,
            {
                "fields": (
                    ("account", "own_amount"),
                    ("status", "waiting_for"),
                    ("provider_number", "provider_id"),
                    ("hosted_page", "void_reason"),
                )
            },
        ),
        (
            "Times",
            {
                "fields": (
                    ("started_at", "opened_at"),
                    ("ended_at", "written_off_at"),
                    ("try_at", "failures"),
                    ("claimed_until",),
                )
            },
        ),
    )
    readonly_fields = ("own_amount", "hosted_page")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Collection]:
        """Return the collections with how many attempts each has."""
        attempts = (
            PaymentAttempt.objects.filter(collection=OuterRef("pk"))
            .order_by()
            .values("collection")
            .annotate(count=Count("pk"))
            .values("count")
        )
        rows = super().get_queryset(request)
        return rows.annotate(attempts_made=Coalesce(Subquery(attempts), 0))

    def totals_of(self, rows: QuerySet[Collection]) -> Totals:
        """Return how many there are and what they ask for, a currency and a state a row."""
        sums = (
            rows.values("currency", "status")
            .annotate(count=Count("pk"), amount=Sum("amount"))
            .order_by("currency", "status")
        )
        return Totals(
            ("currency", "state", "collections", "amount"),
            [
                [
                    row["currency"],
                    Collection.Status(row["status"]).label,
                    f"{row['count']:,}",
                    grouped_money(row["amount"], row["currency"]),
                ]
                for row in sums
            ],
        )

    @admin.display(description="attempts", ordering="attempts_made")
    def attempt_count(self, collection: Collection) -> int:
        """Return how often it was tried to have it paid."""
        count: int = collection.attempts_made  # type: ignore[attr-defined]  # annotated above
        return count

    @admin.display(description="page where it can be paid")
    def hosted_page(self, collection: Collection) -> SafeString | str:
        """Return a link to the provider's page, which needs no log-in."""
        return hosted_link(collection)

    @button("Collect anew", right=COLLECT_RIGHT)
    def collect_anew(self, request: HttpRequest, collection: Collection) -> HttpResponse:
        """Let what was refused be collected by another."""
        return ask(self, request, collection, COLLECT_ANEW, anew_of(request, collection))


def anew_of(request: HttpRequest, collection: Collection) -> Any:
    """Return what collects a refused collection anew, for who asks."""

    def work(said: Mapping[str, Any]) -> str:
        now = datetime.now(UTC)
        user_id = int(request.user.pk or 0)
        anew = collect_by_hand(collection.pk, reason=said["reason"], user_id=user_id, now=now)
        if anew.status == Collection.Status.PAID:
            return f"{collection} was paid at the provider meanwhile."
        amount = money_text(anew.amount, anew.currency)
        return f"{amount} are asked for again at the provider within a minute."

    return work


def failure_of(attempt: PaymentAttempt) -> str:
    """Return why an attempt failed: the provider's own code, and its words."""
    code = attempt.decline_code or attempt.failure_code
    if not code:
        return MISSING
    return f"{code}: {attempt.failure_message}" if attempt.failure_message else code


def hosted_link(collection: Collection) -> SafeString | str:
    """Return a link to the provider's page of a collection, or a dash."""
    if not collection.hosted_url.startswith(("https://", "http://")):
        return MISSING
    return format_html(
        '<a class="text-primary-600" href="{}" rel="noreferrer">The provider\'s page</a>',
        collection.hosted_url,
    )
