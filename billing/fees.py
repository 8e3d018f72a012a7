"""What subscriptions cost and bring in a period, by the second."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from fractions import Fraction
from zoneinfo import ZoneInfo

from billing.money import Money
from billing.periods import Schedule, add_months, windows_from
from billing.proration import share, whole_seconds
from metering.period import Period

MONTHS_OF_A_YEAR = 12


class Interval(StrEnum):
    """How often a plan's fee is asked for."""

    MONTHLY = "monthly"
    ANNUAL = "annual"


@dataclass(frozen=True, slots=True)
class Commitment:
    """A minimum spend in each period, for so many months from `start` on.

    Raises ValueError when there is no term or the minimum is negative.
    """

    minimum: Money
    months: int
    start: datetime

    def __post_init__(self) -> None:
        if self.months < 1:
            raise ValueError(f"Commitment.months is {self.months}. A commitment needs a term.")
        if self.minimum.amount < 0:
            raise ValueError(f"Commitment.minimum is {self.minimum}. Use 0 or more.")


@dataclass(frozen=True, slots=True)
class Subscribed:
    """An account on a plan for `[start, end)`, at the terms it was agreed at.

    `fee` is for one billing period, or for a year of annual billing. `end` is None while it is
    open. `ends_period` says that it was cancelled there and then, which ended the period too.
    Bounds are whole seconds.
    """

    plan: str
    start: datetime
    end: datetime | None
    fee: Money
    monthly_credits: Money
    interval: Interval = Interval.MONTHLY
    trial_end: datetime | None = None
    commitment: Commitment | None = None
    ends_period: bool = False
    subscription_id: int | None = None
    plan_id: int | None = None
    # Whose local days its years and its commitment are counted in. None: the schedule's of then.
    zone: ZoneInfo | None = None
    # Whether the payment provider asks for the fee, in advance. Then no line of ours does.
    provider_collects: bool = False

    def part_of(self, period: Period) -> Period | None:
        """Return the part of `period` that it covers, or None."""
        return _between(self.start, self.end or period.end, period)

    def paid_part_of(self, period: Period) -> Period | None:
        """Return the part of `period` that its fee is for: after the trial."""
        return _between(self.paid_from, self.end or period.end, period)

    @property
    def paid_from(self) -> datetime:
        """The end of the trial, or the start where there is none."""
        return max(self.start, self.trial_end or self.start)


class FeeKind(StrEnum):
    """What a line that is not usage is for."""

    FEE = "fee"
    UNUSED_FEE = "unused_fee"
    TRUE_UP = "true_up"


@dataclass(frozen=True, slots=True)
class FeeLine:
    """A fee, or a part of one that is given back: amount = rate × seconds ÷ whole_seconds.

    Rounded once. The part given back is negative. A true-up's amount is what is missing to that.
    """

    kind: FeeKind
    plan: str
    interval: Interval
    period: Period
    seconds: int
    whole_seconds: int
    rate: Money
    amount: Money
    subscription_id: int | None = None
    plan_id: int | None = None

    def at_rate(self, rate: Money) -> FeeLine:
        """Return the line for the same seconds at another rate."""
        fraction = Fraction(self.seconds, self.whole_seconds)
        sign = -1 if self.kind is FeeKind.UNUSED_FEE else 1
        return replace(self, rate=rate, amount=rate.times(sign * fraction))


def fee_lines(
    subscriptions: Iterable[Subscribed], *, period: Period, schedule: Schedule
) -> list[FeeLine]:
    """Return the fees of `period`, in the order of the subscriptions.

    Monthly: the fee by the seconds of the whole period that the subscription covers. Annual: a
    year's fee where a year starts in `period`, and what was not used of it where it was ended.
    None where the payment provider collects the fee.
    """
    lines: list[FeeLine] = []
    for subscription in subscriptions:
        if subscription.provider_collects:
            continue
        if subscription.interval is Interval.ANNUAL:
            lines.extend(_annual_lines(subscription, period, schedule))
        elif part := subscription.paid_part_of(period):
            whole = schedule.whole(part.start)
            lines.append(_line(FeeKind.FEE, subscription, part, of=whole))
    return [line for line in lines if line.amount]


def earned_credits(subscription: Subscribed, *, period: Period, schedule: Schedule) -> Money:
    """Return the credits that the subscription brings for `period`, by the second.

    Where a provider's periods are followed, by the window, as the periods are: who pays a full
    fee has the full credits, though the provider's month begins inside a window.
    """
    if subscription.provider_collects:
        windows = windows_from(subscription.start, subscription.end or period.end)
        part = windows.overlap(period) if windows else None
    else:
        part = subscription.part_of(period)
    if part is None:
        return Money.zero(subscription.monthly_credits.currency)
    return subscription.monthly_credits.times(share(part, schedule.whole(part.start)))


