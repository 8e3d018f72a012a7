"""Credit that is spent on something that is on no invoice of ours."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.db import transaction

from billing.credits import CreditKind, Draw, draw, total_of
from billing.facts import credits_held, period_containing
from billing.models import CreditEntry, CreditGrant
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
    if not by.reference or not by.reason:
        raise CreditRefusedError("Give a reference and a reason.")
    with transaction.atomic():
        account = lock_account(account_id)
        asked = whole_cents(amount, account.currency)
        used = CreditEntry.objects.filter(
            grant__account=account, kind=CreditEntry.Kind.USE, reference=by.reference
        ).select_related("grant")
        if used:
            found = tuple(
                Draw(
                    entry.grant_id,
                    CreditKind(entry.grant.kind),
                    Money(-entry.amount, account.currency),
                )
                for entry in used
            )
            if total_of(found, account.currency) != asked:
                raise CreditRefusedError(
                    f"reference {by.reference!r} is for {total_of(found, account.currency)} "
                    "already. Use another reference for another use."
                )
            return found
        draws = draw(credits_held(account, period_containing(account, now)), asked)
        if total_of(draws, account.currency) != asked:
            raise CreditRefusedError(
                f"amount is {asked}, and {total_of(draws, account.currency)} of credit are left."
            )
        for drawn in draws:
            grant = CreditGrant.objects.get(pk=granted_id(drawn), account=account)
            append_entry(grant, CreditEntry.Kind.USE, -drawn.amount, now=now, by=by)
    return draws
