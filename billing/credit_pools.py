"""Which credits may pay a closed period's usage, and what it has spent of each so far."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal

from django.db.models import Q, Sum

from billing.adjustments import Component, CreditMove, CreditPool
from billing.credits import USAGE_CREDITS, Credit, CreditKind, usage_credit_for
from billing.history import BILLING_A_PERIOD
from billing.lifecycle import NOT_FINAL
from billing.models import (
    Account,
    Correction,
    CorrectionLine,
    CreditEntry,
    CreditGrant,
    InvoiceAdjustment,
)
from billing.money import Money
from metering.period import Period


def credit_pools(
    account: Account, period: Period, moves: Sequence[CreditMove] = ()
) -> list[CreditPool]:
    """Return the credits that may pay the closed period's usage, in the order they are used.

    As the ledger has them, and as `moves` for earlier periods leave them.
    """
    used = _used_by_grant(account, period)
    grants = (
        CreditGrant.objects.filter(
            account=account, kind__in=USAGE_CREDITS, effective_at__lt=period.end
        )
        .filter(Q(expires_at__isnull=True) | Q(expires_at__gt=period.start))
        .annotate(
            balance=Sum("entries__amount"),
            lapsed=Sum("entries__amount", filter=Q(entries__kind__in=["expire", "restore"])),
        )
    )
    pools = {}
    for grant in grants:
        moved = [move for move in moves if move.credit.credit_id == grant.pk]
        balance = Money(grant.balance or Decimal(0), account.currency)
        expired = Money(-(grant.lapsed or Decimal(0)), account.currency)
        for move in moved:
            balance += move.returned - move.used
            expired -= move.restored
        credit = Credit(
            credit_id=grant.pk,
            kind=CreditKind(grant.kind),
            balance=balance,
            effective_at=grant.effective_at,
            expires_at=grant.expires_at,
            priority=grant.priority,
        )
        spent = Money(used.get(grant.pk, Decimal(0)), account.currency)
        pools[credit] = CreditPool(credit, expired, spent)
    return [pools[credit] for credit in usage_credit_for(pools, period)]


def _used_by_grant(account: Account, period: Period) -> dict[int, Decimal]:
    """Return what the closed period has spent of each grant, on its invoice and on later ones."""
    used: defaultdict[int, Decimal] = defaultdict(Decimal)
    paid = (
        CreditEntry.objects.filter(
            kind=CreditEntry.Kind.USE,
            grant__kind__in=USAGE_CREDITS,
            invoice__account=account,
            invoice__kind__in=BILLING_A_PERIOD,
            invoice__period_start=period.start,
            invoice__period_end=period.end,
        )
        .exclude(invoice__status__in=NOT_FINAL)
        .values_list("grant_id", "amount")
    )
    for grant_id, amount in paid:
        used[grant_id] -= amount
    adjusted = (
        InvoiceAdjustment.objects.filter(
            component=Component.CREDIT,
            line__invoice__account=account,
            billing_period_start=period.start,
            billing_period_end=period.end,
            # Of a correction the credit moved when it was applied, wherever its lines are.
            correction_line__isnull=True,
        )
        .exclude(line__invoice__status__in=NOT_FINAL)
        .values_list("grant_id", "line__amount")
    )
    corrected = CorrectionLine.objects.filter(
        component=Component.CREDIT,
        correction__status=Correction.Status.APPLIED,
        correction__invoice__account=account,
        correction__invoice__period_start=period.start,
        correction__invoice__period_end=period.end,
    ).values_list("grant_id", "amount")
    for grant_id, amount in (*adjusted, *corrected):
        # Of credit, so that it names its grant.
        used[grant_id or 0] -= amount
    return used
