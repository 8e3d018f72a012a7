"""What staff do to have an invoice paid, from its own page and from the dunning board."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django import forms
from django.db.models import Model
from django.http import HttpRequest, HttpResponse

from billing import services
from billing.admin.asking import Question, ask, decimal_field, money_text
from billing.admin.invoices import RETRY_PAYMENT, WRITE_OFF
from billing.models import Invoice
from metering.pages import ModelAdmin
from payments.admin.payments import received_field, reference_field, transfer_of
from payments.owed import owed
from payments.services.offline import record_offline_payment
from payments.services.providing import is_set_up
from payments.services.writing_off import write_off_invoice

NOTHING_COLLECTED = "Nothing is collected while STRIPE_API_KEY is not set."


class ReceivedForm(forms.Form):
    """Money that came for an invoice another way than by the provider."""

    amount = decimal_field("Amount", "In the invoice's currency.")
    reference = reference_field()
    received_on = received_field()


def ask_what_came(
    page: ModelAdmin[Any], request: HttpRequest, invoice: Invoice, row: Model, *, back: str = ""
) -> HttpResponse:
    """Ask what the bank's statement says, and record it for the invoice.

    `row` is the one whose page is left and come back to, here and below.
    """
    now = datetime.now(UTC)
    question = Question(
        "Record a payment",
        "Money that came another way, as the bank's statement says. Of what is left over "
        "prepaid credit is made. What the provider asks for is taken back there.",
        "Record the payment",
        ReceivedForm,
        {"amount": owed(invoice).amount.normalize(), "received_on": now.date()},
    )

    def work(said: Mapping[str, Any]) -> str:
        payment = record_offline_payment(
            invoice.account_id,
            transfer_of(said),
            invoice_ids=[invoice.pk],
            user_id=request.user.pk,
            now=now,
        )
        invoice.refresh_from_db()
        amount = money_text(payment.amount, payment.currency)
        rest = f", {left} are still owed" if (left := owed(invoice)) else ""
        return f"{amount} are recorded. {invoice}: {invoice.get_status_display()}{rest}."

    return ask(page, request, row, question, work, back=back)


def ask_for_retry(
    page: ModelAdmin[Any], request: HttpRequest, invoice: Invoice, row: Model, *, back: str = ""
) -> HttpResponse:
    """Ask why, and let the payment be tried once more by the next sweep."""
    then = "The default card is charged within a minute." if is_set_up() else NOTHING_COLLECTED
    question = Question(
        RETRY_PAYMENT.title,
        f"{RETRY_PAYMENT.text} {then}",
        RETRY_PAYMENT.yes,
        RETRY_PAYMENT.form_class,
    )

    def work(said: Mapping[str, Any]) -> str:
        because = services.Because(said["reason"], request.user.pk)
        changed = services.retry_payment(invoice.pk, because=because, now=datetime.now(UTC))
        return f"{changed}: {changed.get_status_display()}. {then}"

    return ask(page, request, row, question, work, back=back)


def ask_to_write_off(
    page: ModelAdmin[Any], request: HttpRequest, invoice: Invoice, row: Model, *, back: str = ""
) -> HttpResponse:
    """Ask why, and give up collecting it, here and at the provider."""

    def work(said: Mapping[str, Any]) -> str:
        because = services.Because(said["reason"], request.user.pk)
        changed = write_off_invoice(invoice.pk, because=because, now=datetime.now(UTC))
        return f"{changed}: {changed.get_status_display()}."

    return ask(page, request, row, WRITE_OFF, work, back=back)
