"""Gives back what a payment provider collected for time after its plan had ended."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.db import transaction

from billing.mirrored_fees import FeeDifferenceKind, fee_differences
from billing.models import Correction, Invoice
from billing.money import Money
from billing.outstanding import creditable_lines
from billing.services.accounts import lock_account
from billing.services.corrections import Author
from billing.services.credit_notes import credit_lines


def give_back_unused_fees(account_id: UUID, *, now: datetime) -> list[Correction]:
    """Write credit notes for fees that were collected beyond the end of their plan.

    For who cancels at the provider without anything being given back there: then it is given
    back here, by the second, with its tax. What was credited of the mirrored invoice by hand
    counts. Safe to repeat. A large one waits for a second person, as others do. Raises
    CorrectionRefusedError, CreditNoteRefusedError, Account.DoesNotExist.
    """
    with transaction.atomic():
        lock_account(account_id)
        made = []
        for one in fee_differences(account_id, now=now):
            if one.kind is FeeDifferenceKind.UNUSED and one.amount and one.invoice_id:
                invoice = Invoice.objects.get(pk=one.invoice_id)
                by = Author(
                    "The plan ended before the time that its fee was collected for",
                    reference=f"unused-fee:{one.period.start:%Y-%m-%dT%H:%M:%S}",
                )
                amounts = _of_lines(invoice, one.amount)
                made.append(credit_lines(invoice.pk, amounts, by=by, now=now))
    return made


def _of_lines(invoice: Invoice, amount: Money) -> dict[int, Decimal]:
    """Return how much of which lines is credited: of the largest first."""
    left = amount
    amounts = {}
    for line_id, most in sorted(
        creditable_lines(invoice).items(), key=lambda line: -line[1].amount
    ):
        if (taken := min(left, most)).amount > 0:
            amounts[line_id] = taken.amount
            left -= taken
    return amounts
