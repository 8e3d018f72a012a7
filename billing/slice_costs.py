"""What slices of time used, and what each of them bears of what billing periods cost."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from fractions import Fraction
from itertools import pairwise
from typing import TypeAlias

from billing.cost_flow import CostedSpan, share_in_order
from billing.models import Account
from billing.period_costs import MeterSpan
from billing.usage_buckets import Plan
from metering.meters import Meter
from metering.period import Period, window_start
from metering.used_slices import Used, usage_of_slices

_ZERO = Fraction(0)

Costs: TypeAlias = dict[int, dict[Meter, Fraction]]
"""What each slice cost, by meter."""


def cost_of_hours(
    plan: Plan, spans: Sequence[MeterSpan]
) -> tuple[Used, Costs, dict[int, Fraction]]:
    """Return what each slice used and cost: each lies in one span of each meter."""
    used = usage_of_slices(plan.slices)
    costs: Costs = {}
    without: dict[int, Fraction] = {}
    bounds = [*plan.slices.starts, plan.slices.end]
    for at, (start, end) in enumerate(pairwise(bounds)):
        for span in spans:
            if start not in span.period:
                continue
            if span.quantity:
                quantity = used.get(at, {}).get(span.meter, 0)
                if quantity and span.cost:
                    cost = span.cost * quantity / span.quantity
                    costs.setdefault(at, {})[span.meter] = cost
            elif window_start(end) >= span.period.end:
                without[at] = without.get(at, _ZERO) + span.cost
    return used, costs, without


def cost_of_days(
    account: Account, plan: Plan, periods: Sequence[Period], spans: Sequence[MeterSpan]
) -> tuple[Plan, Used, Costs, dict[int, Fraction]]:
    """Return the plan, and what each slice used and cost.

    Summaries follow the records within the hour. Where those of the open period are behind, its
    days are taken from the records instead, and the plan that is returned says so.
    """
    used = usage_of_slices(plan.slices)
    open_start = account.open_period_start
    if not _adds_up(plan, used, spans, since=open_start):
        slices = plan.slices
        fresh = min(open_start, slices.records_from)
        # A day in which the open period begins is one slice, and comes from records whole.
        first = max(0, bisect_right(slices.starts, fresh) - 1)
        slices = replace(
            slices, records_from=slices.starts[first], records_day=slices.first_days[first]
        )
        plan = Plan(slices, plan.bucket_of, plan.buckets)
        used = usage_of_slices(slices)
    costs: Costs = {}
    without: dict[int, Fraction] = {}
    for first, last, chunk in _chunks(plan, periods):
        for meter in Meter:
            of_meter = [s for s in spans if s.meter is meter and s.period.start in chunk]
            if not of_meter:
                continue
            shared = share_in_order(
                [CostedSpan(span.quantity, span.cost) for span in of_meter],
                [used.get(at, {}).get(meter, 0) for at in range(first, last)],
            )
            for at, cost in enumerate(shared.costs, start=first):
                if cost:
                    costs.setdefault(at, {})[meter] = cost
            if shared.without_usage:
                without[last - 1] = without.get(last - 1, _ZERO) + shared.without_usage
    return plan, used, costs, without


def _adds_up(plan: Plan, used: Used, spans: Sequence[MeterSpan], *, since: datetime) -> bool:
    """Return whether the slices since then hold what is charged for."""
    starts = plan.slices.starts
    charged: dict[Meter, int] = {}
    for span in spans:
        if span.period.start >= since:
            charged[span.meter] = charged.get(span.meter, 0) + span.quantity
    found = dict.fromkeys(charged, 0)
    for at, by_meter in used.items():
        if starts[at] >= since:
            for meter in charged:
                found[meter] += by_meter.get(meter, 0)
    return found == charged


def _chunks(plan: Plan, periods: Sequence[Period]) -> Iterator[tuple[int, int, Period]]:
    """Yield the slices, from one to before another, of billing periods that share no slice.

    Mostly of one period; more where one ends inside a day.
    """
    places = {start: at for at, start in enumerate(plan.slices.starts)}
    begun, first = None, 0
    for period in periods:
        if begun is None and period.start < plan.slices.end:
            begun, first = period, _place_of(plan, period.start)
        if begun and (period.end in places or period is periods[-1]):
            last = places.get(period.end, len(plan.slices.starts))
            yield first, last, Period(begun.start, period.end)
            begun = None


def _place_of(plan: Plan, moment: datetime) -> int:
    return max(0, sum(start <= moment for start in plan.slices.starts) - 1)
