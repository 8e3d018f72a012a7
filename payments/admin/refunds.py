from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Count, QuerySet, Sum
from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString

from billing.admin.asking import (
    Question,
    WithButtons,
    ask,
    button,
    decimal_field,
    link_to,
    money,
    money_text,
    text_field,
)
from billing.admin.listing import Totals, WithTotals, grouped_money
from metering.pages import ReadOnlyPage, ReadOnlyRows
from payments.admin.conversation import WithConversation
from payments.models import Payment, Refund
from payments.services.refundable import refundable
from payments.services.refunds import (
    MOST_CHARACTERS,
    Proposal,
    approve_refund,
    mark_refund_done,
    propose_refund,
    reject_refund,
    take_credit_after,
)

PROPOSE_RIGHT = "payments.add_refund"
CHANGE_RIGHT = "payments.change_refund"
APPROVE_RIGHT = "payments.approve_refund"
Status = Refund.Status


class RefundForm(forms.Form):
    """How much of a payment is to go back, and why."""

    amount = decimal_field("Amount", "In the payment's currency.", min_value=Decimal("0.0001"))
    credit = decimal_field(
        "Prepaid credit taken back",
        "Empty: what the payment became credit of, first.",
        required=False,
    )
    reason = text_field("Reason", "The provider is not told.")
    reference = text_field(
        "Reference",
        "Your own name for it; under it the payment is refunded once.",
        max_length=MOST_CHARACTERS,
    )


class DoneForm(forms.Form):
    """The transfer that brought the money back."""

    bank_reference = text_field(
        "Bank's reference", "Of the transfer to the customer.", max_length=MOST_CHARACTERS
    )


class CreditForm(forms.Form):
    """How much credit is taken back with money that went back."""

    credit = decimal_field("Credit", "In the payment's currency.", min_value=Decimal("0.0001"))


APPROVE = Question(
    "Approve the refund",
    "The money goes back to the customer. It cannot be called back.",
    "Approve",
)
REJECT = Question("Reject the refund", "It does not happen.", "Reject")
MARK_DONE = Question(
    "Mark as done",
    "The money came another way, and so it goes back: you have sent it to the customer.",
    "Mark as done",
    DoneForm,
)
TAKE_CREDIT = Question(
    "Take the credit back",
    "The refund was made at the provider, and the customer has its money as prepaid credit too.",
    "Take the credit back",
    CreditForm,
)


class RefundsInside(ReadOnlyRows[Refund, Payment]):
    """What goes back of a payment."""

    model = Refund
    hide_title = True
    own_credit = money("credit_taken", of="payment")
    fields = ("own_page", "own_credit", "status", "reason", "author", "proposed_at", "ended_at")
    readonly_fields = ("own_page", "own_credit", "author")
    verbose_name_plural = "refunds"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Refund]:
        """Return the refunds with who asked for them."""
        return super().get_queryset(request).select_related("payment", "author")

    @admin.display(description="refund")
    def own_page(self, refund: Refund) -> SafeString:
        """Return a link to the refund's own page."""
        return link_to(refund, money_text(refund.amount, refund.payment.currency))


