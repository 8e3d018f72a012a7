"""What customers may say of their own account."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction

from billing.models import Account
from billing.services.accounts import (
    AccountRefusedError,
    change_cycle,
    lock_account,
    refuse_closing,
)
from billing.services.top_ups import set_automatic_top_up

LONGEST_NAME: Final = 200
LONGEST_ADDRESS: Final = 500
MOST_ADDRESS_LINES: Final = 10
"""An invoice has room for no more."""
LONGEST_TAX_ID: Final = 64
LONGEST_EMAIL: Final = 254


class DetailRefusedError(AccountRefusedError):
    """A detail cannot be as asked for. `field` names which, the message says the way out."""

    def __init__(self, message: str, *, field: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class AutomaticTopUp:
    """With less prepaid credit than `threshold`, `amount` is asked for. None for both: never."""

    threshold: Decimal | None
    amount: Decimal | None


@dataclass(frozen=True, slots=True)
class AccountChange:
    """What is to be different; None: as it is. An empty address, tax id or e-mail is none."""

    name: str | None = None
    address: str | None = None
    tax_id: str | None = None
    billing_email: str | None = None
    time_zone: str | None = None
    automatic_top_up: AutomaticTopUp | None = None


def change_account(account_id: UUID, change: AccountChange, *, now: datetime) -> Account:
    """Change all that is given, or nothing. Safe to repeat.

    What invoices print is of the next one on; another time zone counts from the next period on,
    see `change_cycle`. Raises AccountRefusedError, TopUpRefusedError, Account.DoesNotExist.
    """
    with transaction.atomic():
        account = lock_account(account_id)
        if change.name is not None:
            account.name = _checked("name", change.name, LONGEST_NAME)
            if not account.name:
                raise DetailRefusedError("An account has a name.", field="name")
        if change.address is not None:
            account.address = _checked("address", change.address, LONGEST_ADDRESS)
            if len(account.address.splitlines()) > MOST_ADDRESS_LINES:
                raise DetailRefusedError(
                    f"Use at most {MOST_ADDRESS_LINES} lines.", field="address"
                )
        if change.tax_id is not None:
            account.tax_id = _checked("tax_id", change.tax_id, LONGEST_TAX_ID)
        if change.billing_email is not None:
            account.billing_email = _checked_email(change.billing_email)
        account.save(update_fields=["name", "address", "tax_id", "billing_email"])
        if change.time_zone is not None:
            refuse_closing(account)
            change_cycle(account_id, time_zone=change.time_zone, now=now)
        if top_up := change.automatic_top_up:
            set_automatic_top_up(account_id, threshold=top_up.threshold, amount=top_up.amount)
        return Account.objects.get(pk=account_id)


def _checked(field: str, said: str, longest: int) -> str:
    text = said.strip()
    if len(text) > longest:
        raise DetailRefusedError(f"Use at most {longest} characters.", field=field)
    return text


def _checked_email(said: str) -> str:
    email = _checked("billing_email", said, LONGEST_EMAIL)
    try:
        if email:
            validate_email(email)
    except ValidationError:
        raise DetailRefusedError("This is no e-mail address.", field="billing_email") from None
    return email