def true_up_line(
    subscriptions: Sequence[Subscribed],
    spent: Money,
    *,
    period: Period,
    schedule: Schedule,
) -> FeeLine | None:
    """Return the line that lifts `spent` to the committed minimum of `period`, if it is below.

    `spent` is the usage fee after discounts and before credits. The minimum goes by the seconds
    of the whole period that the commitment covers.
    """
    committed = [
        (subscription, subscription.commitment, part)
        for subscription in subscriptions
        if subscription.commitment
        and (part := _committed_part(subscription, subscription.commitment, period, schedule))
    ]
    if not committed:
        return None
    exact = sum(
        Fraction(commitment.minimum.amount) * share(part, schedule.whole(part.start))
        for _, commitment, part in committed
    )
    missing = Money.rounded(Fraction(exact), spent.currency) - spent
    if missing.amount <= 0:
        return None
    subscription, commitment, part = committed[-1]
    whole = schedule.whole(part.start)
    return FeeLine(
        kind=FeeKind.TRUE_UP,
        plan=subscription.plan,
        interval=subscription.interval,
        period=part,
        seconds=whole_seconds(part),
        whole_seconds=whole_seconds(whole),
        rate=commitment.minimum,
        amount=missing,
    )


def commitments_in(
    subscriptions: Iterable[Subscribed], *, period: Period, schedule: Schedule
) -> list[Commitment]:
    """Return the commitments that hold in some part of `period`."""
    return [
        subscription.commitment
        for subscription in subscriptions
        if subscription.commitment
        and _committed_part(subscription, subscription.commitment, period, schedule)
    ]


def year_of(subscription: Subscribed, moment: datetime, schedule: Schedule) -> Period | None:
    """Return the year of an annual subscription that `moment` falls into, None before the first.

    A year goes from a local day and time to the same a year later; from 29 February to 28
    February, and back to the 29th in leap years.
    """
    for year in _years(subscription, schedule):
        if moment < year.start:
            return None
        if moment in year:
            return year
    return None


def _annual_lines(
    subscription: Subscribed, period: Period, schedule: Schedule
) -> Iterator[FeeLine]:
    for year in _years(subscription, schedule):
        if year.start >= period.end or (subscription.end and year.start >= subscription.end):
            return
        if year.start in period:
            yield _line(FeeKind.FEE, subscription, year, of=year)
        # Given back on the invoice of the last period that it was in. An end on a period's edge
        # is the earlier one's: the later has no time of this subscription.
        end = subscription.end
        if end and year.start < end < year.end and period.start < end <= period.end:
            yield _line(FeeKind.UNUSED_FEE, subscription, Period(end, year.end), of=year)


def _years(subscription: Subscribed, schedule: Schedule) -> Iterator[Period]:
    """Yield the subscription's years without end, from the first that is paid for."""
    first = subscription.paid_from
    # Of its own: a change of zone must not move the edge of a year into a closed period.
    zone = subscription.zone or schedule.cycle_at(first).zone
    start, number = first, 0
    while True:
        number += 1
        # From the first, not from the year before: a 29 February comes back.
        end = add_months(first, number * MONTHS_OF_A_YEAR, zone)
        yield Period(start, end)
        start = end


def _committed_part(
    subscription: Subscribed, commitment: Commitment, period: Period, schedule: Schedule
) -> Period | None:
    until = commitment_end(commitment, schedule, zone=subscription.zone)
    return _between(
        max(subscription.start, commitment.start),
        min(subscription.end or period.end, until),
        period,
    )


def commitment_end(
    commitment: Commitment, schedule: Schedule, *, zone: ZoneInfo | None = None
) -> datetime:
    """Return where the commitment's term is over, in local days of `zone`."""
    zone = zone or schedule.cycle_at(commitment.start).zone
    return add_months(commitment.start, commitment.months, zone)


def _line(kind: FeeKind, subscription: Subscribed, part: Period, *, of: Period) -> FeeLine:
    fraction = share(part, of)
    return FeeLine(
        kind=kind,
        plan=subscription.plan,
        interval=subscription.interval,
        period=part,
        seconds=whole_seconds(part),
        whole_seconds=whole_seconds(of),
        rate=subscription.fee,
        amount=subscription.fee.times(-fraction if kind is FeeKind.UNUSED_FEE else fraction),
        subscription_id=subscription.subscription_id,
        plan_id=subscription.plan_id,
    )


def _between(start: datetime, end: datetime, period: Period) -> Period | None:
    """Return what `[start, end)` shares with `period`, or None."""
    start, end = max(start, period.start), min(end, period.end)
    return Period(start, end) if start < end else None
