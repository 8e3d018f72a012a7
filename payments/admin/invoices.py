"""Invoices, with what payments knows of them: what is asked for, what came, and what went back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse

from billing.admin.asking import ask, button
from billing.admin.invoices import (
    ISSUE_AGAIN,
    RIGHT,
    VOID,
    VOID_RIGHT,
    InvoiceAdmin,
    change_state,
)
from billing.models import Invoice
from payments.admin.collections import COLLECT_ANEW, COLLECT_RIGHT, anew_of
from payments.admin.invoice_rows import CollectedRows, DunningRows, ReceivedRows
from payments.admin.paying import ask_for_retry, ask_to_write_off, ask_what_came
from payments.admin.payments import RECORD_RIGHT
from payments.models import Collection
from payments.owed import owed, paid_of
from payments.services import voiding
from payments.services.anew import NotRefusedError

admin.site.unregister(Invoice)


@admin.register(Invoice)
class CollectedInvoiceAdmin(InvoiceAdmin):
    """Billing's page of an invoice, and how it is paid."""

    inlines = (
        *InvoiceAdmin.inlines[:1],
        CollectedRows,
        ReceivedRows,
        DunningRows,
        *InvoiceAdmin.inlines[1:],
    )
    actions_detail = (
        "accept_amount",
        "send",
        {
            "title": "Payment",
            "items": ["record_payment", "retry_payment", "collect_anew", "write_off"],
        },
        {"title": "Correct", "items": ["credit", "re_rate", "void", "issue_again"]},
    )
    fieldsets = (
        *InvoiceAdmin.fieldsets[:2],
        ("Payment", {"fields": (("own_paid", "own_owed"),)}),
        *InvoiceAdmin.fieldsets[2:],
    )
    readonly_fields = (*InvoiceAdmin.readonly_fields, "own_paid", "own_owed")

    @admin.display(description="paid so far")
    def own_paid(self, invoice: Invoice) -> str:
        """Return what payments paid of it."""
        return str(paid_of(invoice))

    @admin.display(description="still to be paid")
    def own_owed(self, invoice: Invoice) -> str:
        """Return what is owed, once credit notes and payments are taken off."""
        return str(owed(invoice))

    @button("Record a payment", right=RECORD_RIGHT)
    def record_payment(self, request: HttpRequest, invoice: Invoice) -> HttpResponse:
        """Write down money that came another way for it."""
        return ask_what_came(self, request, invoice, invoice)

    @button("Retry payment", right=RIGHT)
    def retry_payment(self, request: HttpRequest, invoice: Invoice) -> HttpResponse:
        """Ask for another try at the payment."""
        return ask_for_retry(self, request, invoice, invoice)

    @button("Write off", right="billing.write_off_invoice")
    def write_off(self, request: HttpRequest, invoice: Invoice) -> HttpResponse:
        """Give up collecting it, here and at the provider."""
        return ask_to_write_off(self, request, invoice, invoice)

    @button("Collect anew", right=COLLECT_RIGHT)
    def collect_anew(self, request: HttpRequest, invoice: Invoice) -> HttpResponse:
        """Let what the provider refused be collected by another of its invoices."""
        held = Collection.objects.filter(
            status=Collection.Status.REFUSED, parts__invoice=invoice, parts__is_live=True
        ).first()

        def work(said: Mapping[str, Any]) -> str:
            if held is None:
                raise NotRefusedError("The provider refused nothing of this invoice.")
            done: str = anew_of(request, held)(said)
            return done

        return ask(self, request, invoice, COLLECT_ANEW, work)

    @button("Void", right=VOID_RIGHT)
    def void(self, request: HttpRequest, invoice: Invoice) -> HttpResponse:
        """Take it back, at the provider first."""
        return change_state(self, request, invoice, VOID, voiding.void_invoice)

    @button("Void and issue again", right=VOID_RIGHT)
    def issue_again(self, request: HttpRequest, invoice: Invoice) -> HttpResponse:
        """Take it back, at the provider first, and issue another for its period."""
        return change_state(self, request, invoice, ISSUE_AGAIN, voiding.reissue_invoice)
