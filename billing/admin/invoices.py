from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from billing import services
from billing.models import Invoice, InvoiceLine
from billing.rating import decimal_text
from metering.pages import ReadOnlyPage, ReadOnlyRows

REFUSALS = (
    services.InvoiceNotReadyError,
    services.PeriodNotOpenError,
    services.UsageNotConservedError,
    services.UsageUnpricedError,
)


class InvoiceLineRows(ReadOnlyRows[InvoiceLine, Invoice]):
    """What the invoice is for."""

    model = InvoiceLine
    fields = (
        "description",
        "shown_quantity",
        "unit",
        "unit_price",
        "amount",
        "period_start",
        "period_end",
    )
    readonly_fields = ("shown_quantity",)

    @admin.display(description="Quantity")
    def shown_quantity(self, line: InvoiceLine) -> str:
        """Return the quantity in the unit of the price."""
        return decimal_text(line.exact_quantity)


@admin.register(Invoice)
class InvoiceAdmin(ReadOnlyPage[Invoice]):
    """Invoices. Their figures come from the services; a person says when."""

    list_display = (
        "__str__",
        "account",
        "status",
        "period_start",
        "usage_fee",
        "credits_used",
        "total_amount",
        "currency",
        "waiting_for",
    )
    list_filter = ("status", "currency", ("finalised_at", admin.EmptyFieldListFilter))
    list_select_related = ("account",)
    search_fields = ("number", "account__name", "account__id")
    date_hierarchy = "period_start"
    inlines = (InvoiceLineRows,)
    actions = ("draft_again", "finalise")

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
        self._each(
            request, invoices, lambda invoice: services.finalise_invoice(invoice.pk, now=now)
        )

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
