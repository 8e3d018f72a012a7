"""Asks the platform to stop the sandboxes of capped accounts, and to resume them afterwards."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Final
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef, Subquery, Value
from django.db.models.functions import Coalesce

from billing.models import Account, AccountClosing, BudgetCap
from billing.services import lock_account
from payments.models import Customer, PlatformRequest
from payments.services.one_by_one import try_each
from payments.services.platform_requests import ask_platform

ACCOUNTS_A_SWEEP: Final = 500
LIFTED: Final = "No hard cap of a budget holds any more."
_CAPS = BudgetCap.objects.filter(lifted_at=None)
Action = PlatformRequest.Action


def is_capped(account_id: UUID) -> bool:
    """Return whether a hard cap keeps the account's sandboxes stopped."""
    return _CAPS.filter(account=account_id).exists()


def follow_caps(now: datetime) -> int:
    """Ask the platform what follows from caps, where it was not; return of how many accounts.

    It makes up for whoever capped an account and died before anybody was asked. Safe to repeat.
    """
    last = PlatformRequest.objects.filter(account=OuterRef("pk")).order_by("-pk").values("action")
    # Without any request nothing was asked, so nothing is to be taken back.
    accounts = Account.objects.annotate(last=Coalesce(Subquery(last[:1]), Value("")))
    suspended = Customer.objects.filter(
        account=OuterRef("pk"), standing=Customer.Standing.SUSPENDED
    )
    to_stop = accounts.filter(pk__in=_CAPS.values("account")).exclude(last=Action.STOP)
    to_resume = accounts.filter(
        ~Exists(_CAPS.filter(account=OuterRef("pk"))),
        ~Exists(suspended),
        closing=None,
        last=Action.STOP,
        pk__in=PlatformRequest.objects.filter(action=Action.STOP).values("account"),
    )
    found = {
        *to_stop.values_list("pk", flat=True)[:ACCOUNTS_A_SWEEP],
        *to_resume.values_list("pk", flat=True)[:ACCOUNTS_A_SWEEP],
    }
    return try_each(sorted(found), partial(follow_cap, now=now))


def follow_cap(account_id: UUID, *, now: datetime) -> None:
    """Ask the platform what follows from one account's caps, if it was not asked. Safe to repeat.

    An account that is suspended for unpaid invoices, or is closed, stays stopped. Raises
    Account.DoesNotExist.
    """
    with transaction.atomic():
        account = lock_account(account_id)
        last = PlatformRequest.objects.filter(account=account).order_by("-pk").first()
        is_stopped = last is not None and last.action == Action.STOP
        cap = _CAPS.filter(account=account).order_by("pk").first()
        if cap is not None and not is_stopped:
            reason = f"The hard cap of the budget {cap.budget_name} is reached."
            ask_platform(account, Action.STOP, reason=reason, now=now)
        elif cap is None and is_stopped and not _stays_stopped(account):
            ask_platform(account, Action.RESUME, reason=LIFTED, now=now)


def _stays_stopped(account: Account) -> bool:
    """Return whether something else than a cap has stopped it."""
    suspended = Customer.objects.filter(pk=account.pk, standing=Customer.Standing.SUSPENDED)
    return suspended.exists() or AccountClosing.objects.filter(pk=account.pk).exists()
