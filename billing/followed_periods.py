"""Reads which periods of a payment provider accounts follow, while it collects their fee."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

from django.db.models import Q

from billing.models import ProviderPeriod, Subscription
from billing.periods import Followed


def followed_by(account_ids: Collection[UUID]) -> dict[UUID, tuple[Followed, ...]]:
    """Return the provider's periods that accounts follow, of those that follow any."""
    told: defaultdict[UUID, list[ProviderPeriod]] = defaultdict(list)
    for period in ProviderPeriod.objects.filter(account__in=account_ids).order_by("id"):
        told[period.account_id].append(period)
    rows: defaultdict[UUID, list[Subscription]] = defaultdict(list)
    if told:
        of_them = Subscription.objects.filter(account__in=told).order_by("started_at")
        for row in of_them.filter(Q(ends_period=True) | ~Q(provider_price_id="")):
            rows[row.account_id].append(row)
    return {account_id: _follow(periods, rows[account_id]) for account_id, periods in told.items()}


def _follow(told: Sequence[ProviderPeriod], rows: Sequence[Subscription]) -> tuple[Followed, ...]:
    """Return what is followed of the periods that were told, in their order."""
    cuts = [row.expires_at for row in rows if row.ends_period and row.expires_at]
    followed = []
    for number, one in enumerate(told):
        # A later one takes over, or everything was cancelled at once.
        stops = [cut for cut in cuts if cut > one.holds_from]
        stops += [later.holds_from for later in told[number + 1 : number + 2]]
        stop = min(stops, default=None)
        if stop is None or stop > one.holds_from:
            renewed = _collected_from(one.ends_at, rows)
            followed.append(Followed(one.period, one.holds_from, stop, renewed))
    return tuple(followed)


def _collected_from(moment: datetime, rows: Sequence[Subscription]) -> datetime | None:
    """Return up to when the provider collects without a break from `moment` on.

    That is `moment` itself where it does not, and None where there is no end.
    """
    until = moment
    for row in rows:
        if row.provider_collects and row.started_at <= until:
            if row.expires_at is None:
                return None
            until = max(until, row.expires_at)
    return until
