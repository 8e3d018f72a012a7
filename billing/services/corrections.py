"""Corrections of final invoices: proposed, decided on by a second person where large, applied.

Each becomes one credit note, or lines of the account's next invoice. Functions that are given
an account expect its row to be locked by the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.db import transaction
from django.db.models import F, Sum
from django.db.models.functions import Abs

from billing.adjustments import Component, CreditMove
from billing.credit_notes import CreditNoteRefusedError, Figures
from billing.credits import CreditKind
from billing.lifecycle import InvoiceStatus
from billing.models import Account, Correction, CorrectionLine, CreditNote, CreditNoteLine, Invoice
from billing.models.invoices import Series
from billing.money import Money
from billing.outstanding import UNPAID, creditable, outstanding
from billing.services.accounts import lock_account
from billing.services.credit_moves import move_credits_of_correction
from billing.services.credits import Gift, grant_credit
from billing.services.lifecycle import Because, record_transition
from billing.services.numbering import take_numbers
from metering.meters import Meter
from metering.period import Period


class CorrectionRefusedError(ValueError):
    """An invoice cannot be corrected like this; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Author:
    """Who corrects an invoice, and why. No user: a command.

    `reference` is the author's own name for it: under it an invoice is corrected once.
    """

    reason: str
    user_id: int | None = None
    reference: str = ""

    def __post_init__(self) -> None:
        if not self.reason.strip():
            raise CorrectionRefusedError("Say why in reason.")


@dataclass(frozen=True, slots=True)
class ProposedLine:
    """What one part of a period comes to more, or less below zero."""

    component: Component
    description: str
    amount: Money
    period: Period
    invoice_line_id: int | None = None
    grant_id: int | None = None
    meter: Meter | None = None
    quantity: int = 0


@dataclass(frozen=True, slots=True)
class Proposal:
    """How an invoice is to be corrected: its lines, the credit that moves, and how it is settled.

    `note` are the figures of a credit note; None: it is not settled by one.
    """

    origin: Correction.Origin
    lines: Sequence[ProposedLine]
    note: Figures | None = None
    credit_moves: Sequence[CreditMove] = ()

    @property
    def difference(self) -> Money:
        """What the account pays more, without tax where prices do not contain it."""
        amounts = [line.amount for line in self.lines]
        return Money.total(amounts, amounts[0].currency)

    @property
    def settlement(self) -> Correction.Settlement:
        """Return how it is settled."""
        if self.note:
            return Correction.Settlement.CREDIT_NOTE
        if self.difference:
            return Correction.Settlement.ADJUSTMENT
        return Correction.Settlement.NONE


def propose(
    account: Account, invoice: Invoice, proposal: Proposal, *, by: Author, now: datetime
) -> Correction:
    """Write a correction down, and apply it unless a second person has to approve it.

    Raises CorrectionRefusedError while another correction of the invoice is open.
    """
    if is_open := invoice.corrections.filter(status=Correction.Status.PROPOSED).first():
        raise CorrectionRefusedError(f"{is_open} waits for a decision. Approve or reject it first.")
    note = proposal.note
    correction = Correction.objects.create(
        invoice=invoice,
        origin=proposal.origin,
        settlement=proposal.settlement,
        currency=invoice.currency,
        net=-note.net.amount if note else proposal.difference.amount,
        tax=-note.tax.amount if note else 0,
        reason=by.reason,
        reference=by.reference,
        author_id=by.user_id,
        proposed_at=now,
    )
    CorrectionLine.objects.bulk_create(
        CorrectionLine(
            correction=correction,
            position=position,
            component=line.component,
            invoice_line_id=line.invoice_line_id,
            grant_id=line.grant_id,
            description=line.description,
            meter=line.meter or "",
            quantity=line.quantity,
            amount=line.amount.amount,
            period_start=line.period.start,
            period_end=line.period.end,
        )
        for position, line in enumerate(proposal.lines, start=1)
    )
    if not needs_approval(correction):
        apply(account, correction, proposal.credit_moves, decided_by_id=None, now=now)
    return correction


def needs_approval(correction: Correction) -> bool:
    """Return whether a second person has to approve a correction: one that is large.

    What corrected the invoice without one counts too: many small ones are a large one. And a
    re-rating that asks for money again which somebody gave back by hand, however small.
    """
    if correction.origin == Correction.Origin.RERATING and correction.net > 0:
        by_hand = Correction.objects.filter(
            invoice=correction.invoice_id,
            origin=Correction.Origin.BY_HAND,
            status=Correction.Status.APPLIED,
        )
        if by_hand.exists():
            return True
    threshold: int = settings.BILLING_APPROVAL_THRESHOLD
    alone = (
        Correction.objects.filter(
            invoice=correction.invoice_id,
            status=Correction.Status.APPLIED,
            decided_by__isnull=True,
        )
        .exclude(pk=correction.pk)
        .aggregate(sum=Sum(Abs(F("net") + F("tax"))))["sum"]
    )
    return bool(abs(correction.net + correction.tax) + (alone or 0) > threshold)


