"""Credit notes, corrections and late usage: what finance sees of them, and does."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString

from billing import services
from billing.admin.asking import (
    Question,
    WithButtons,
    ask,
    button,
    choice_field,
    decimal_field,
    link_to,
    money,
    money_text,
    text_field,
)
from billing.admin.credit_note_files import CreditNoteFiles
from billing.models import (
    Correction,
    CorrectionLine,
    CreditNote,
    CreditNoteLine,
    Invoice,
    UnbilledLateUsage,
)
from billing.outstanding import creditable_lines, outstanding
from billing.rating import decimal_text
from metering.meters import UNITS, Meter
from metering.pages import ReadOnlyPage, ReadOnlyRows

RIGHT = "billing.change_invoice"
APPROVE_RIGHT = "billing.approve_correction"
MOST_LINES = 50
"""So many lines of an invoice are offered one by one; of longer ones an amount can be credited."""
IN_FULL, AN_AMOUNT, BY_LINE = "full", "amount", "lines"


class ReasonForm(forms.Form):
    """Why an invoice is corrected; kept with the correction."""

    reason = text_field("Reason")


class CreditNoteForm(ReasonForm):
    """How much of an invoice is credited; a field for each line is added to it."""

    reference = text_field(
        "Reference", "Your own name for it. The same one again is the same note.", max_length=100
    )
    what = choice_field(
        "What",
        (
            (IN_FULL, "Everything that is left"),
            (AN_AMOUNT, "An amount, tax and all"),
            (BY_LINE, "Amounts of lines"),
        ),
    )
    amount = decimal_field("Amount", required=False)

    def clean(self) -> dict[str, Any] | None:
        """Add what belongs to the choice and is missing, or belongs to another."""
        cleaned = super().clean()
        what = self.cleaned_data.get("what")
        if what == AN_AMOUNT and not self.cleaned_data.get("amount"):
            self.add_error("amount", "Say how much.")
        if what != AN_AMOUNT and self.cleaned_data.get("amount"):
            self.add_error("amount", "Leave it empty, or choose an amount.")
        if what != BY_LINE and _by_line(self.cleaned_data):
            self.add_error("what", "Choose amounts of lines, or leave the lines empty.")
        return cleaned


RE_RATE = Question(
    "Re-rate the invoice's period",
    "It is stated again with the terms and rules of now. The difference becomes a credit note or "
    "lines of the next invoice.",
    "Re-rate",
    ReasonForm,
)
APPROVE = Question("Approve the correction", "It happens at once.", "Approve")
REJECT = Question("Reject the correction", "It does not happen.", "Reject")


class CreditNoteRows(ReadOnlyRows[CreditNote, Invoice]):
    """The invoice's credit notes."""

    model = CreditNote
    hide_title = True
    own_total = money("total")
    own_off_due = money("off_due", description="off what is owed")
    own_as_credit = money("as_credit", description="prepaid credit")
    fields = ("page", "issued_on", "reason", "own_total", "own_off_due", "own_as_credit")
    readonly_fields = ("page", "own_total", "own_off_due", "own_as_credit")

    @admin.display(description="number")
    def page(self, note: CreditNote) -> SafeString:
        """Return a link to the note's own page."""
        return link_to(note, note.number)


class CorrectionRows(ReadOnlyRows[Correction, Invoice]):
    """The invoice's corrections, those that wait too."""

    model = Correction
    hide_title = True
    own_net = money("net")
    fields = ("page", "origin", "status", "settlement", "own_net", "reason", "author")
    readonly_fields = ("page", "own_net")

    @admin.display(description="proposed at")
    def page(self, correction: Correction) -> SafeString:
        """Return a link to the correction's own page, where it is decided on."""
        return link_to(correction, f"{correction.proposed_at:%Y-%m-%d %H:%M}")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Correction]:
        """Return the corrections with their authors."""
        return super().get_queryset(request).select_related("author")


