from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

from billing.proration import whole_seconds
from billing.rating import PricedUsage
from metering.meters import Meter
from metering.period import Period


def forecast_usage(
    spans: Sequence[PricedUsage], *, now: datetime, since: datetime | None = None
) -> tuple[PricedUsage, ...]:
    """Return a period's usage as it ends if it goes on at its own rate so far.

    Linear: each meter's usage so far ÷ seconds so far × seconds left, spread over the spans that
    are left, each at its own prices; whole base units, rounded down, and together as if in one.
    `spans` cover the period in order. `since` is when usage could begin, if that was after the
    period's start. Nothing is added before the first second is over.
    """
    now = now.replace(microsecond=0)
    start, end = spans[0].period.start, spans[-1].period.end
    if since:
        start = max(start, since.replace(microsecond=0))
    elapsed = whole_seconds(Period(start, min(now, end))) if now > start else 0
    if not elapsed or now >= end:
        return tuple(spans)
    so_far: Counter[Meter] = Counter()
    for span in spans:
        so_far.update(span.usage)
    events = sum(span.events for span in spans)

    ahead: list[PricedUsage] = []
    before = 0
    for span in spans:
        after = before + _seconds_left(span.period, now)
        grow = partial(_growth, before=before, after=after, elapsed=elapsed)
        usage = {
            meter: span.usage.get(meter, 0) + grow(quantity) for meter, quantity in so_far.items()
        }
        ahead.append(replace(span, usage=usage, events=span.events + grow(events)))
        before = after
    return tuple(ahead)


def _seconds_left(period: Period, now: datetime) -> int:
    start = max(now, period.start)
    return whole_seconds(Period(start, period.end)) if start < period.end else 0


def _growth(so_far: int, *, before: int, after: int, elapsed: int) -> int:
    """Return what comes between two numbers of seconds from now; neighbours add up."""
    return so_far * after // elapsed - so_far * before // elapsed
