from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.options import InlineModelAdmin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from billing import services
from billing.admin.asking import (
    Question,
    WithButtons,
    ask,
    button,
    money,
    text_field,
)
from billing.admin.corrections import CorrectionRows, CreditNoteRows, InvoiceCorrections
from billing.admin.export_tables import INVOICE_LINES, INVOICES
from billing.admin.exporting import Exports
from billing.admin.invoice_documents import InvoiceDocuments
from billing.admin.invoice_list import InvoiceList
from billing.admin.invoice_rows import (
    InvoiceCreditRows,
    InvoiceDiscountRows,
    InvoiceLineRows,
    InvoiceTransitionRows,
)
from billing.models import (
    Invoice,
)
from metering.pages import ReadOnlyPage

REFUSALS = (
    services.InvoiceNotReadyError,
    services.PeriodNotOpenError,
    services.NotConservedError,
    services.SafetyBoundError,
    services.UsageUnpricedError,
)
RIGHT = "billing.change_invoice"
VOID_RIGHT = "billing.void_invoice"


class ReasonForm(forms.Form):
    """Why an invoice changes its state; kept with the change."""

    reason = text_field("Reason", max_length=200)


ACCEPT_AMOUNT = Question(
    "Accept the amount",
    "The fees are far above what the account was ever invoiced. Up to these it may be finalised, "
    "and the account is taken up again.",
    "Accept",
    ReasonForm,
)
SEND = Question(
    "Send the invoice by e-mail",
    "To the addresses that were told of it; if none was, to the account's.",
    "Send",
)
RETRY_PAYMENT = Question(
    "Retry the payment", "The payment is tried once more.", "Retry payment", ReasonForm
)
WRITE_OFF = Question(
    "Write the invoice off", "Nobody collects it any more; it may be paid.", "Write off", ReasonForm
)
VOID = Question(
    "Void the invoice",
    "It asks for nothing any more, and the credit it used is there again. Its number stays used.",
    "Void",
    ReasonForm,
)
ISSUE_AGAIN = Question(
    "Void the invoice and issue another",
    "Another invoice for the same period takes its place, with the terms and rules of now.",
    "Void and issue again",
    ReasonForm,
)


