"""Credit that is spent on something that is on no invoice of ours."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.db import transaction

from billing.credits import CreditKind, Draw, draw, total_of
from billing.facts import credits_held, period_containing
from billing.models import Account, CreditEntry, CreditGrant
from billing.money import Money
from billing.services.accounts import lock_account
from billing.services.credits import (
    ByHand,
    CreditRefusedError,
    append_entry,
    granted_id,
    whole_cents,
)


def use_credit(account_id: UUID, amount: Decimal, *, by: ByHand, now: datetime) -> tuple[Draw, ...]:
    """Use an account's credit for something that is on no invoice of ours.

    From what may pay the usage of the period around `now`, then prepaid credit, in the order of
    invoices. Safe to repeat: what was used under this reference is found, and has to be the same
    amount. Raises CreditRefusedError, also when there is less than that.
    """
    return _use(account_id, amount, kinds=frozenset(CreditKind), by=by, now=now)


def take_prepaid(
    account_id: UUID, amount: Decimal, *, by: ByHand, now: datetime
) -> tuple[Draw, ...]:
    """Take money out of an account's prepaid credit, as for a refund of what was overpaid.

    Never from monthly or promotional credit, and all of the amount or nothing. Safe to repeat and
    raises as `use_credit`; what another kind gave under this reference is another use.
    """
    return _use(account_id, amount, kinds=frozenset({CreditKind.PREPAID}), by=by, now=now)


def _use(
    account_id: UUID, amount: Decimal, *, kinds: Collection[CreditKind], by: ByHand, now: datetime
) -> tuple[Draw, ...]:
    """Use credit of these kinds once under a reference, as its callers say."""
    if not by.reference or not by.reason:
        raise CreditRefusedError("Give a reference and a reason.")
    with transaction.atomic():
        account = lock_account(account_id)
        asked = whole_cents(amount, account.currency)
        if used := _used_before(account, by.reference):
            of_them = total_of(used, account.currency)
            if of_them != asked or any(drawn.kind not in kinds for drawn in used):
                raise CreditRefusedError(
                    f"reference {by.reference!r} is for {of_them} already. "
                    "Use another reference for another use."
                )
            return used
        held = credits_held(account, period_containing(account, now))
        draws = draw([credit for credit in held if credit.kind in kinds], asked)
        if total_of(draws, account.currency) != asked:
            raise CreditRefusedError(
                f"amount is {asked}, and {total_of(draws, account.currency)} of credit are left."
            )
        for drawn in draws:
            grant = CreditGrant.objects.get(pk=granted_id(drawn), account=account)
            append_entry(grant, CreditEntry.Kind.USE, -drawn.amount, now=now, by=by)
    return draws


def _used_before(account: Account, reference: str) -> tuple[Draw, ...]:
    rows = CreditEntry.objects.filter(
        grant__account=account, kind=CreditEntry.Kind.USE, reference=reference
    ).select_related("grant")
    return tuple(
        Draw(row.grant_id, CreditKind(row.grant.kind), Money(-row.amount, account.currency))
        for row in rows
    )