@admin.register(Refund)
class RefundAdmin(WithTotals[Refund], WithButtons, WithConversation, ReadOnlyPage[Refund]):
    """Money that goes back. Large amounts wait here for a second person."""

    calls_of = "refund"
    own_amount = money("amount", of="payment")
    own_credit = money("credit_taken", of="payment")
    list_display = (
        "__str__",
        "account",
        "own_amount",
        "own_credit",
        "status",
        "reason",
        "author",
        "decided_by",
        "proposed_at",
    )
    list_filter = (
        "status",
        "payment__method",
        ("author", admin.EmptyFieldListFilter),
        ("proposed_at", admin.DateFieldListFilter),
    )
    list_select_related = ("payment__account", "author", "decided_by")
    search_fields = (
        "=provider_id",
        "=payment__provider_id",
        "payment__reference",
        "reference",
        "reason",
        "payment__account__name",
        "payment__account__id",
    )
    date_hierarchy = "proposed_at"
    actions_detail = ("approve", "reject", "mark_done", "take_credit")
    fieldsets = (
        (
            None,
            {
                "fields": (
                    ("account", "own_payment"),
                    ("own_amount", "own_credit"),
                    ("status", "failure"),
                    ("reason", "reference"),
                    ("author", "proposed_at"),
                    ("decided_by", "decided_at"),
                    ("provider_id", "bank_reference"),
                    ("ended_at", "try_at"),
                )
            },
        ),
    )
    readonly_fields = ("account", "own_payment", "own_amount", "own_credit", "author", "decided_by")

    def totals_of(self, rows: QuerySet[Refund]) -> Totals:
        """Return how many there are and what goes back, a currency and a state a row."""
        sums = (
            rows.values("payment__currency", "status")
            .annotate(count=Count("pk"), amount=Sum("amount"))
            .order_by("payment__currency", "status")
        )
        return Totals(
            ("currency", "state", "refunds", "amount"),
            [
                [
                    row["payment__currency"],
                    Status(row["status"]).label,
                    f"{row['count']:,}",
                    grouped_money(row["amount"], row["payment__currency"]),
                ]
                for row in sums
            ],
        )

    @admin.display(ordering="payment__account__name")
    def account(self, refund: Refund) -> SafeString:
        """Return a link to who gets it."""
        return link_to(refund.payment.account, refund.payment.account)

    @admin.display(description="payment")
    def own_payment(self, refund: Refund) -> SafeString:
        """Return a link to what it is a part of."""
        return link_to(refund.payment, refund.payment)

    @button("Approve", right=APPROVE_RIGHT)
    def approve(self, request: HttpRequest, refund: Refund) -> HttpResponse:
        """Let it happen, as a second person."""

        def work(said: Mapping[str, Any]) -> str:
            del said
            user_id = int(request.user.pk or 0)
            return became(approve_refund(refund.pk, user_id=user_id, now=datetime.now(UTC)))

        return ask(self, request, refund, APPROVE, work)

    @button("Reject", right=APPROVE_RIGHT)
    def reject(self, request: HttpRequest, refund: Refund) -> HttpResponse:
        """Decide that it does not happen."""

        def work(said: Mapping[str, Any]) -> str:
            del said
            return became(reject_refund(refund.pk, user_id=request.user.pk, now=datetime.now(UTC)))

        return ask(self, request, refund, REJECT, work)

    @button("Mark as done", right=CHANGE_RIGHT)
    def mark_done(self, request: HttpRequest, refund: Refund) -> HttpResponse:
        """Note that the money of an offline payment went back."""

        def work(said: Mapping[str, Any]) -> str:
            reference = said["bank_reference"]
            now = datetime.now(UTC)
            return became(mark_refund_done(refund.pk, bank_reference=reference, now=now))

        return ask(self, request, refund, MARK_DONE, work)

    @button("Take the credit back", right=CHANGE_RIGHT)
    def take_credit(self, request: HttpRequest, refund: Refund) -> HttpResponse:
        """Take back the credit that money became which went back at the provider."""

        def work(said: Mapping[str, Any]) -> str:
            now = datetime.now(UTC)
            taken = take_credit_after(
                refund.pk, said["credit"], user_id=request.user.pk, now=now
            ).credit_taken
            return f"{money_text(taken, refund.payment.currency)} of prepaid credit are taken back."

        return ask(self, request, refund, TAKE_CREDIT, work)

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> Any:
        """Return the buttons that may do something to it now, for who asks."""
        actions = super().get_actions_detail(request, object_id)  # type: ignore[misc]  # unfold's
        refund = self.get_object(request, str(object_id))
        may = _possible(refund, request.user.pk) if refund else set()
        return [one for one in actions if one.method.__name__ in may]


def _possible(refund: Refund, user_id: int | None) -> set[str]:
    is_offline = refund.payment.method == Payment.Method.OFFLINE
    if refund.status == Status.PROPOSED:
        # Its author may think better of it, and not approve it.
        is_author = refund.author_id is not None and refund.author_id == user_id
        return {"reject"} if is_author else {"approve", "reject"}
    if refund.status == Status.APPROVED and is_offline:
        return {"reject", "mark_done"}
    is_made_there = not refund.reference and refund.status in (Status.PENDING, Status.SUCCEEDED)
    return {"take_credit"} if is_made_there and not refund.credit_taken else set()


def became(refund: Refund) -> str:
    """Return in words what was decided on a refund, and what comes next."""
    amount = money_text(refund.amount, refund.payment.currency)
    if refund.status == Status.PROPOSED:
        return f"The refund of {amount} waits for a second person's approval."
    if refund.status == Status.APPROVED:
        if refund.payment.method == Payment.Method.OFFLINE:
            return f"Send {amount} to the customer, and mark the refund as done then."
        return f"{amount} go back by the provider within a minute."
    return f"The refund of {amount}: {refund.get_status_display()}."


def refund_button(page: Any, request: HttpRequest, payment: Payment) -> HttpResponse:
    """Ask how much of a payment is to go back, and propose it."""
    left = refundable(payment)
    question = Question(
        "Refund",
        f"Up to {left.amount} of the payment can go back; {left.credit} of it are prepaid credit. "
        "Above the threshold a second person has to approve it. The invoice stays paid: to lower "
        "what was invoiced, write a credit note, and refund the credit that it makes.",
        "Refund",
        RefundForm,
        {"amount": left.amount.amount.normalize()},
    )

    def work(said: Mapping[str, Any]) -> str:
        proposal = Proposal(
            amount=said["amount"],
            reason=said["reason"],
            reference=said["reference"],
            credit=said["credit"],
            user_id=request.user.pk,
        )
        return became(propose_refund(payment.pk, proposal, now=datetime.now(UTC)))

    return ask(page, request, payment, question, work)