class InvoiceCorrections(WithButtons):
    """The buttons of an invoice's page that correct it."""

    @button("Issue a credit note", right=RIGHT)
    def credit(self: Any, request: HttpRequest, invoice: Invoice) -> HttpResponse:
        """Take back all of it, an amount, or amounts of lines."""
        question = Question(
            "Issue a credit note",
            f"Of {invoice}, {outstanding(invoice)} are owed. What is owed is lowered first; what "
            "was paid becomes prepaid credit.",
            "Issue",
            _credit_form(invoice),
        )
        return ask(self, request, invoice, question, lambda said: _credit(request, invoice, said))

    @button("Re-rate", right=RIGHT)
    def re_rate(self: Any, request: HttpRequest, invoice: Invoice) -> HttpResponse:
        """State its period again and correct it by the difference."""

        def work(said: Mapping[str, Any]) -> str:
            by = services.Author(said["reason"], request.user.pk)
            made = services.rerate(invoice.pk, by=by, now=datetime.now(UTC))
            return _made(made) if made else "Nothing differs."

        return ask(self, request, invoice, RE_RATE, work)


def _credit_form(invoice: Invoice) -> type[CreditNoteForm]:
    """Return the form with a field for each line that something can be credited of."""
    left = creditable_lines(invoice)
    lines = invoice.lines.filter(pk__in=left)[:MOST_LINES]
    fields = {
        f"line_{line.pk}": decimal_field(
            line.description, f"Up to {left[line.pk]}, as on the line.", required=False
        )
        for line in lines
    }
    return type("CreditNoteForm", (CreditNoteForm,), fields)


def _credit(request: HttpRequest, invoice: Invoice, said: Mapping[str, Any]) -> str:
    by = services.Author(said["reason"], request.user.pk, said["reference"])
    now = datetime.now(UTC)
    match said["what"]:
        case "full":
            made = services.credit_in_full(invoice.pk, by=by, now=now)
        case "amount":
            made = services.credit_amount(invoice.pk, said["amount"], by=by, now=now)
        case _:
            made = services.credit_lines(invoice.pk, _by_line(said), by=by, now=now)
    return _made(made)


def _by_line(said: Mapping[str, Any]) -> dict[int, Decimal]:
    """Return the amounts of the lines that have one, by the lines' keys."""
    return {
        int(name.removeprefix("line_")): amount
        for name, amount in said.items()
        if name.startswith("line_") and amount
    }


def _made(correction: Correction) -> str:
    if correction.status == Correction.Status.PROPOSED:
        return f"{correction} waits for a second person's approval."
    if note := CreditNote.objects.filter(correction=correction).first():
        return f"Credit note {note} of {money_text(note.total, note.currency)}."
    if correction.settlement == Correction.Settlement.ADJUSTMENT:
        amount = money_text(correction.net, correction.currency)
        return f"{amount} are on the next invoice."
    return f"{correction} is applied."


