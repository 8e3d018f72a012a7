from __future__ import annotations

from django.contrib import admin
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest
from django.utils.safestring import SafeString

from billing.admin.asking import MISSING, link_to, money_text
from payments.admin.collections import failure_of
from payments.admin.conversation import WithConversation
from payments.models import PaymentAttempt, PaymentMethod


@admin.register(PaymentAttempt)
class AttemptAdmin(WithConversation):
    """Tries to have a collection paid, and what was said about each."""

    calls_of = "attempt"
    list_display = (
        "__str__",
        "account",
        "own_amount",
        "status",
        "failure",
        "trigger",
        "method",
        "requested_by",
        "started_at",
    )
    list_filter = (
        "status",
        "trigger",
        ("started_at", admin.DateFieldListFilter),
        "failure_code",
        "decline_code",
    )
    list_select_related = ("collection__account", "requested_by")
    search_fields = (
        "collection__provider_number",
        "=collection__provider_id",
        "collection__account__name",
        "collection__account__id",
        "collection__parts__invoice__number",
    )
    date_hierarchy = "started_at"
    fieldsets = (
        (
            None,
            {
                "fields": (
                    ("account", "own_collection"),
                    ("number", "own_amount"),
                    ("status", "failure"),
                    ("trigger", "requested_by"),
                    ("method", "method_id"),
                    ("started_at", "ended_at"),
                )
            },
        ),
    )
    readonly_fields = ("account", "own_collection", "own_amount", "failure", "method")

    def get_queryset(self, request: HttpRequest) -> QuerySet[PaymentAttempt]:
        """Return the attempts with the card that was charged."""
        cards = PaymentMethod.objects.filter(provider_id=OuterRef("method_id"))
        rows: QuerySet[PaymentAttempt] = super().get_queryset(request)
        return rows.annotate(
            brand=Subquery(cards.values("brand")),
            kind=Subquery(cards.values("kind")),
            last4=Subquery(cards.values("last4")),
        )

    @admin.display(ordering="collection__account__name")
    def account(self, attempt: PaymentAttempt) -> SafeString:
        """Return a link to whose it is."""
        return link_to(attempt.collection.account, attempt.collection.account)

    @admin.display(description="amount", ordering="collection__amount")
    def own_amount(self, attempt: PaymentAttempt) -> str:
        """Return what was to be charged."""
        text = money_text(attempt.collection.amount, attempt.collection.currency)
        return text.replace(" ", "\N{NO-BREAK SPACE}")

    @admin.display(description="collection")
    def own_collection(self, attempt: PaymentAttempt) -> SafeString:
        """Return a link to what was to be paid."""
        return link_to(attempt.collection, attempt.collection)

    @admin.display(description="why it failed", ordering="failure_code")
    def failure(self, attempt: PaymentAttempt) -> str:
        """Return the provider's words."""
        return failure_of(attempt)

    @admin.display(description="charged", ordering="method_id")
    def method(self, attempt: PaymentAttempt) -> str:
        """Return what was charged, as people tell cards apart."""
        # Annotated above; empty where the customer had nothing to charge.
        last4 = getattr(attempt, "last4", None)
        name = getattr(attempt, "brand", None) or getattr(attempt, "kind", None)
        return f"{name} …{last4}" if name else (attempt.method_id or MISSING)
