"""The credit ledger's writes. Its lines are added, never changed.

Every function that is given an account expects its row to be locked by the caller.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet, Sum

from billing.copying import copy_in
from billing.credits import CreditKind, Draw, unearned_part
from billing.facts import (
    credit_expiry,
    period_containing,
    schedule_of,
    subscribed,
    subscriptions_in,
)
from billing.fees import earned_credits
from billing.models import (
    Account,
    CreditEntry,
    CreditGrant,
    Invoice,
    Subscription,
)
from billing.money import Money
from billing.own_facts import annotated
from billing.services.accounts import lock_account
from metering.log_lines import log_committed
from metering.period import Period

logger = logging.getLogger(__name__)


class CreditRefusedError(ValueError):
    """Credit cannot be given or taken like this; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Gift:
    """Credit that somebody gives: promotional, or prepaid once its money is here.

    `reference` is the giver's own name for it; under it the credit is granted once.
    """

    kind: CreditKind
    amount: Decimal
    reason: str
    reference: str
    effective_at: datetime | None = None
    expires_at: datetime | None = None
    priority: int = 0


@dataclass(frozen=True, slots=True)
class ByHand:
    """What a person says about an entry of theirs."""

    reason: str = ""
    reference: str = ""
    user_id: int | None = None


BY_ITSELF = ByHand()


def grant_credit(
    account_id: UUID, gift: Gift, *, now: datetime, granted_by_id: int | None = None
) -> CreditGrant:
    """Grant promotional or prepaid credit.

    Safe to repeat: the account's grant under this reference is found, and has to be the same
    credit. Raises CreditRefusedError, Account.DoesNotExist.
    """
    with transaction.atomic():
        account = lock_account(account_id)
        grant = CreditGrant.objects.filter(account=account, reference=gift.reference).first()
        # Asked for again it is as good as then, though it may have expired since.
        effective_at = grant.effective_at if grant else gift.effective_at or now
        amount = _checked(gift, account.currency, effective_at)
        if grant is None:
            grant = CreditGrant.objects.create(
                account=account,
                reference=gift.reference,
                kind=gift.kind,
                effective_at=effective_at,
                expires_at=gift.expires_at,
                priority=gift.priority,
                reason=gift.reason,
                granted_by_id=granted_by_id,
                granted_at=now,
            )
            by = ByHand(user_id=granted_by_id)
            append_entry(grant, CreditEntry.Kind.GRANT, amount, now=now, by=by)
            _log("credit granted", grant, amount, by)
        elif (grant.kind, _granted(grant)) != (gift.kind, amount.amount):
            raise CreditRefusedError(
                f"reference {gift.reference!r} is {grant.kind} credit of {_granted(grant)} already."
                " Use another reference for another credit."
            )
    return grant


def revoke_credit(grant_id: int, *, by: ByHand, now: datetime) -> None:
    """Take back what is left of a grant. Safe to repeat. Raises CreditGrant.DoesNotExist."""
    account_id = CreditGrant.objects.values_list("account_id", flat=True).get(pk=grant_id)
    with transaction.atomic():
        account = lock_account(account_id)
        grant = CreditGrant.objects.get(pk=grant_id)
        left = balance_of_grant(grant, account.currency)
        append_entry(grant, CreditEntry.Kind.REVOKE, -left, now=now, by=by)
        _log("credit revoked", grant, left, by)


def grant_monthly_credits(account_id: UUID, *, now: datetime) -> None:
    """Grant the credits of the account's subscriptions for the period that contains `now`.

    Safe to repeat: a subscription brings credit once a period. Raises Account.DoesNotExist.
    """
    with transaction.atomic():
        account = lock_account(account_id)
        grant_period_credits(account, period_containing(account, now), now=now)


