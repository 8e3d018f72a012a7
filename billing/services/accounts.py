from __future__ import annotations

import uuid
from datetime import datetime
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo, available_timezones

from django.db import transaction

import metering.services
from billing.models import Account
from billing.periods import month_containing


class UnknownTimeZoneError(ValueError):
    """The name is not a time zone of the IANA data base."""


def is_time_zone(name: str) -> bool:
    """Return whether the name is an IANA time zone."""
    return name in available_timezones()


def open_account(
    *,
    name: str,
    now: datetime,
    time_zone: str = "UTC",
    currency: str = "USD",
    tax_rate: Decimal = Decimal(0),
    account_id: UUID | None = None,
) -> Account:
    """Open an account and let metering accept its sandboxes.

    Safe to repeat when `account_id` is given: the account found is returned as it is.
    Raises UnknownTimeZoneError.
    """
    if not is_time_zone(time_zone):
        raise UnknownTimeZoneError(f"{time_zone!r} is not an IANA time zone.")
    period = month_containing(now, ZoneInfo(time_zone))
    with transaction.atomic():
        account, _ = Account.objects.get_or_create(
            pk=account_id or uuid.uuid4(),
            defaults={
                "name": name,
                "currency": currency,
                "time_zone": time_zone,
                "tax_rate": tax_rate,
                "opened_at": now,
                "open_period_start": period.start,
                "open_period_end": period.end,
            },
        )
        metering.services.register_account(
            account_id=account.pk, time_zone=account.time_zone, registered_at=account.opened_at
        )
    return account


def lock_account(account_id: UUID) -> Account:
    """Return the account, locked to the end of the caller's transaction.

    Whoever writes an account's money locks its row first, before any other. Raises
    Account.DoesNotExist.
    """
    return Account.objects.select_for_update().get(pk=account_id)


def park_account(account_id: UUID, *, reason: str, now: datetime) -> None:
    """Make the sweeps leave the account alone until a human has looked.

    Safe to repeat: the first reason stays.
    """
    Account.objects.filter(pk=account_id, parked_reason="").update(
        parked_reason=reason, parked_at=now
    )


def unpark_account(account_id: UUID) -> None:
    """Let the sweeps take the account again. Safe to repeat."""
    Account.objects.filter(pk=account_id).update(parked_reason="", parked_at=None)
