"""Re-rating of closed periods, and the decision about corrections that wait for one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from django.db import transaction

from billing.adjustments import Component, CreditMove
from billing.credit_notes import CreditNoteRefusedError, Figures
from billing.history import BILLING_A_PERIOD
from billing.lifecycle import NOT_FINAL
from billing.models import Account, Correction, Invoice
from billing.money import Money
from billing.outstanding import creditable
from billing.services.corrections import (
    Author,
    CorrectionRefusedError,
    Proposal,
    ProposedLine,
    apply,
    locked_correction,
    locked_invoice,
    propose,
)
from billing.services.differences import rerate_period


def rerate(invoice_id: int, *, by: Author, now: datetime) -> Correction | None:
    """Correct a closed period to what it comes to now, by the terms and rules of now.

    The difference to all that was invoiced for it becomes one credit note or lines of the next
    invoice, at once or once a second person has approved it. None: there is no difference, so that
    a second run does nothing. Raises CorrectionRefusedError, UsageNotKeptError,
    NotPricedError, ValueError, Invoice.DoesNotExist.
    """
    with transaction.atomic():
        account, invoice = locked_invoice(invoice_id)
        proposal = _proposal(account, invoice)
        return propose(account, invoice, proposal, by=by, now=now) if proposal else None


def difference_of(invoice_id: int) -> Proposal | None:
    """Return what `rerate` would propose, without writing it. Raises as that."""
    with transaction.atomic():
        # Locked all the same, so that what is read is of one moment.
        return _proposal(*locked_invoice(invoice_id))


def approve_correction(correction_id: int, *, decided_by_id: int, now: datetime) -> Correction:
    """Let a large correction happen, as a second person. Safe to repeat.

    Refused to its author, and where the period comes to something else by now. Raises
    CorrectionRefusedError, CreditNoteRefusedError, Correction.DoesNotExist.
    """
    with transaction.atomic():
        account, correction = locked_correction(correction_id)
        if correction.status == Correction.Status.APPLIED:
            return correction
        if correction.status == Correction.Status.REJECTED:
            raise CorrectionRefusedError(f"{correction} is rejected. Propose it anew.")
        moves: Sequence[CreditMove] = ()
        if correction.origin == Correction.Origin.RERATING:
            proposal = _proposal(account, correction.invoice)
            if proposal is None or not _is_same(correction, proposal):
                raise CorrectionRefusedError(
                    "The period comes to something else by now. Reject this and re-rate it again."
                )
            moves = proposal.credit_moves
        apply(account, correction, moves, decided_by_id=decided_by_id, now=now)
    return correction


def _proposal(account: Account, invoice: Invoice) -> Proposal | None:
    if invoice.status in NOT_FINAL or invoice.kind not in BILLING_A_PERIOD:
        raise CorrectionRefusedError(
            f"{invoice} is {invoice.status}, of kind {invoice.kind}. Re-rate a final one of usage."
        )
    rerating = rerate_period(account, invoice)
    lines = [
        *(
            ProposedLine(
                one.component,
                one.description,
                one.amount,
                one.period,
                one.invoice_line_id,
                meter=one.meter,
                quantity=one.quantity,
            )
            for one in rerating.differences
        ),
        *(
            ProposedLine(
                Component.CREDIT,
                f"{move.credit.kind.capitalize()} credit",
                -move.spent,
                invoice.period,
                grant_id=move.credit.credit_id,
            )
            for move in rerating.credit_moves
        ),
    ]
    if not lines:
        return None
    difference = Money.total((line.amount for line in lines), account.currency)
    return Proposal(
        Correction.Origin.RERATING, lines, _note(invoice, -difference), rerating.credit_moves
    )


def _note(invoice: Invoice, amount: Money) -> Figures | None:
    """Return the credit note of so much; None where nothing is given back, or not that much fits.

    More than the invoice asked for can be too much where later invoices adjusted its period. It
    comes off the next one then.
    """
    if amount.amount <= 0:
        return None
    try:
        return creditable(invoice).of_lines(amount)
    except CreditNoteRefusedError:
        return None


def _is_same(correction: Correction, proposal: Proposal) -> bool:
    proposed = [
        (line.component, line.description, line.amount, line.period_start, line.period_end)
        for line in correction.lines.all()
    ]
    now = [
        (line.component, line.description, line.amount.amount, line.period.start, line.period.end)
        for line in proposal.lines
    ]
    return proposed == now and correction.settlement == proposal.settlement