def grant_period_credits(account: Account, period: Period, *, now: datetime) -> None:
    """Grant the credits of `period`, by the second where a subscription covers a part of it.

    Safe to repeat. A closed period gets none, and a subscription that has not begun brings none.
    An end that lies ahead may be taken back yet, so it does not count here: what it leaves
    unearned is not spent, and is revoked when the period is finalised.
    """
    if period.start < account.open_period_start:
        return
    schedule = schedule_of(account)
    for row in subscriptions_in(account.pk, period).filter(started_at__lte=now):
        terms = subscribed(row, account.currency)
        if terms.end and terms.end > now and not terms.ends_period:
            terms = replace(terms, end=None)
        earned = earned_credits(terms, period=period, schedule=schedule)
        if not earned:
            continue
        grant, created = CreditGrant.objects.get_or_create(
            subscription=row,
            period_start=period.start,
            defaults={
                "account": account,
                "kind": CreditKind.MONTHLY,
                "period_end": period.end,
                "effective_at": period.start,
                "expires_at": credit_expiry(row, period, schedule),
                "granted_at": now,
            },
        )
        if created:
            append_entry(grant, CreditEntry.Kind.GRANT, earned, now=now)


def grant_period_credits_of(accounts: Iterable[Account], *, now: datetime) -> None:
    """Grant the credits of each account's open period that were not granted yet. Repeatable."""
    granted = CreditGrant.objects.filter(
        subscription=OuterRef("pk"), period_start=OuterRef("account__open_period_start")
    )
    lacking = Subscription.objects.filter(
        ~Exists(granted),
        Q(expires_at__isnull=True) | Q(expires_at__gt=F("account__open_period_start")),
        account__in=accounts,
        monthly_credits__gt=0,
        started_at__lte=now,
        started_at__lt=F("account__open_period_end"),
    )
    # Mostly none: they came when the period began.
    for account in _among(accounts, lacking):
        grant_period_credits(account, account.open_period, now=now)


def revoke_unearned_credits_of(accounts: Iterable[Account], *, now: datetime) -> None:
    """Do what `revoke_unearned_credits` does for each account's open period."""
    granted_ahead = CreditGrant.objects.filter(
        account__in=accounts,
        period_start=F("account__open_period_start"),
        subscription__expires_at__isnull=False,
    )
    for account in _among(accounts, granted_ahead):
        revoke_unearned_credits(account, account.open_period, now=now)


def _among(
    accounts: Iterable[Account], rows: QuerySet[Subscription] | QuerySet[CreditGrant]
) -> list[Account]:
    """Return those of the accounts that the rows are about."""
    wanted = set(rows.values_list("account_id", flat=True))
    return [account for account in accounts if account.pk in wanted]


def revoke_unearned_credits(account: Account, period: Period, *, now: datetime) -> None:
    """Take back the credits of `period` for time that a subscription turned out not to cover.

    Or for time that is not in the period any more, which a provider's took over.

    Safe to repeat. No more is taken than is left.
    """
    schedule = schedule_of(account)
    grants = CreditGrant.objects.filter(
        account=account, period_start=period.start, subscription__isnull=False
    ).select_related("subscription__plan")
    for grant in grants:
        if grant.subscription is None:
            continue
        terms = subscribed(grant.subscription, account.currency)
        earned = earned_credits(terms, period=period, schedule=schedule)
        taken = unearned_part(
            granted=Money(_granted(grant), account.currency),
            earned=earned,
            balance=balance_of_grant(grant, account.currency),
        )
        append_entry(grant, CreditEntry.Kind.REVOKE, -taken, now=now)


def use_credits(paid: Iterable[tuple[Invoice, Iterable[Draw]]], *, now: datetime) -> None:
    """Pay invoices with credit. Raises CreditRefusedError when a grant holds less than that."""
    draws = [(invoice, drawn) for invoice, of_invoice in paid for drawn in of_invoice]
    balances = _balances([granted_id(drawn) for _, drawn in draws])
    entries = []
    for invoice, drawn in draws:
        grant_id = granted_id(drawn)
        left = balances.get((invoice.account_id, grant_id), Decimal(0))
        if left < drawn.amount.amount:
            raise CreditRefusedError(f"Credit {grant_id} holds {left}, not {drawn.amount}.")
        entries.append(
            CreditEntry(
                grant_id=grant_id,
                kind=CreditEntry.Kind.USE,
                amount=-drawn.amount.amount,
                recorded_at=now,
                invoice=invoice,
            )
        )
    copy_in(entries)


def expire_credits(account: Account, *, now: datetime) -> None:
    """Let the credits lapse that no open period of the account may use any more.

    Safe to repeat. A credit outlives its expiry until the periods it may pay for are closed.
    """
    expire_credits_of([account], now=now)