def apply(
    account: Account,
    correction: Correction,
    credit_moves: Sequence[CreditMove],
    *,
    decided_by_id: int | None,
    now: datetime,
) -> None:
    """Let a correction happen: its credit moves, and its credit note is issued.

    Lines for the next invoice wait for it: finalising takes them. Raises CorrectionRefusedError,
    CreditNoteRefusedError, CreditRefusedError.
    """
    if correction.author_id is not None and correction.author_id == decided_by_id:
        raise CorrectionRefusedError("Its author cannot approve it. Ask a second person.")
    correction.status = Correction.Status.APPLIED
    correction.decided_by_id, correction.decided_at = decided_by_id, now
    correction.save(update_fields=["status", "decided_by", "decided_at"])
    move_credits_of_correction(account, correction, credit_moves, now=now)
    if correction.settlement == Correction.Settlement.CREDIT_NOTE:
        _issue_credit_note(account, correction, now=now)


def reject_correction(
    correction_id: int, *, decided_by_id: int | None, now: datetime
) -> Correction:
    """Decide that a correction does not happen; its author may, too. Safe to repeat.

    Raises CorrectionRefusedError when it has happened, Correction.DoesNotExist.
    """
    with transaction.atomic():
        _, correction = locked_correction(correction_id)
        if correction.status == Correction.Status.APPLIED:
            raise CorrectionRefusedError(f"{correction} is applied already.")
        if correction.status == Correction.Status.PROPOSED:
            correction.status = Correction.Status.REJECTED
            correction.decided_by_id, correction.decided_at = decided_by_id, now
            correction.save(update_fields=["status", "decided_by", "decided_at"])
    return correction


def locked_correction(correction_id: int) -> tuple[Account, Correction]:
    """Lock the account of a correction and return both, read under the lock."""
    correction = Correction.objects.select_related("invoice").get(pk=correction_id)
    account = lock_account(correction.invoice.account_id)
    return account, Correction.objects.select_related("invoice").get(pk=correction_id)


def locked_invoice(invoice_id: int) -> tuple[Account, Invoice]:
    """Lock the account of an invoice and return both, read under the lock."""
    account_id = Invoice.objects.values_list("account_id", flat=True).get(pk=invoice_id)
    account = lock_account(account_id)
    return account, Invoice.objects.get(pk=invoice_id)


def _issue_credit_note(account: Account, correction: Correction, *, now: datetime) -> None:
    """Issue the note: off what is owed first, the rest is prepaid credit. Its number comes last."""
    invoice, currency = correction.invoice, correction.currency
    figures = Figures(Money(-correction.net, currency), Money(-correction.tax, currency))
    left = creditable(invoice).left
    if left.net < figures.net or left.tax < figures.tax:
        raise CreditNoteRefusedError(
            f"{figures.total} are to be credited, and {left.total} can be. Reject it."
        )
    owed = outstanding(invoice)
    off_due = min(owed, figures.total)
    as_credit = figures.total - off_due
    grant = None
    if as_credit:
        gift = Gift(
            kind=CreditKind.PREPAID,
            amount=as_credit.amount,
            reason=f"Credit note for invoice {invoice}",
            reference=f"correction:{correction.pk}:credit",
        )
        grant = grant_credit(account.pk, gift, now=now, granted_by_id=correction.author_id)
    [number] = take_numbers(Series.CREDIT_NOTE, 1, now=now)
    note = CreditNote.objects.create(
        invoice=invoice,
        correction=correction,
        number=number,
        currency=currency,
        reason=correction.reason,
        author_id=correction.author_id,
        approved_by_id=correction.decided_by_id,
        net=figures.net.amount,
        tax=figures.tax.amount,
        total=figures.total.amount,
        off_due=off_due.amount,
        as_credit=as_credit.amount,
        grant=grant,
        issued_on=now.astimezone(settings.SELLER_TIME_ZONE).date(),
        issued_at=now,
    )
    CreditNoteLine.objects.bulk_create(
        CreditNoteLine(
            credit_note=note,
            position=line.position,
            invoice_line_id=line.invoice_line_id,
            description=line.description,
            amount=-line.amount,
            period_start=line.period_start,
            period_end=line.period_end,
        )
        for line in correction.lines.all()
    )
    if owed and owed == off_due and invoice.status in UNPAID:
        because = Because(f"Credited by {number}", correction.author_id)
        record_transition(invoice, InvoiceStatus.PAID, because=because, now=now)
