"""Closes accounts: what runs ends, the last period is invoiced and paid, what is left goes back.

Asked for, then ended, then closed. A sweep takes each account on, one step when it can be taken,
under the account's lock; until then `waiting_for` says what is in the way.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db import transaction
from django.db.models import F, QuerySet, Sum

import metering.queries
import metering.services
from billing.letters import Content, moment_text
from billing.models import Account, AccountClosing, ApiKey, CreditGrant, Invoice, MailMessage
from billing.models.members import OPEN
from billing.money import Money
from billing.services.accounts import lock_account
from billing.services.credits import ByHand, revoke_credit
from billing.services.invitations import invitations_of
from billing.services.messages import Notice, write_messages
from billing.services.subscriptions import end_for_good, refuse_committed
from billing.services.terms import SubscriptionRefusedError
from billing.services.top_ups import prepaid_balance
from billing.services.trying import try_account
from metering.bearer_keys import revoke_keys

READABLE_FOR = timedelta(days=365)
"""So long after an account is closed its members may read it."""
ACCOUNTS_A_SWEEP = 200
REASON = "The account is closed"
_S = Invoice.Status
COLLECTED = (_S.PENDING, _S.PAYMENT_FAILED, _S.PENDING_RETRY)
"""Of an invoice: money is asked for."""
UNPAID = (*COLLECTED, _S.UNCOLLECTIBLE)
_NAMED = 5
"""Invoices or sandboxes that a message names."""
_LONGEST = 500


class ClosingRefusedError(ValueError):
    """The account cannot be closed yet; the message says what is in the way."""


class UnpaidError(ClosingRefusedError):
    """An invoice of the account is not paid."""


class SandboxesRunError(ClosingRefusedError):
    """Sandboxes of the account run, and nobody asked for them to be stopped."""


StopSandboxes = Callable[[Account, str, datetime], object]
"""Asks the platform to stop an account's sandboxes, for a reason. The account is locked."""
RefundPrepaid = Callable[[Account, datetime], str]
"""Gives back what prepaid credit can go back; says what is waited for, or "". The same."""

_stoppers: list[StopSandboxes] = []
_refunders: list[RefundPrepaid] = []


def register_stopper(stop: StopSandboxes) -> None:
    """Let `stop` be asked for the sandboxes of an account that closes. Safe to repeat."""
    if stop not in _stoppers:
        _stoppers.append(stop)


def register_refunder(refund: RefundPrepaid) -> None:
    """Let `refund` give back the prepaid credit of an account that closes. Safe to repeat.

    It is called again and again until no credit is left, and must not wait for anything.
    """
    if refund not in _refunders:
        _refunders.append(refund)


def close_account(
    account_id: UUID,
    *,
    now: datetime,
    reason: str = "",
    user_id: int | None = None,
    stop_sandboxes: bool = False,
) -> AccountClosing:
    """Begin to close an account: no sandbox, plan, key or member is added from now on.

    With nothing running its last period ends with this window. With `stop_sandboxes` the platform
    is asked to stop what runs, and the period ends when nothing does. Safe to repeat. Raises
    ClosingRefusedError, Account.DoesNotExist.
    """
    with transaction.atomic():
        account = lock_account(account_id)
        if account.closing_at:
            return AccountClosing.objects.get(account=account)
        running = _refuse_open_ends(account, now, stop_sandboxes=stop_sandboxes)
        account.closing_at = now
        account.top_up_threshold = account.top_up_amount = None
        account.save(update_fields=["closing_at", "top_up_threshold", "top_up_amount"])
        closing = AccountClosing.objects.create(
            account=account, asked_at=now, asked_by_id=user_id, reason=reason[:200]
        )
        metering.services.close_account(account_id, now=now)
        invitations_of(account_id).filter(OPEN).update(withdrawn_at=now)
        if running:
            for stop in _stoppers:
                stop(account, REASON, now)
            _wait(closing, _still_running(running), now=now)
        else:
            _end(account, now=now)
        write_messages([_notice(account, MailMessage.Kind.ACCOUNT_CLOSING, now)], now=now)
    return closing


def advance_closings(now: datetime) -> int:
    """Take each account that is being closed a step on, where it can be; return how many.

    Safe to repeat, and at once.
    """
    due = (
        AccountClosing.objects.filter(account__closed_at=None, account__parked_reason="")
        .order_by(F("tried_at").asc(nulls_first=True), "account")
        .values_list("account_id", flat=True)[:ACCOUNTS_A_SWEEP]
    )
    return sum(
        try_account(account_id, partial(advance_closing, account_id, now=now), now=now)
        for account_id in due
    )


