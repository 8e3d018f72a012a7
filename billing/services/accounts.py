from __future__ import annotations

import uuid
from datetime import datetime
from uuid import UUID
from zoneinfo import ZoneInfo, available_timezones

from django.db import transaction

import metering.services
from billing.caching import forget
from billing.facts import period_containing
from billing.models import Account
from billing.money import DECIMALS
from billing.periods import LAST_ANCHOR_DAY, Cycle
from billing.totals import Tax

NO_TAX = Tax()


class AccountRefusedError(ValueError):
    """The account cannot be as asked for; the message names the field and the way out."""


class UnknownTimeZoneError(AccountRefusedError):
    """The name is not a time zone of the IANA data base."""


class UnknownCurrencyError(AccountRefusedError):
    """The code is not a currency of ISO 4217."""


class AccountClosingError(AccountRefusedError):
    """The account is being closed, or is: nothing new begins in it."""


def refuse_closing(account: Account) -> None:
    """Raise AccountClosingError when somebody asked to close the account."""
    if account.closing_at:
        raise AccountClosingError(
            f"The account is {'closed' if account.closed_at else 'being closed'}. Open another one."
        )


def is_time_zone(name: str) -> bool:
    """Return whether the name is an IANA time zone."""
    return name in available_timezones()


def open_account(
    *,
    name: str,
    now: datetime,
    time_zone: str = "UTC",
    anchor_day: int = 1,
    currency: str = "USD",
    tax: Tax = NO_TAX,
    account_id: UUID | None = None,
) -> Account:
    """Open an account and let metering accept its sandboxes.

    Safe to repeat when `account_id` is given: the account found is returned as it is.
    Raises AccountRefusedError.
    """
    _refuse_unknown_zone(time_zone)
    _refuse_anchor_day(anchor_day)
    if currency not in DECIMALS:
        raise UnknownCurrencyError(f"currency is {currency!r}. Use a code of ISO 4217, as in USD.")
    period = Cycle(ZoneInfo(time_zone), anchor_day).containing(now)
    with transaction.atomic():
        account, _ = Account.objects.get_or_create(
            pk=account_id or uuid.uuid4(),
            defaults={
                "name": name,
                "currency": currency,
                "time_zone": time_zone,
                "anchor_day": anchor_day,
                "tax_rate": tax.rate,
                "tax_is_inclusive": tax.is_inclusive,
                "opened_at": now,
                "open_period_start": period.start,
                "open_period_end": period.end,
            },
        )
        metering.services.register_account(
            account_id=account.pk, time_zone=account.time_zone, registered_at=account.opened_at
        )
    return account


def change_cycle(
    account_id: UUID, *, now: datetime, time_zone: str = "", anchor_day: int | None = None
) -> Account:
    """Let another time zone or anchor day bound the account's periods, from the next one on.

    The next period starts where the one around `now` ends. What is not given stays; a change
    that is waiting is replaced, and asking for what holds already takes it back. Safe to repeat.
    Raises Account.DoesNotExist, and AccountRefusedError, also between the moment of a change and
    the close of the period before it.
    """
    with transaction.atomic():
        account = lock_account(account_id)
        zone = time_zone or account.next_time_zone or account.time_zone
        day = account.next_anchor_day or account.anchor_day if anchor_day is None else anchor_day
        _refuse_unknown_zone(zone)
        _refuse_anchor_day(day)
        if account.cycle_changes_at and account.cycle_changes_at <= now:
            if (zone, day) == (account.next_time_zone, account.next_anchor_day):
                return account
            # Later periods are cut by it: they may have drafts, and readers have seen them.
            raise AccountRefusedError(
                f"The change from {account.cycle_changes_at} on is made when the period before "
                "it is closed. Ask for another one then."
            )
        if (zone, day) == (account.time_zone, account.anchor_day):
            account.next_time_zone, account.next_anchor_day = "", None
            account.cycle_changes_at = None
        else:
            account.cycle_changes_at = period_containing(account, now).end
            account.next_time_zone, account.next_anchor_day = zone, day
        account.save(update_fields=["next_time_zone", "next_anchor_day", "cycle_changes_at"])
    return account


def lock_account(account_id: UUID) -> Account:
    """Return the account, locked to the end of the caller's transaction.

    Whoever writes an account's money locks its row first, before any other; so what is kept of
    the account's answers counts no more after the commit. Raises Account.DoesNotExist.
    """
    forget(account_id)
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


def _refuse_unknown_zone(time_zone: str) -> None:
    if not is_time_zone(time_zone):
        raise UnknownTimeZoneError(
            f"time_zone is {time_zone!r}. Use an IANA time zone, as in Europe/Berlin."
        )


def _refuse_anchor_day(anchor_day: int) -> None:
    if not 1 <= anchor_day <= LAST_ANCHOR_DAY:
        raise AccountRefusedError(
            f"anchor_day is {anchor_day}. Use a day of the month, 1 to {LAST_ANCHOR_DAY}."
        )
