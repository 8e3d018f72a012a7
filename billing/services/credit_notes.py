"""Credit notes that a person asks for: of all that is left, of an amount, or of lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal

from django.db import transaction

from billing.adjustments import Component
from billing.credit_notes import Creditable, CreditNoteRefusedError, Figures
from billing.models import Correction, Invoice, InvoiceLine
from billing.money import Money
from billing.outstanding import creditable, creditable_lines
from billing.services.corrections import (
    Author,
    CorrectionRefusedError,
    Proposal,
    ProposedLine,
    locked_invoice,
    propose,
)
from billing.services.differences import COMPONENTS
from metering.meters import Meter

Plan = Callable[[Invoice, Creditable], tuple[Figures, Sequence[ProposedLine]]]
IsSame = Callable[[Correction], bool]


def credit_in_full(invoice_id: int, *, by: Author, now: datetime) -> Correction:
    """Credit all of an invoice that is left.

    The correction is applied, and has a `credit_note`, unless a second person has to approve it.
    Safe to repeat under `by.reference`, without which it is refused. Raises
    CreditNoteRefusedError, CorrectionRefusedError, Invoice.DoesNotExist.
    """

    def plan(invoice: Invoice, left: Creditable) -> tuple[Figures, Sequence[ProposedLine]]:
        if left.left.total.amount <= 0:
            raise CreditNoteRefusedError(f"Nothing of {invoice} is left to credit.")
        return left.left, [_in_all(invoice, left.in_lines)]

    return _credit(invoice_id, plan, _is_in_all, by=by, now=now)


def credit_amount(invoice_id: int, amount: Decimal, *, by: Author, now: datetime) -> Correction:
    """Credit so much of an invoice, tax and all. As `credit_in_full`."""

    def plan(invoice: Invoice, left: Creditable) -> tuple[Figures, Sequence[ProposedLine]]:
        figures = left.of_total(_money(amount, invoice.currency))
        return figures, [_in_all(invoice, left.lines_of(figures))]

    def is_same(made: Correction) -> bool:
        return _is_in_all(made) and -(made.net + made.tax) == amount

    return _credit(invoice_id, plan, is_same, by=by, now=now)


def credit_lines(
    invoice_id: int, amounts: Mapping[int, Decimal], *, by: Author, now: datetime
) -> Correction:
    """Credit so much of each line, by the lines' keys, in the lines' own terms.

    No more of a line than it asks for, less its discount and what was credited of it before. As
    `credit_in_full`.
    """

    def plan(invoice: Invoice, left: Creditable) -> tuple[Figures, Sequence[ProposedLine]]:
        lines = _of_lines(invoice, amounts)
        return left.of_lines(-Money.total((x.amount for x in lines), invoice.currency)), lines

    def is_same(made: Correction) -> bool:
        return {line.invoice_line_id: -line.amount for line in made.lines.all()} == amounts

    return _credit(invoice_id, plan, is_same, by=by, now=now)


def _credit(
    invoice_id: int, plan: Plan, is_same: IsSame, *, by: Author, now: datetime
) -> Correction:
    if not by.reference:
        raise CorrectionRefusedError("Give the credit note a reference of yours.")
    with transaction.atomic():
        account, invoice = locked_invoice(invoice_id)
        if made := invoice.corrections.filter(reference=by.reference).first():
            if is_same(made):
                return made
            raise CorrectionRefusedError(
                f"reference {by.reference!r} is {made} already. Use another for another note."
            )
        figures, lines = plan(invoice, creditable(invoice))
        proposal = Proposal(Correction.Origin.BY_HAND, lines, figures)
        return propose(account, invoice, proposal, by=by, now=now)


def _is_in_all(made: Correction) -> bool:
    """Return whether it is about an amount in all, and names no line."""
    return not made.lines.filter(invoice_line__isnull=False).exists()


def _in_all(invoice: Invoice, amount: Money) -> ProposedLine:
    return ProposedLine(Component.AMOUNT, f"Credit for invoice {invoice}", -amount, invoice.period)


def _of_lines(invoice: Invoice, amounts: Mapping[int, Decimal]) -> list[ProposedLine]:
    left = creditable_lines(invoice)
    rows = {row.pk: row for row in invoice.lines.filter(pk__in=list(amounts))}
    if not amounts:
        raise CreditNoteRefusedError("Name a line and an amount.")
    lines = []
    for pk, amount in amounts.items():
        asked = _money(amount, invoice.currency)
        if pk not in rows or pk not in left:
            raise CreditNoteRefusedError(f"Line {pk} of {invoice} has nothing to credit.")
        row = rows[pk]
        if asked.amount <= 0 or left[pk] < asked:
            raise CreditNoteRefusedError(
                f"{row.description}: the amount is {asked}. Use one above 0, up to {left[pk]}."
            )
        lines.append(
            ProposedLine(
                # What is credited of an adjustment is about no part of this invoice's period.
                COMPONENTS.get(InvoiceLine.Kind(row.kind), Component.AMOUNT),
                row.description,
                -asked,
                row.period,
                invoice_line_id=pk,
                meter=Meter(row.meter) if row.meter else None,
            )
        )
    return lines


def _money(amount: Decimal, currency: str) -> Money:
    if not amount.is_finite():
        raise CreditNoteRefusedError(f"The amount is {amount}. Use whole cents, above 0.")
    return Money(amount, currency)