def advance_closing(account_id: UUID, *, now: datetime) -> AccountClosing:
    """Take an account that is being closed a step on, if it can be. Safe to repeat.

    Raises AccountClosing.DoesNotExist when nobody asked to close it.
    """
    with transaction.atomic():
        account = lock_account(account_id)
        closing = AccountClosing.objects.get(account=account)
        if account.closed_at:
            return closing
        if account.ends_at is None:
            if running := metering.queries.running_sandboxes(account_id):
                return _wait(closing, _still_running(running), now=now)
            _end(account, now=now)
        waiting_for = _unsettled(account, now)
        if not waiting_for:
            _close(account, now=now)
        return _wait(closing, waiting_for, now=now)


def _refuse_open_ends(account: Account, now: datetime, *, stop_sandboxes: bool) -> list[str]:
    """Raise ClosingRefusedError when something is in the way; return the sandboxes that run."""
    if unpaid := _numbers(account.invoices.filter(status__in=UNPAID)):
        raise UnpaidError(f"Not paid: {unpaid}. Pay first.")
    try:
        refuse_committed(account, now)
    except SubscriptionRefusedError as error:
        raise ClosingRefusedError(str(error)) from None
    running = metering.queries.running_sandboxes(account.pk)
    if running and not stop_sandboxes:
        raise SandboxesRunError(
            f"{_still_running(running)} Stop them, or say stop_sandboxes to have them stopped."
        )
    return running


def _end(account: Account, *, now: datetime) -> None:
    """End the last period with this window. The billing run makes its final invoice."""
    account.ends_at = end_for_good(account, now=now)
    account.save(update_fields=["ends_at"])


def _unsettled(account: Account, now: datetime) -> str:
    """Return what has to be settled before the account is closed, or ""."""
    if account.ends_at is None or account.open_period_start < account.ends_at:
        return "The last period is not invoiced yet."
    if unpaid := _numbers(account.invoices.filter(status__in=COLLECTED)):
        return f"Not paid: {unpaid}."
    if account.top_ups.filter(grant=None, given_up_at=None).exists():
        return "A top-up is being paid. Give it up if it will not be."
    for refund in _refunders:
        if waiting_for := refund(account, now):
            return waiting_for
    if left := prepaid_balance(account):
        return (
            f"{Money(left, account.currency)} of prepaid credit came of no payment that can go "
            "back by itself. Refund it by hand, or revoke it."
        )
    return ""


def _close(account: Account, *, now: datetime) -> None:
    left = CreditGrant.objects.filter(account=account).alias(left=Sum("entries__amount"))
    for grant_id in left.filter(left__gt=0).values_list("pk", flat=True):
        revoke_credit(grant_id, by=ByHand(reason=REASON), now=now)
    revoke_keys(ApiKey.objects.filter(account=account), now=now)
    account.closed_at = now
    account.save(update_fields=["closed_at"])
    write_messages([_notice(account, MailMessage.Kind.ACCOUNT_CLOSED, now)], now=now)


def _wait(closing: AccountClosing, waiting_for: str, *, now: datetime) -> AccountClosing:
    closing.waiting_for, closing.tried_at = waiting_for[:_LONGEST], now
    closing.save(update_fields=["waiting_for", "tried_at"])
    return closing


def _numbers(invoices: QuerySet[Invoice]) -> str:
    numbers = invoices.order_by("pk").values_list("number", flat=True)[: _NAMED + 1]
    return _some([str(number) for number in numbers])


def _still_running(sandboxes: list[str]) -> str:
    return f"Sandboxes run: {_some(sorted(sandboxes))}."


def _some(names: list[str]) -> str:
    more = " and more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _notice(account: Account, kind: MailMessage.Kind, now: datetime) -> Notice:
    zone = ZoneInfo(account.time_zone)
    if kind == MailMessage.Kind.ACCOUNT_CLOSED:
        subject = f"{account.name} is closed"
        facts = [("Readable until", moment_text(now + READABLE_FOR, zone))]
    else:
        subject = f"{account.name} is being closed"
        ends_at = account.ends_at
        facts = [
            ("Last period ends", moment_text(ends_at, zone) if ends_at else "when all is stopped")
        ]
    return Notice(
        account=account,
        kind=kind,
        about=str(account.pk),
        content=Content(
            template=str(kind.value), subject=subject, account_name=account.name, facts=facts
        ),
    )
