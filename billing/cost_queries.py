"""Whose cost it was: any span's exact cost by sandbox or by the value of a label.

Tiers, allowances, packages and minimums count per billing period. So every billing period that
shares time with the span is rated whole, as its invoice is, and each line's exact cost is then
shared out by quantity. What the sandboxes bear, and what is due without any usage, add up to the
span's exact cost; over a whole billing period that is the raw cost of its invoice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Generic, TypeVar
from uuid import UUID

import metering.queries
from billing.attribution import AttributedCost, UsedPart, attribute_cost
from billing.history import (
    UsageNotKeptError,
    billing_periods,
    invoiced_usage,
    refuse_lost_usage,
)
from billing.models import Account
from billing.own_facts import own_facts
from billing.queries import one_snapshot
from billing.rating import rate_usage
from metering.labels import require_label_name
from metering.meters import Meter
from metering.period import Period, window_start

K = TypeVar("K", bound="str | None")

MOST_KEYS = 1000
"""How many keys are told apart in one answer."""


class SpanRefusedError(ValueError):
    """The span cannot be answered for; `field` names the bound that is no good."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


@dataclass(frozen=True, slots=True)
class KeyCost(Generic[K]):
    """What one key bears: exact, in all and by meter."""

    key: K
    cost: Fraction
    cost_by_meter: Mapping[Meter, Fraction]


@dataclass(frozen=True, slots=True)
class OtherCosts:
    """What so many keys bear together."""

    keys: int
    cost: Fraction
    cost_by_meter: Mapping[Meter, Fraction]


@dataclass(frozen=True, slots=True)
class CostsByKey(Generic[K]):
    """The exact cost of a span of time, shared out by key.

    `costs` has the costliest keys, the most first, and `others` the sum of the rest;
    `without_usage` was due where nothing was used. Together they are `raw_cost`.
    """

    period: Period
    currency: str
    costs: Sequence[KeyCost[K]]
    others: OtherCosts
    without_usage: Fraction
    raw_cost: Fraction


def cost_by_sandbox(account_id: UUID, period: Period) -> CostsByKey[str]:
    """Return what the account's `period` cost by sandbox id.

    Raises SpanRefusedError where it is not in whole windows, or where usage of it was invoiced
    that is not kept any more; Account.DoesNotExist.
    """
    used = partial(metering.queries.usage_by_sandbox, account_id)
    return _cost_by(account_id, period, used)


def cost_by_label(account_id: UUID, period: Period, *, name: str) -> CostsByKey[str | None]:
    """Return what the account's `period` cost by the value of a label; None is without it.

    Raises LabelNameError, and what `cost_by_sandbox` raises.
    """
    require_label_name(name)
    used = partial(metering.queries.usage_by_label, account_id, name=name)
    return _cost_by(account_id, period, used)


def _cost_by(
    account_id: UUID, span: Period, used: Callable[[Period], Mapping[K, Mapping[Meter, int]]]
) -> CostsByKey[K]:
    for field in ("start", "end"):
        if window_start(getattr(span, field)) != getattr(span, field):
            raise SpanRefusedError(field, "It has to be at a quarter of an hour, as in 12:15:00.")
    with one_snapshot():
        account = Account.objects.get(pk=account_id)
        invoiced = invoiced_usage(account_id, span)
        costs = [
            _cost_in(account, period, span, used, invoiced.get(period.start, {}))
            for period in billing_periods(account, span)
        ]
    shares = _total(costs)
    by_cost = _largest_first(shares)
    return CostsByKey(
        period=span,
        currency=account.currency,
        costs=by_cost[:MOST_KEYS],
        others=_together(by_cost[MOST_KEYS:]),
        without_usage=shares.without_usage,
        raw_cost=sum((cost.cost for cost in by_cost), start=shares.without_usage),
    )


def _cost_in(
    account: Account,
    period: Period,
    span: Period,
    used: Callable[[Period], Mapping[K, Mapping[Meter, int]]],
    invoiced: Mapping[Meter, int],
) -> AttributedCost[K]:
    """Return what the part of `span` that lies in one billing period cost."""
    priced_usage = own_facts(account, period).usage
    rating = rate_usage(priced_usage, currency=account.currency)
    try:
        refuse_lost_usage(rating, invoiced)
    except UsageNotKeptError:
        raise SpanRefusedError(
            "start",
            f"Usage of the billing period from {period.start} is not kept any more. "
            f"Ask from {period.end} on.",
        ) from None
    parts: dict[Period, UsedPart[K]] = {}
    for whole in priced_usage:
        if part := whole.period.overlap(span):
            is_whole = part == whole.period
            total = whole.usage if is_whole else metering.queries.usage_totals(account.pk, part)
            parts[whole.period] = UsedPart(part, total, used(part))
    return attribute_cost(rating.lines, parts)


def _total(costs: Iterable[AttributedCost[K]]) -> AttributedCost[K]:
    by_key: dict[K, dict[Meter, Fraction]] = {}
    without_usage = Fraction(0)
    for cost in costs:
        without_usage += cost.without_usage
        for key, shares in cost.by_key.items():
            # Most sandboxes live in one billing period only, and have nothing to add.
            if (known := by_key.get(key)) is None:
                by_key[key] = dict(shares)
                continue
            for meter, share in shares.items():
                known[meter] = known.get(meter, Fraction(0)) + share
    return AttributedCost(by_key, without_usage)


def _largest_first(shares: AttributedCost[K]) -> list[KeyCost[K]]:
    costs = [
        KeyCost(key, sum(by_meter.values(), start=Fraction(0)), by_meter)
        for key, by_meter in shares.by_key.items()
    ]
    return sorted(costs, key=lambda cost: (-cost.cost, cost.key is None, cost.key or ""))


def _together(costs: Sequence[KeyCost[K]]) -> OtherCosts:
    by_meter: defaultdict[Meter, Fraction] = defaultdict(Fraction)
    for one in costs:
        for meter, cost in one.cost_by_meter.items():
            by_meter[meter] += cost
    return OtherCosts(len(costs), sum(by_meter.values(), start=Fraction(0)), dict(by_meter))