class CreditNoteLineRows(ReadOnlyRows[CreditNoteLine, CreditNote]):
    """What is taken back."""

    model = CreditNoteLine
    hide_title = True
    own_amount = money("amount", of="credit_note")
    fields = ("description", "own_amount", "period_start", "period_end")
    readonly_fields = ("own_amount",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[CreditNoteLine]:
        """Return the lines with their note's currency."""
        return super().get_queryset(request).select_related("credit_note")


@admin.register(CreditNote)
class CreditNoteAdmin(CreditNoteFiles, ReadOnlyPage[CreditNote]):
    """Credit notes. They are issued from an invoice's page."""

    own_net, own_tax, own_total = money("net"), money("tax"), money("total")
    own_off_due = money("off_due", description="off what is owed")
    own_as_credit = money("as_credit", description="prepaid credit")
    list_display = ("number", "account", "invoice", "issued_on", "own_total", "reason")
    list_select_related = ("invoice__account",)
    list_filter = ("currency",)
    search_fields = ("number", "invoice__number", "invoice__account__name", "reason")
    date_hierarchy = "issued_on"
    inlines = (CreditNoteLineRows,)
    fields = (
        ("number", "invoice"),
        ("issued_on", "issued_at"),
        "reason",
        ("author", "approved_by"),
        ("own_net", "own_tax", "own_total"),
        ("own_off_due", "own_as_credit"),
        ("grant", "correction"),
    )
    readonly_fields = ("own_net", "own_tax", "own_total", "own_off_due", "own_as_credit")

    @admin.display(ordering="invoice__account__name")
    def account(self, note: CreditNote) -> str:
        """Return whose invoice it credits."""
        return str(note.invoice.account)


class CorrectionLineRows(ReadOnlyRows[CorrectionLine, Correction]):
    """What each part of the period comes to more or less."""

    model = CorrectionLine
    hide_title = True
    own_amount = money("amount", of="correction")
    fields = ("component", "description", "own_amount", "period_start", "period_end")
    readonly_fields = ("own_amount",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[CorrectionLine]:
        """Return the lines with their correction's currency."""
        return super().get_queryset(request).select_related("correction")


@admin.register(Correction)
class CorrectionAdmin(WithButtons, ReadOnlyPage[Correction]):
    """Corrections of invoices. Large ones wait here for a second person."""

    own_net, own_tax = money("net"), money("tax")
    list_display = (
        "__str__",
        "account",
        "origin",
        "status",
        "settlement",
        "own_net",
        "reason",
        "author",
        "proposed_at",
    )
    list_filter = ("status", "origin", "settlement")
    list_select_related = ("invoice__account", "author")
    search_fields = ("invoice__number", "invoice__account__name", "reason", "reference")
    date_hierarchy = "proposed_at"
    inlines = (CorrectionLineRows,)
    actions_detail = ("approve", "reject")
    fields = (
        "invoice",
        ("origin", "status", "settlement"),
        ("own_net", "own_tax"),
        ("reason", "reference"),
        ("author", "proposed_at"),
        ("decided_by", "decided_at"),
    )
    readonly_fields = ("own_net", "own_tax")

    @admin.display(ordering="invoice__account__name")
    def account(self, correction: Correction) -> str:
        """Return whose invoice it corrects."""
        return str(correction.invoice.account)

    @button("Approve", right=APPROVE_RIGHT)
    def approve(self, request: HttpRequest, correction: Correction) -> HttpResponse:
        """Let it happen, as a second person."""

        def work(_said: Mapping[str, Any]) -> str:
            # Who has the right is somebody, whom the page's types do not know.
            user_id = int(request.user.pk or 0)
            now = datetime.now(UTC)
            return _made(services.approve_correction(correction.pk, decided_by_id=user_id, now=now))

        return ask(self, request, correction, APPROVE, work)

    @button("Reject", right=APPROVE_RIGHT)
    def reject(self, request: HttpRequest, correction: Correction) -> HttpResponse:
        """Decide that it does not happen."""

        def work(_said: Mapping[str, Any]) -> str:
            user_id = request.user.pk
            now = datetime.now(UTC)
            made = services.reject_correction(correction.pk, decided_by_id=user_id, now=now)
            return f"{made} is rejected."

        return ask(self, request, correction, REJECT, work)

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> Any:
        """Return the buttons that decide, while it waits; its author has none to approve it."""
        actions = super().get_actions_detail(request, object_id)  # type: ignore[misc]  # unfold's
        correction = self.get_object(request, str(object_id))
        if correction is None or correction.status != Correction.Status.PROPOSED:
            return []
        is_author = correction.author_id is not None and correction.author_id == request.user.pk
        return [one for one in actions if not (is_author and one.method.__name__ == "approve")]


@admin.register(UnbilledLateUsage)
class UnbilledLateUsageAdmin(ReadOnlyPage[UnbilledLateUsage]):
    """Late usage that no invoice can ask for, as of the last look."""

    list_display = (
        "account",
        "meter",
        "shown_quantity",
        "reason",
        "billing_period_start",
        "billing_period_end",
        "noted_at",
    )
    list_filter = ("reason", "meter")
    list_select_related = ("account",)
    search_fields = ("account__name", "account__id")
    date_hierarchy = "billing_period_start"
    readonly_fields = ("shown_quantity",)

    @admin.display(description="quantity")
    def shown_quantity(self, row: UnbilledLateUsage) -> str:
        """Return the quantity with its unit."""
        unit = UNITS[Meter(row.meter)]
        return f"{decimal_text(unit.shown_quantity(int(row.quantity)))} {unit.shown}"