@admin.register(Invoice)
class InvoiceAdmin(
    Exports, InvoiceDocuments, InvoiceList, InvoiceCorrections, WithButtons, ReadOnlyPage[Invoice]
):
    """Invoices. Their figures come from the services; a person says when."""

    export_tables = (INVOICES, INVOICE_LINES)
    own_subscription_fee = money("subscription_fee")
    own_usage_fee = money("usage_fee")
    own_discounts = money("discounts")
    own_credits_used = money("credits_used")
    own_adjustments = money("adjustments")
    own_tax = money("tax")
    own_credited = money("credited")
    own_total_amount = money("total_amount")
    own_prepaid_used = money("prepaid_used")
    own_amount_due = money("amount_due")
    list_display = (
        "__str__",
        "account",
        "kind",
        "status",
        "period_start",
        "own_usage_fee",
        "own_total_amount",
        "own_amount_due",
        "waiting_for",
    )
    date_hierarchy = "period_start"
    # Another app shows more on this page.
    inlines: ClassVar[tuple[type[InlineModelAdmin[Any, Any]], ...]] = (
        InvoiceLineRows,
        InvoiceDiscountRows,
        InvoiceCreditRows,
        CreditNoteRows,
        CorrectionRows,
        InvoiceTransitionRows,
    )
    actions = ("draft_again", "finalise")
    # In menus: side by side they are wider than the page.
    actions_detail = (
        "accept_amount",
        "send",
        {"title": "Payment", "items": ["retry_payment", "write_off"]},
        {"title": "Correct", "items": ["credit", "re_rate", "void", "issue_again"]},
    )
    fieldsets: ClassVar[Any] = (
        (
            None,
            {
                "fields": (
                    ("account", "number"),
                    ("kind", "status"),
                    ("replaces",),
                    ("period_start", "period_end"),
                    "waiting_for",
                )
            },
        ),
        (
            "Figures",
            {
                "fields": (
                    ("own_subscription_fee", "own_usage_fee"),
                    ("own_discounts", "own_credits_used"),
                    ("own_adjustments", "own_credited"),
                    ("own_tax", "tax_rate"),
                    ("tax_is_inclusive", "own_total_amount"),
                    ("own_prepaid_used", "own_amount_due"),
                )
            },
        ),
        (
            "Times",
            {
                "fields": (
                    ("drafted_at", "computed_at"),
                    ("finalise_after", "tried_at"),
                    ("finalised_at", "paid_at"),
                    ("issued_on", "due_on"),
                )
            },
        ),
    )
    readonly_fields: ClassVar[tuple[str, ...]] = (
        "own_subscription_fee",
        "own_usage_fee",
        "own_discounts",
        "own_credits_used",
        "own_adjustments",
        "own_tax",
        "own_credited",
        "own_total_amount",
        "own_prepaid_used",
        "own_amount_due",
    )

    @admin.action(description="Bring drafts up to date", permissions=["write"])
    def draft_again(self, request: HttpRequest, invoices: QuerySet[Invoice]) -> None:
        """Make the figures of the drafts anew."""
        now = datetime.now(UTC)
        self._each(
            request,
            invoices,
            lambda invoice: services.draft_invoice(
                invoice.account_id, period=invoice.period, now=now
            ),
        )

    @admin.action(description="Finalise", permissions=["write"])
    def finalise(self, request: HttpRequest, invoices: QuerySet[Invoice]) -> None:
        """Make the drafts final, those that may be."""
        now = datetime.now(UTC)
        because = services.Because(f"Finalised by {request.user}", request.user.pk)
        self._each(
            request,
            invoices,
            lambda invoice: services.finalise_invoice(invoice.pk, now=now, because=because),
        )

    @button("Accept the amount", right=RIGHT)
    def accept_amount(self, request: HttpRequest, invoice: Invoice) -> HttpResponse:
        """Let it be finalised although it is far above the account's own history."""
        return ask(
            self,
            request,
            invoice,
            ACCEPT_AMOUNT,
            lambda _: f"Fees of {services.accept_amount(invoice.pk).accepted_fees} are accepted.",
        )

    @button("Send by e-mail", right=RIGHT)
    def send(self, request: HttpRequest, invoice: Invoice) -> HttpResponse:
        """Send it to those who were told of it, once more."""
        now = datetime.now(UTC)
        return ask(
            self,
            request,
            invoice,
            SEND,
            lambda _: f"{services.send_invoice(invoice.pk, now=now)} e-mails are on their way.",
        )

    @button("Retry payment", right=RIGHT)
    def retry_payment(self, request: HttpRequest, invoice: Invoice) -> HttpResponse:
        """Ask for another try at the payment."""
        return change_state(self, request, invoice, RETRY_PAYMENT, services.retry_payment)

    @button("Write off", right="billing.write_off_invoice")
    def write_off(self, request: HttpRequest, invoice: Invoice) -> HttpResponse:
        """Give up collecting it."""
        return change_state(self, request, invoice, WRITE_OFF, services.write_off)

    @button("Void", right=VOID_RIGHT)
    def void(self, request: HttpRequest, invoice: Invoice) -> HttpResponse:
        """Take it back."""
        return change_state(self, request, invoice, VOID, services.void_invoice)

    @button("Void and issue again", right=VOID_RIGHT)
    def issue_again(self, request: HttpRequest, invoice: Invoice) -> HttpResponse:
        """Take it back and issue another for its period."""
        return change_state(self, request, invoice, ISSUE_AGAIN, services.reissue_invoice)

    def has_write_permission(self, request: HttpRequest) -> bool:
        """Return whether the user's own rights let them draft and finalise."""
        return request.user.has_perm("billing.change_invoice")

    def _each(
        self,
        request: HttpRequest,
        invoices: QuerySet[Invoice],
        work: Callable[[Invoice], Invoice | None],
    ) -> None:
        for invoice in invoices.order_by("period_start"):
            name = f"{invoice.account}, {invoice}"
            try:
                written = work(invoice)
            except REFUSALS as refusal:
                reason = f"{type(refusal).__name__}: {refusal}"
                self.message_user(request, f"{name}: {reason}", messages.ERROR)
            else:
                state = written.get_status_display() if written else "nothing to invoice"
                self.message_user(request, f"{name}: {state}", messages.SUCCESS)


def change_state(
    page: InvoiceAdmin,
    request: HttpRequest,
    invoice: Invoice,
    question: Question,
    service: Callable[..., Invoice],
) -> HttpResponse:
    """Ask for the reason, let the service change the invoice's state, and tell it."""

    def work(said: Mapping[str, Any]) -> str:
        because = services.Because(said["reason"], request.user.pk)
        changed = service(invoice.pk, because=because, now=datetime.now(UTC))
        return f"{changed}: {changed.get_status_display()}."

    return ask(page, request, invoice, question, work)
