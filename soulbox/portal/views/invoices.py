from __future__ import annotations

from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse

from billing import services
from billing.api.files import file_response
from billing.models import CreditNote, Invoice, InvoiceFile
from billing.outstanding import with_outstanding
from billing.queries import credit_notes_of, invoices_of
from payments.dunning_queries import payment_state, standing_of
from payments.failures import failure_words
from payments.models import PaymentAttempt
from soulbox.portal.pages import MemberView
from soulbox.portal.words import number_words

A_PAGE = 25
FAILED = {PaymentAttempt.Status.FAILED, PaymentAttempt.Status.ACTION_REQUIRED}


class Invoices(MemberView):
    """The account's invoices and credit notes, the newest first."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """List them by pages."""
        invoices = with_outstanding(invoices_of(self.account_id))
        notes = credit_notes_of(self.account_id).order_by("-issued_at", "-pk")
        return self.page(
            "portal/invoices.html",
            invoices=Paginator(invoices, A_PAGE).get_page(request.GET.get("page")),
            notes=notes[:A_PAGE],
            standing=standing_of(self.account_id),
        )


class InvoicePage(MemberView):
    """One invoice: its lines, its sums, and how it stands with the payment."""

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Show it. Another account's is not found."""
        del request
        invoice = _invoice(self, pk)
        payment = payment_state(self.account_id, pk)
        failure = ""
        if payment and payment.last_attempt and payment.last_attempt.status in FAILED:
            attempt = payment.last_attempt
            failure = failure_words(attempt.failure_code, attempt.decline_code)
        return self.page(
            "portal/invoice.html",
            invoice=invoice,
            currency=invoice.currency,
            lines=[(line, number_words(line.exact_quantity)) for line in invoice.lines.all()],
            discounts=invoice.applied_discounts.all(),
            notes=invoice.credit_notes.all(),
            payment=payment,
            failure=failure,
            formats=InvoiceFile.Format.values,
        )


class InvoiceDownload(MemberView):
    """An invoice as a file."""

    def get(self, request: HttpRequest, pk: int, kind: str) -> HttpResponse:
        """Return the bytes that were given out before, if they were."""
        del request
        _invoice(self, pk)
        return file_response(services.invoice_file(pk, format=_format(kind), now=self.now))


class CreditNoteDownload(MemberView):
    """A credit note as a file."""

    def get(self, request: HttpRequest, pk: int, kind: str) -> HttpResponse:
        """Return the file. Another account's is not found."""
        del request
        try:
            credit_notes_of(self.account_id).get(pk=pk)
        except CreditNote.DoesNotExist:
            raise Http404 from None
        return file_response(services.credit_note_file(pk, format=_format(kind)))


def _invoice(view: MemberView, invoice_id: int) -> Invoice:
    try:
        return invoices_of(view.account_id).get(pk=invoice_id)
    except Invoice.DoesNotExist:
        raise Http404 from None


def _format(kind: str) -> InvoiceFile.Format:
    if kind not in InvoiceFile.Format.values:
        raise Http404
    return InvoiceFile.Format(kind)
