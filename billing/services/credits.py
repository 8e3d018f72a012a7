from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from uuid import UUID

from django.db import transaction
from django.db.models import DecimalField, QuerySet, Sum, Value
from django.db.models.functions import Coalesce

from billing.models import Account, CreditEntry, CreditGrant, Invoice, Subscription
from billing.money import Money
from billing.periods import month_containing
from billing.proration import share
from billing.queries import subscriptions_in
from billing.services.accounts import lock_account
from metering.period import Period


def grant_monthly_credits(account_id: UUID, *, now: datetime) -> None:
    """Grant the credits of the account's subscriptions for the month that contains `now`.

    Safe to repeat: a subscription brings credit once a period. Raises Account.DoesNotExist.
    """
    with transaction.atomic():
        account = lock_account(account_id)
        grant_period_credits(account, month_containing(now, account.zone), now=now)


def grant_period_credits(account: Account, period: Period, *, now: datetime) -> None:
    """Grant the credits of `period`, by the second where a subscription covers a part of it.

    Safe to repeat. A closed period gets none. The caller has locked the account.
    """
    if period.start < account.open_period_start:
        return
    for subscription in subscriptions_in(account.pk, period):
        if not subscription.monthly_credits:
            continue
        grant, created = CreditGrant.objects.get_or_create(
            subscription=subscription,
            period_start=period.start,
            defaults={"period_end": period.end},
        )
        if created:
            amount = _credits_for(subscription, period, account.currency)
            _append(grant, CreditEntry.Kind.GRANT, amount, now=now)


def revoke_unused_part(account: Account, subscription: Subscription, *, now: datetime) -> None:
    """Take back the credits for the time after a subscription's end, which is set already.

    The caller has locked the account.
    """
    for grant in subscription.credit_grants.filter(period_end__gt=subscription.ended_at):
        period = Period(grant.period_start, grant.period_end)
        earned = _credits_for(subscription, period, account.currency)
        balance = _balance_of(grant, account.currency)
        _append(grant, CreditEntry.Kind.REVOKE, earned - balance, now=now)


def use_credits(account: Account, invoice: Invoice, amount: Money, *, now: datetime) -> None:
    """Pay `amount` of a period's usage from that period's credits, the oldest first.

    The caller has locked the account. Raises ValueError when there is less than that.
    """
    left = amount
    for grant in _grants_of(account, invoice.period):
        taken = min(left, _balance_of(grant, account.currency))
        _append(
            grant,
            CreditEntry.Kind.USE,
            Money.zero(account.currency) - taken,
            now=now,
            invoice=invoice,
        )
        left -= taken
    if left.amount:
        raise ValueError(f"Account {account.pk} lacks {left} of the credits for {invoice.period}.")


def expire_credits(account: Account, period: Period, *, now: datetime) -> None:
    """Let what is left of a period's credits lapse. The caller has locked the account."""
    for grant in _grants_of(account, period):
        left = Money.zero(account.currency) - _balance_of(grant, account.currency)
        _append(grant, CreditEntry.Kind.EXPIRE, left, now=now)


def _grants_of(account: Account, period: Period) -> QuerySet[CreditGrant]:
    return CreditGrant.objects.filter(
        subscription__account=account, period_start=period.start
    ).order_by("id")


def _credits_for(subscription: Subscription, period: Period, currency: str) -> Money:
    part = subscription.part_of(period)
    earned = share(part, period) if part else Fraction(0)
    return Money.rounded(Fraction(subscription.monthly_credits) * earned, currency)


def _balance_of(grant: CreditGrant, currency: str) -> Money:
    balance: Decimal = grant.entries.aggregate(
        balance=Coalesce(Sum("amount"), Value(Decimal(0)), output_field=DecimalField())
    )["balance"]
    return Money(balance, currency)


def _append(
    grant: CreditGrant,
    kind: CreditEntry.Kind,
    amount: Money,
    *,
    now: datetime,
    invoice: Invoice | None = None,
) -> None:
    if amount.amount:  # The ledger has no lines about nothing.
        CreditEntry.objects.create(
            grant=grant, kind=kind, amount=amount.amount, recorded_at=now, invoice=invoice
        )
