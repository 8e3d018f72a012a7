from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse

from billing.admin.asking import MISSING, Question, WithButtons, ask, button
from metering.pages import ReadOnlyPage
from payments.models import Customer, PaymentMethod
from payments.services.customers import ensure_customer
from payments.services.methods import take_methods

BRING_UP_TO_DATE = Question(
    "Bring it up to date at the provider",
    "The provider is told the account's name, address and owner, and asked which cards it has.",
    "Bring up to date",
)


@admin.register(Customer)
class CustomerAdmin(WithButtons, ReadOnlyPage[Customer]):
    """Accounts as the provider knows them, and how they stand with us."""

    list_display = ("account", "standing", "standing_since", "provider_id", "told_at")
    list_filter = (
        "standing",
        ("provider_id", admin.EmptyFieldListFilter),
        ("standing_since", admin.DateFieldListFilter),
    )
    list_select_related = ("account",)
    search_fields = ("account__name", "account__id", "=provider_id")
    actions_detail = ("bring_up_to_date",)
    fieldsets = (
        (
            None,
            {
                "fields": (
                    ("account", "provider_id"),
                    ("standing", "standing_since"),
                    ("cards", "told_at"),
                )
            },
        ),
    )
    readonly_fields = ("cards",)

    @admin.display(description="payment methods")
    def cards(self, customer: Customer) -> str:
        """Return what can be charged, the default first."""
        cards = PaymentMethod.objects.filter(account=customer.pk, removed_at__isnull=True)
        return ", ".join(card_text(card, now=datetime.now(UTC)) for card in cards) or MISSING

    @button("Bring up to date at the provider", right="payments.change_customer")
    def bring_up_to_date(self, request: HttpRequest, customer: Customer) -> HttpResponse:
        """Tell the provider what has changed, and ask what cards there are."""

        def work(said: Mapping[str, Any]) -> str:
            del said
            now = datetime.now(UTC)
            customer_id = ensure_customer(customer.pk, now=now)
            take_methods(customer_id, now=now)
            customer.refresh_from_db()
            return f"{customer_id} is up to date. Payment methods: {self.cards(customer)}."

        return ask(self, request, customer, BRING_UP_TO_DATE, work)


@admin.register(PaymentMethod)
class PaymentMethodAdmin(ReadOnlyPage[PaymentMethod]):
    """Cards that the provider keeps. Customers add and remove them."""

    list_display = ("__str__", "account", "is_default", "expires", "added_at", "removed_at")
    list_filter = (
        "is_default",
        "brand",
        "kind",
        ("removed_at", admin.EmptyFieldListFilter),
    )
    list_select_related = ("account",)
    search_fields = ("account__name", "account__id", "=provider_id", "=last4")
    date_hierarchy = "added_at"
    fieldsets = (
        (
            None,
            {
                "fields": (
                    ("account", "provider_id"),
                    ("kind", "brand"),
                    ("last4", "expires"),
                    ("is_default", "added_at"),
                    ("removed_at", "detach_at"),
                )
            },
        ),
    )
    readonly_fields = ("expires",)

    @admin.display(ordering="expires_year")
    def expires(self, card: PaymentMethod) -> str:
        """Return the last month that it may be used in."""
        return expiry_text(card, today=datetime.now(UTC).date())


def card_text(card: PaymentMethod, *, now: datetime) -> str:
    """Return a card as people tell it apart, and when it expires."""
    expiry = expiry_text(card, today=now.date())
    return str(card) if expiry == MISSING else f"{card} ({expiry})"


def expiry_text(card: PaymentMethod, *, today: date) -> str:
    """Return a card's last month, and whether that is over; a dash where it does not expire."""
    if card.expires_year is None or card.expires_month is None:
        return MISSING
    text = f"{card.expires_month:02}/{card.expires_year}"
    is_over = (card.expires_year, card.expires_month) < (today.year, today.month)
    return f"{text}, expired" if is_over else text
