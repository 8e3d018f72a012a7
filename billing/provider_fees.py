"""Whether the fees that a payment provider collects are what it is to collect, second by second."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from itertools import pairwise

from billing.fees import Subscribed
from billing.money import Money
from billing.proration import share
from metering.period import Period


@dataclass(frozen=True, slots=True)
class Collecting:
    """Time in which the provider collects an account's fee without a break, `[start, end)`.

    `end` is None while it goes on.
    """

    start: datetime
    end: datetime | None

    def __contains__(self, moment: datetime) -> bool:
        return self.start <= moment and (self.end is None or moment < self.end)


@dataclass(frozen=True, slots=True)
class MirroredFee:
    """A line of a provider's invoice that we keep a copy of. Below zero it gives back."""

    number: str
    period: Period
    amount: Money


def collecting_times(subscriptions: Iterable[Subscribed]) -> list[Collecting]:
    """Return when the provider collects, from subscriptions in order.

    What follows a cancellation at once begins anew: what was paid for beyond it is given back.
    """
    times: list[Collecting] = []
    goes_on = False
    for subscription in subscriptions:
        if not subscription.provider_collects:
            continue
        if goes_on and times[-1].end == subscription.start:
            times[-1] = Collecting(times[-1].start, subscription.end)
        else:
            times.append(Collecting(subscription.start, subscription.end))
        goes_on = not subscription.ends_period
    return times


def used_part(fee: MirroredFee, times: Iterable[Collecting]) -> Period | None:
    """Return the part of a fee's period that it was collected for rightly.

    From its start up to where the provider stops collecting; the rest is to be given back. None
    where the provider collects nothing at its start.
    """
    for time in times:
        if fee.period.start in time:
            return Period(fee.period.start, min(fee.period.end, time.end or fee.period.end))
    return None


def unused_amount(fees: Sequence[MirroredFee], times: Sequence[Collecting]) -> Money:
    """Return what one invoice's fees ask for beyond the time that is used, rounded once."""
    exact = Fraction(0)
    for fee in fees:
        used = used_part(fee, times)
        left = 1 - (share(used, fee.period) if used else Fraction(0))
        exact += Fraction(fee.amount.amount) * left
    return Money.rounded(exact, fees[0].amount.currency)


def times_charged(
    fees: Iterable[MirroredFee], times: Sequence[Collecting]
) -> list[tuple[Period, int]]:
    """Return how often each second was charged for, in order, where anything is said of it.

    What is given back counts against what was charged.
    """
    steps: dict[datetime, int] = {}
    for fee in fees:
        if fee.amount and (used := used_part(fee, times)):
            sign = 1 if fee.amount.amount > 0 else -1
            steps[used.start] = steps.get(used.start, 0) + sign
            steps[used.end] = steps.get(used.end, 0) - sign
    charged: list[tuple[Period, int]] = []
    level, edges = 0, sorted(steps)
    for start, end in pairwise(edges):
        level += steps[start]
        charged.append((Period(start, end), level))
    return charged


def not_charged(
    subscriptions: Iterable[Subscribed], charged: Iterable[tuple[Period, int]], *, until: datetime
) -> list[Period]:
    """Return the time up to `until` whose fee the provider was to collect and did not, in order."""
    paid = [span for span, count in charged if count > 0]
    missing: list[Period] = []
    for subscription in subscriptions:
        start, end = subscription.paid_from, min(subscription.end or until, until)
        if not subscription.provider_collects or start >= end:
            continue
        for span in paid:
            if (shared := span.overlap(Period(start, end))) is None:
                continue
            if start < shared.start:
                missing.append(Period(start, shared.start))
            start = shared.end
            if start == end:
                break
        else:
            missing.append(Period(start, end))
    return missing
