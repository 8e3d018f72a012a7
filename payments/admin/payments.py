from __future__ import annotations

from datetime import UTC, datetime, time
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Count, QuerySet, Sum
from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminSingleDateWidget

from billing.admin.asking import (
    MISSING,
    CheckedForm,
    ServicePage,
    button,
    decimal_field,
    link_to,
    money,
    text_field,
)
from billing.admin.listing import Totals, WithTotals, grouped_money
from metering.pages import ReadOnlyRows
from payments.admin.refunds import PROPOSE_RIGHT, RefundsInside, refund_button
from payments.models import Allocation, Dispute, Payment
from payments.services.offline import MOST_CHARACTERS, Transfer, record_offline_payment

RECORD_RIGHT = "payments.add_payment"


def reference_field() -> Any:
    """Return the field for the bank's own name for a payment."""
    return text_field(
        "Reference",
        "The bank's own name for the payment; under it the payment is recorded once.",
        max_length=MOST_CHARACTERS,
    )


def received_field() -> Any:
    """Return the field for the day on which money came."""
    return forms.DateField(
        label="Received on", widget=UnfoldAdminSingleDateWidget, help_text="As the statement says."
    )


def transfer_of(said: Any) -> Transfer:
    """Return what a form says of money that came, at the beginning of its day (UTC)."""
    return Transfer(
        amount=said["amount"],
        reference=said["reference"],
        received_at=datetime.combine(said["received_on"], time(), tzinfo=UTC),
    )


class PaymentForm(CheckedForm[Payment]):
    """Money that came another way than by the provider."""

    amount = decimal_field("Amount", "In the account's currency.")
    reference = reference_field()
    received_on = received_field()

    # The service finds the payment of a reference, so that saving twice records once.
    unchecked = frozenset({"reference", "account"})

    class Meta:
        model = Payment
        fields = ("account", "amount", "reference")


class AllocationsInside(ReadOnlyRows[Allocation, Payment]):
    """What each part of a payment paid."""

    model = Allocation
    hide_title = True
    own_amount = money("amount", of="payment")
    fields = ("paid", "own_amount")
    readonly_fields = ("paid", "own_amount")
    verbose_name_plural = "what it paid"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Allocation]:
        """Return the allocations with what they name."""
        rows = super().get_queryset(request)
        return rows.select_related("payment", "invoice", "top_up__account", "credit_grant__account")

    @admin.display(description="what")
    def paid(self, part: Allocation) -> SafeString | str:
        """Return a link to the invoice, the top-up or the credit."""
        target = part.invoice or part.top_up or part.credit_grant
        if target is None:
            return MISSING
        name = "Invoice" if part.invoice else "Top-up" if part.top_up else "Too much, as credit"
        return link_to(target, f"{name} {target}")


class DisputesInside(ReadOnlyRows[Dispute, Payment]):
    """What the customer's bank takes back of a payment."""

    model = Dispute
    hide_title = True
    own_amount = money("amount", of="payment")
    fields = ("own_page", "own_amount", "status", "reason", "opened_at", "answer_by", "closed_at")
    readonly_fields = ("own_page", "own_amount")
    verbose_name_plural = "disputes"

    @admin.display(description="dispute")
    def own_page(self, dispute: Dispute) -> SafeString:
        """Return a link to the dispute's own page."""
        return link_to(dispute, dispute.provider_id)


@admin.register(Payment)
class PaymentAdmin(WithTotals[Payment], ServicePage[Payment]):
    """Money that came. Staff add what they saw at the bank; nobody changes anything."""

    form = PaymentForm
    own_amount = money("amount")
    list_display = (
        "__str__",
        "account",
        "own_amount",
        "method",
        "received_at",
        "recorded_at",
        "recorded_by",
    )
    list_filter = ("method", "currency", ("received_at", admin.DateFieldListFilter))
    list_select_related = ("account", "recorded_by")
    search_fields = (
        "=provider_id",
        "=charge_id",
        "reference",
        "account__name",
        "account__id",
        "allocations__invoice__number",
    )
    autocomplete_fields = ("account",)
    date_hierarchy = "received_at"
    inlines = (AllocationsInside, RefundsInside, DisputesInside)
    actions_detail = ("give_back",)
    add_fieldsets = (
        (
            None,
            {
                "fields": (("account", "amount"), ("reference", "received_on")),
                "description": "It goes to the account's unpaid invoices, the oldest first; what "
                "is left becomes prepaid credit. For one invoice, use its own page.",
            },
        ),
    )
    fieldsets = (
        (
            None,
            {
                "fields": (
                    ("account", "own_amount"),
                    ("method", "collection"),
                    ("provider_id", "charge_id"),
                    ("reference", "recorded_by"),
                    ("received_at", "recorded_at"),
                )
            },
        ),
    )
    readonly_fields = ("own_amount", "recorded_by")

    def has_change_permission(self, request: HttpRequest, obj: Payment | None = None) -> bool:
        """Return that nobody changes a payment."""
        del request, obj
        return False

    def get_inlines(self, request: HttpRequest, obj: Payment | None = None) -> Any:
        """Return the rows of a payment that is there."""
        return super().get_inlines(request, obj) if obj else ()

    @button("Refund", right=PROPOSE_RIGHT)
    def give_back(self, request: HttpRequest, payment: Payment) -> HttpResponse:
        """Give a part of it back, or all."""
        return refund_button(self, request, payment)

    def save_model(
        self, request: HttpRequest, obj: Payment, form: forms.ModelForm[Payment], change: Any
    ) -> None:
        """Record it through the service."""
        del change
        made = record_offline_payment(
            obj.account_id,
            transfer_of(form.cleaned_data),
            user_id=request.user.pk,
            now=datetime.now(UTC),
        )
        obj.__dict__.update(made.__dict__)

    def totals_of(self, rows: QuerySet[Payment]) -> Totals:
        """Return how many there are and what came, a currency and a way a row."""
        sums = (
            rows.values("currency", "method")
            .annotate(count=Count("pk"), amount=Sum("amount"))
            .order_by("currency", "method")
        )
        return Totals(
            ("currency", "method", "payments", "amount"),
            [
                [
                    row["currency"],
                    Payment.Method(row["method"]).label,
                    f"{row['count']:,}",
                    grouped_money(row["amount"], row["currency"]),
                ]
                for row in sums
            ],
            "What came, before refunds and disputes.",
        )
