"""Prepaid credit: asked for here, paid for in payments, granted here."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.db import transaction
from django.db.models import Sum

from billing.credits import CreditKind
from billing.models import Account, CreditEntry, TopUp
from billing.money import Money
from billing.services.accounts import lock_account, refuse_closing
from billing.services.credits import CreditRefusedError, Gift, grant_credit
from billing.services.other_invoices import invoice_top_up


class TopUpRefusedError(ValueError):
    """A top-up cannot be asked for like this; the message says what to change."""


def set_automatic_top_up(
    account_id: UUID, *, threshold: Decimal | None, amount: Decimal | None
) -> Account:
    """Ask for `amount` by itself whenever less prepaid credit than `threshold` is left.

    None for both: never again. Safe to repeat. Raises TopUpRefusedError.
    """
    is_off = threshold is None and amount is None
    if not is_off and not (_is_at_least(0, threshold) and _is_at_least(0, amount) and amount):
        raise TopUpRefusedError("Give a threshold of 0 or more and an amount above 0, or neither.")
    with transaction.atomic():
        account = lock_account(account_id)
        if amount is not None:
            refuse_closing(account)
            _refuse_broken(amount, account.currency)
        account.top_up_threshold, account.top_up_amount = threshold, amount
        account.save(update_fields=["top_up_threshold", "top_up_amount"])
    return account


def request_top_up(account_id: UUID, amount: Decimal, *, now: datetime) -> TopUp:
    """Ask for prepaid credit once; each call asks again. Raises TopUpRefusedError."""
    if not _is_at_least(0, amount) or not amount:
        raise TopUpRefusedError(f"amount is {amount}. Use an amount above 0.")
    with transaction.atomic():
        account = lock_account(account_id)
        refuse_closing(account)
        _refuse_broken(amount, account.currency)
        return TopUp.objects.create(account=account, amount=amount, requested_at=now)


def request_due_top_up(account_id: UUID, *, now: datetime) -> TopUp | None:
    """Ask for the account's automatic top-up if it is due and none is waiting; else None."""
    with transaction.atomic():
        account = lock_account(account_id)
        if account.top_up_threshold is None or account.top_up_amount is None:
            return None
        waiting = account.top_ups.filter(
            is_automatic=True, grant__isnull=True, given_up_at__isnull=True
        )
        if waiting.exists() or prepaid_balance(account) >= account.top_up_threshold:
            return None
        return TopUp.objects.create(
            account=account, amount=account.top_up_amount, is_automatic=True, requested_at=now
        )


def grant_top_up(top_up_id: int, *, now: datetime) -> TopUp:
    """Turn a top-up whose money is here into prepaid credit, and invoice it. Safe to repeat.

    Raises CreditRefusedError when it was given up, TopUp.DoesNotExist.
    """
    account_id = TopUp.objects.values_list("account_id", flat=True).get(pk=top_up_id)
    with transaction.atomic():
        account = lock_account(account_id)
        top_up = TopUp.objects.get(pk=top_up_id)
        if top_up.given_up_at:
            raise CreditRefusedError(f"Top-up {top_up_id} was given up at {top_up.given_up_at}.")
        if top_up.grant_id is None:
            gift = Gift(CreditKind.PREPAID, top_up.amount, "Top-up", f"top-up:{top_up_id}")
            top_up.grant = grant_credit(account_id, gift, now=now)
            # The number comes last: its counter is locked from there to the commit.
            top_up.invoice = invoice_top_up(account, top_up, now=now)
            top_up.save(update_fields=["grant", "invoice"])
    return top_up


def give_up_top_up(top_up_id: int, *, now: datetime) -> None:
    """Ask for it no longer. Safe to repeat; a top-up that was paid stays paid."""
    account_id = TopUp.objects.values_list("account_id", flat=True).get(pk=top_up_id)
    with transaction.atomic():
        # Its money may arrive in this moment: then one of the two comes first.
        lock_account(account_id)
        TopUp.objects.filter(pk=top_up_id, grant__isnull=True, given_up_at__isnull=True).update(
            given_up_at=now
        )


def _is_at_least(least: int, amount: Decimal | None) -> bool:
    return amount is not None and amount.is_finite() and amount >= least


def _refuse_broken(amount: Decimal, currency: str) -> None:
    # Refused here, because the credit would be refused once its money is paid.
    if Money(amount, currency).times(Decimal(1)).amount != amount:
        raise TopUpRefusedError(f"amount is {amount}. Use whole cents.")


def prepaid_balance(account: Account) -> Decimal:
    """Return how much prepaid credit the account holds."""
    entries = CreditEntry.objects.filter(grant__account=account, grant__kind=CreditKind.PREPAID)
    return entries.aggregate(balance=Sum("amount"))["balance"] or Decimal(0)