def expire_credits_of(accounts: Iterable[Account], *, now: datetime) -> None:
    """Do what `expire_credits` does, for many accounts."""
    copy_in(
        [
            CreditEntry(
                grant=grant,
                kind=CreditEntry.Kind.EXPIRE,
                amount=-balance,
                recorded_at=now,
            )
            for grant in _lapsed(CreditGrant.objects.filter(account__in=accounts), now)
            if (balance := annotated(grant, "balance"))
        ]
    )


def expire_due_credits_of(account_id: UUID, *, now: datetime) -> None:
    """Let the account's credits lapse that are due to. Safe to repeat."""
    with transaction.atomic():
        expire_credits(lock_account(account_id), now=now)


def accounts_with_lapsed_credit(now: datetime) -> QuerySet[CreditGrant, UUID]:
    """Return the accounts that hold credit which no open period may use any more."""
    return _lapsed(CreditGrant.objects.filter(account__parked_reason=""), now).values_list(
        "account_id", flat=True
    )


def balance_of_grant(grant: CreditGrant, currency: str) -> Money:
    """Return what is left of a grant: the sum of its entries."""
    balance: Decimal | None = grant.entries.aggregate(balance=Sum("amount"))["balance"]
    return Money(balance or Decimal(0), currency)


def _lapsed(grants: QuerySet[CreditGrant], now: datetime) -> QuerySet[CreditGrant]:
    return (
        grants.filter(expires_at__lte=now, account__open_period_start__gte=F("expires_at"))
        .annotate(balance=Sum("entries__amount"))
        .filter(balance__gt=0)
    )


def _checked(gift: Gift, currency: str, effective_at: datetime) -> Money:
    if gift.kind is CreditKind.MONTHLY:
        raise CreditRefusedError("kind is monthly. Such credit comes with a subscription only.")
    if not gift.reference or not gift.reason:
        raise CreditRefusedError("Give the credit a reference of yours and a reason.")
    if gift.expires_at and gift.expires_at <= effective_at:
        raise CreditRefusedError(
            f"expires_at is {gift.expires_at}. Use a time after {effective_at}, or none."
        )
    return whole_cents(gift.amount, currency)


def whole_cents(amount: Decimal, currency: str) -> Money:
    """Return an amount that a person named. Anything smaller than a cent could not be invoiced."""
    if amount.is_finite() and amount > 0:
        named = Money(amount, currency)
        if named.times(Decimal(1)) == named:
            return named
    raise CreditRefusedError(f"amount is {amount}. Use whole cents, above 0.")


def granted_id(drawn: Draw) -> int:
    """Return the key of the grant that is drawn on. Raises CreditRefusedError before it has one."""
    if drawn.credit_id is None:
        raise CreditRefusedError(f"{drawn.amount} are of a credit that is not granted yet.")
    return drawn.credit_id


def _balances(grant_ids: Iterable[int]) -> dict[tuple[UUID, int], Decimal]:
    """Return what is left of each grant, by its account and key."""
    rows = (
        CreditGrant.objects.filter(pk__in=grant_ids)
        .annotate(balance=Sum("entries__amount"))
        .values_list("account_id", "pk", "balance")
    )
    return {(account_id, key): balance or Decimal(0) for account_id, key, balance in rows}


def _granted(grant: CreditGrant) -> Decimal:
    amounts = grant.entries.filter(kind__in=[CreditEntry.Kind.GRANT, CreditEntry.Kind.REVOKE])
    return amounts.aggregate(granted=Sum("amount"))["granted"] or Decimal(0)


def _log(event: str, grant: CreditGrant, amount: Money, by: ByHand) -> None:
    log_committed(
        logger,
        event,
        grant_id=grant.pk,
        account_id=grant.account_id,
        kind=grant.kind,
        amount=amount.text,
        currency=amount.currency,
        user_id=by.user_id,
    )


def append_entry(
    grant: CreditGrant,
    kind: CreditEntry.Kind,
    amount: Money,
    *,
    now: datetime,
    invoice: Invoice | None = None,
    by: ByHand = BY_ITSELF,
) -> None:
    """Write a line of the ledger; none about nothing."""
    if amount:
        CreditEntry.objects.create(
            grant=grant,
            kind=kind,
            amount=amount.amount,
            recorded_at=now,
            invoice=invoice,
            reference=by.reference,
            reason=by.reason,
            recorded_by_id=by.user_id,
        )
