"""Keeps late usage known that no invoice can ask for, so that a monitor and finance can tell."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import transaction

import metering.late
from billing.late_usage import reckon_late_usage
from billing.models import Account, UnbilledLateUsage

ACCOUNTS_AT_ONCE = 100
"""Of those with late usage; a few seconds' work."""


def note_unbilled_late_usage(*, now: datetime, after: UUID | None = None) -> UUID | None:
    """Note which late usage cannot be billed, of the accounts that follow `after` by id.

    Returns where to go on, None when the last account was looked at. Safe to repeat: what is
    noted of these accounts is replaced.
    """
    found = metering.late.accounts_with_late_usage(after=after, limit=ACCOUNTS_AT_ONCE)
    is_last = len(found) < ACCOUNTS_AT_ONCE
    with transaction.atomic():
        noted = UnbilledLateUsage.objects.all()
        if after is not None:
            noted = noted.filter(account__gt=after)
        if not is_last:
            noted = noted.filter(account__lte=found[-1])
        noted.delete()
        accounts = Account.objects.filter(pk__in=found)
        UnbilledLateUsage.objects.bulk_create(
            [
                UnbilledLateUsage(
                    account_id=account_id,
                    billing_period_start=unbilled.period.start,
                    billing_period_end=unbilled.period.end,
                    meter=unbilled.meter,
                    reason=unbilled.reason,
                    quantity=unbilled.quantity,
                    noted_at=now,
                )
                for account_id, reckoning in reckon_late_usage(list(accounts)).items()
                for unbilled in reckoning.unbilled
            ],
            # Another run at the same moment noted the same.
            ignore_conflicts=True,
        )
    return None if is_last else found[-1]
