"""Usage and its exact cost over time: by hour, local day or month, and by sandbox or label.

A closed period cost what its invoice says, the others what they come to as known now; that is
shared out over the period's slices by quantity. So buckets that make up a billing period sum to
its raw cost, to the last digit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from uuid import UUID

from billing.account_terms import read_terms
from billing.history import billing_periods
from billing.models import Account
from billing.period_costs import period_costs
from billing.queries import one_snapshot
from billing.rating import exact_sum
from billing.slice_costs import Costs, cost_of_days, cost_of_hours
from billing.usage_buckets import (
    Asked,
    Granularity,
    HistoryRefusedError,
    Plan,
    buckets_of,
    cut_days,
    cut_hours,
    refuse_dropped,
)
from metering.calendars import calendar_of
from metering.meters import Meter
from metering.period import EPOCH, Period
from metering.used_slices import Used, costliest_keys, usage_of_keys

__all__ = [
    "Asked",
    "Bucket",
    "Granularity",
    "History",
    "HistoryRefusedError",
    "Share",
    "usage_history",
]

MOST_CELLS = 20_000
"""How many rows of groups one answer may have."""
_ZERO = Fraction(0)


@dataclass(frozen=True, slots=True)
class Share:
    """What was used and what it cost: exact, in base units."""

    usage: dict[Meter, int]
    cost_by_meter: dict[Meter, Fraction]

    @property
    def cost(self) -> Fraction:
        """The exact cost of all meters."""
        return exact_sum(self.cost_by_meter.values())


@dataclass(frozen=True, slots=True)
class Bucket:
    """One hour, day or month. `groups` and `other` sum to the whole, less `without_usage`."""

    period: Period
    whole: Share
    without_usage: Fraction
    groups: Sequence[tuple[str | None, Share]]
    other: Share | None


@dataclass(frozen=True, slots=True)
class History:
    """The buckets in order, and how many groups there are in all of them together."""

    period: Period
    time_zone: str
    currency: str
    buckets: Sequence[Bucket]
    group_count: int


def usage_history(account_id: UUID, asked: Asked, *, now: datetime) -> History:
    """Return what the account used and what it cost, bucket by bucket, up to `now`.

    Buckets that have not begun are left out. Raises HistoryRefusedError, Account.DoesNotExist.
    """
    with one_snapshot():
        account = Account.objects.get(pk=account_id)
        calendar = calendar_of(account_id)
        buckets = list(buckets_of(asked, calendar, now))
        if not buckets:
            raise HistoryRefusedError("start_date", "It lies ahead.")
        if asked.grouping and len(buckets) * (asked.most + 1) > MOST_CELLS:
            raise HistoryRefusedError(
                "top",
                f"{len(buckets)} buckets of {asked.most} groups are too many. Ask for fewer "
                f"groups or days: at most {MOST_CELLS:,} rows are given at once.",
            )
        whole = Period(buckets[0].start, buckets[-1].end)
        terms = read_terms([account], since=EPOCH)
        periods = billing_periods(account, whole, schedule=terms.schedule_of(account))
        spans = period_costs(account, periods, terms=terms)
        if asked.granularity is Granularity.HOUR:
            refuse_dropped(whole, now)
            plan = cut_hours(account_id, buckets, periods, spans)
            used, costs, without = cost_of_hours(plan, spans)
        else:
            plan = cut_days(account_id, buckets, periods, spans, calendar, now)
            plan, used, costs, without = cost_of_days(account, plan, periods, spans)
        return _put_together(
            asked, plan, used, costs, without, currency=account.currency, zone=account.time_zone
        )


def _put_together(
    asked: Asked,
    plan: Plan,
    used: Used,
    costs: Costs,
    without: dict[int, Fraction],
    *,
    currency: str,
    zone: str,
) -> History:
    by_key: dict[str | None, tuple[Used, Costs]] = {}
    count = 0
    if asked.grouping:
        prices = {
            at: {m: cost / used[at][m] for m, cost in by_meter.items() if used.get(at, {}).get(m)}
            for at, by_meter in costs.items()
            if plan.bucket_of[at] is not None
        }
        slices, places = plan.slices, plan.asked
        keys, count = costliest_keys(slices, asked.grouping, prices, asked=places, most=asked.most)
        for key, of_key in usage_of_keys(slices, asked.grouping, keys, asked=places).items():
            priced = {
                at: {m: prices[at][m] * q for m, q in usage.items() if m in prices.get(at, {})}
                for at, usage in of_key.items()
            }
            by_key[key] = of_key, priced
    wholes = _by_bucket(plan, used, costs)
    dues = [_ZERO] * len(plan.buckets)
    for at, due in without.items():
        if (bucket := plan.bucket_of[at]) is not None:
            dues[bucket] += due
    shares = {key: _by_bucket(plan, *of_key) for key, of_key in by_key.items()}
    buckets = []
    for at, period in enumerate(plan.buckets):
        groups = [(key, share) for key, of_key in shares.items() if (share := of_key[at]).usage]
        other = _rest(wholes[at], [share for _, share in groups]) if asked.grouping else None
        buckets.append(Bucket(period, wholes[at], dues[at], groups, other))
    return History(
        Period(plan.buckets[0].start, plan.buckets[-1].end), zone, currency, buckets, count
    )


def _by_bucket(plan: Plan, used: Used, costs: Costs) -> list[Share]:
    shares = [Share({}, {}) for _ in plan.buckets]
    for at, bucket in enumerate(plan.bucket_of):
        if bucket is None:
            continue
        share = shares[bucket]
        for meter, quantity in used.get(at, {}).items():
            share.usage[meter] = share.usage.get(meter, 0) + quantity
        for meter, cost in costs.get(at, {}).items():
            known = share.cost_by_meter.get(meter)
            share.cost_by_meter[meter] = cost if known is None else known + cost
    return shares


def _rest(whole: Share, groups: Sequence[Share]) -> Share:
    usage, costs = dict(whole.usage), dict(whole.cost_by_meter)
    for group in groups:
        for meter, quantity in group.usage.items():
            usage[meter] -= quantity
        for meter, cost in group.cost_by_meter.items():
            costs[meter] -= cost
    return Share(
        {meter: quantity for meter, quantity in usage.items() if quantity},
        {meter: cost for meter, cost in costs.items() if cost},
    )
