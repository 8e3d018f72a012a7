"""How somebody becomes the owner of a new account."""

from __future__ import annotations

from datetime import datetime

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction

from billing.models import Account, Membership
from billing.services import open_account


class KnownAlreadyError(Exception):
    """Somebody has signed up with this address before."""


def sign_up(
    *, address: str, password: str, account_name: str, time_zone: str, now: datetime
) -> tuple[User, Account]:
    """Make a user, an account and the user its owner, all or nothing.

    The address is proven: who calls this holds the link that was mailed to it. Raises
    KnownAlreadyError, AccountRefusedError.
    """
    try:
        with transaction.atomic():
            # Under its name an address signs up once, also when the form is sent twice at once.
            user = User.objects.create_user(address, email=address, password=password)
            account = open_account(name=account_name, time_zone=time_zone, now=now)
            Account.objects.filter(pk=account.pk).update(billing_email=address)
            Membership.objects.create(user=user, account=account, role=Membership.Role.OWNER)
    except IntegrityError:
        raise KnownAlreadyError from None
    return user, account
