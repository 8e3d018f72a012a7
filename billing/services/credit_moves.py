"""The ledger's lines about invoices that correct others, or are taken back.

Every function is given an account whose row is locked by the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from django.db.models import Sum

from billing.adjustments import CreditMove
from billing.models import Account, Correction, CreditEntry, CreditGrant, Invoice
from billing.money import Money
from billing.services.credits import (
    BY_ITSELF,
    ByHand,
    CreditRefusedError,
    append_entry,
    balance_of_grant,
    expire_credits,
)


def move_credits_of_late_usage(
    account: Account, invoice: Invoice, moves: Sequence[CreditMove], *, now: datetime
) -> None:
    """Let an invoice use and return credit for the closed periods that it adjusts.

    Raises CreditRefusedError when a grant holds less than that.
    """
    _move(account, moves, now=now, invoice=invoice)


def move_credits_of_correction(
    account: Account, correction: Correction, moves: Sequence[CreditMove], *, now: datetime
) -> None:
    """Let a correction use and return credit of its invoice's period. Raises CreditRefusedError."""
    by = ByHand(
        reason=correction.reason,
        reference=f"correction:{correction.pk}",
        user_id=correction.author_id,
    )
    _move(account, moves, now=now, by=by)
    # What came back to credit that is over is over again.
    expire_credits(account, now=now)


def _move(
    account: Account,
    moves: Sequence[CreditMove],
    *,
    now: datetime,
    invoice: Invoice | None = None,
    by: ByHand = BY_ITSELF,
) -> None:
    for credit_id in {move.credit.credit_id or 0 for move in moves}:
        mine = [move for move in moves if move.credit.credit_id == credit_id]
        grant = CreditGrant.objects.get(pk=credit_id, account=account)
        for kind, amounts in (
            (CreditEntry.Kind.RETURN, [move.returned for move in mine]),
            (CreditEntry.Kind.RESTORE, [move.restored for move in mine]),
            (CreditEntry.Kind.LATE_USE, [-(move.used + move.restored) for move in mine]),
        ):
            amount = Money.total(amounts, account.currency)
            append_entry(grant, kind, amount, now=now, invoice=invoice, by=by)
        if balance_of_grant(grant, account.currency).amount < 0:
            raise CreditRefusedError(f"{grant} holds less than a correction uses of it.")


def refund_credits(account: Account, invoice: Invoice, *, now: datetime) -> None:
    """Give back the credit that an invoice was paid with, and take back what it returned.

    Safe to repeat. Raises CreditRefusedError when what it returned is spent already.
    """
    entries = CreditEntry.objects.filter(grant__account=account, invoice=invoice)
    by_grant: dict[CreditGrant, dict[str, Decimal]] = {}
    for entry in entries.select_related("grant"):
        by_grant.setdefault(entry.grant, {})[entry.kind] = entry.amount
    kinds, none = CreditEntry.Kind, Decimal(0)
    for grant, amounts in by_grant.items():
        if kinds.REFUND not in amounts:
            paid = -amounts.get(kinds.USE, none) - amounts.get(kinds.LATE_USE, none)
            refund = Money(paid, account.currency)
            append_entry(grant, kinds.REFUND, refund, now=now, invoice=invoice)
        if kinds.TAKE_BACK not in amounts and kinds.RETURN in amounts:
            _take_back(grant, invoice, Money(amounts[kinds.RETURN], account.currency), now=now)


def _take_back(grant: CreditGrant, invoice: Invoice, returned: Money, *, now: datetime) -> None:
    """Take back what an invoice returned, of what is left or has expired since."""
    lapsed = grant.entries.filter(kind__in=[CreditEntry.Kind.EXPIRE, CreditEntry.Kind.RESTORE])
    expired = -(lapsed.aggregate(lapsed=Sum("amount"))["lapsed"] or Decimal(0))
    missing = returned - balance_of_grant(grant, returned.currency)
    if missing.amount > expired:
        raise CreditRefusedError(
            f"Invoice {invoice} returned {returned} to {grant}, which are spent since. "
            "Write a credit note instead."
        )
    if missing.amount > 0:
        by = ByHand(reason=f"Void of {invoice}", reference=f"void:{invoice.pk}")
        append_entry(grant, CreditEntry.Kind.RESTORE, missing, now=now, by=by)
    append_entry(grant, CreditEntry.Kind.TAKE_BACK, -returned, now=now, invoice=invoice)
