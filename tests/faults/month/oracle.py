"""What a month has to come to, in plain fractions: from the plot, the price list and the gaps.

It shares no line with the product. Of the product it takes only the gap rows: time that it says it
did not measure, and does not bill.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from math import floor

from tests.faults.month.script import GIGABYTE, Customer, Load

Span = tuple[datetime, datetime]
MILLISECOND = timedelta(milliseconds=1)
# The price list: dollars for a core-second, a GB-second and a GB that went out.
CPU, MEMORY, EGRESS = Fraction(12, 10**6), Fraction(4, 10**6), Fraction(2, 100)
# Fee and credits of a month, in dollars.
TERMS = {"developer": (0, 0), "professional": (99, 100), "team": (299, 300)}
# From so many cents of usage on, so many percent; the highest that is reached.
VOLUME = ((2000_00, 10), (500_00, 5))


@dataclass(frozen=True)
class Unmeasured:
    """A gap row: the container, what was not measured, and when."""

    container: str
    meter: str
    span: Span


@dataclass(frozen=True)
class Usage:
    """What was used, in nanoseconds of cpu, byte-milliseconds and bytes."""

    cpu_ns: int = 0
    memory_byte_ms: int = 0
    egress_bytes: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.cpu_ns + other.cpu_ns,
            self.memory_byte_ms + other.memory_byte_ms,
            self.egress_bytes + other.egress_bytes,
        )


@dataclass(frozen=True)
class Owed:
    """What a period comes to, in cents. `credits` pay usage; tax and prepaid credit come after."""

    fees: int
    usage: int
    discount: int
    credits: int

    @property
    def net(self) -> int:
        """What is taxed."""
        return self.fees + self.usage - self.discount - self.credits


def usage_in(period: Span, loads: Iterable[Load], gaps: Sequence[Unmeasured]) -> Usage:
    """Return what these loads used in a period, but for what the gaps leave out."""
    total = Usage()
    for load in loads:
        ran = _shared((load.start, load.end), period)
        if ran is None:
            continue
        own = [gap for gap in gaps if gap.container == load.container]
        counted = _ms_outside(ran, [gap.span for gap in own if gap.meter in {"counters", "life"}])
        held = _ms_outside(ran, [gap.span for gap in own if gap.meter in {"memory", "life"}])
        total += Usage(
            load.cpu_ns_per_ms * counted,
            load.memory_bytes * held,
            load.tx_bytes_per_ms * counted,
        )
    return total


def owed(customer: Customer, number: int, used: Usage) -> Owed:
    """Return what the first (0) or second (1) period comes to."""
    usage = (
        cents(CPU * used.cpu_ns / 10**9)
        + cents(MEMORY * used.memory_byte_ms / (GIGABYTE * 1000))
        + cents(EGRESS * used.egress_bytes / GIGABYTE)
    )
    percent = next((percent for reached, percent in VOLUME if usage >= reached), 0)
    discount = cents(Fraction(usage * percent, 10**4))
    fees, granted = 0, 0
    for plan, share in _plans(customer, number):
        fee, credit = TERMS[plan]
        fees += cents(fee * share)
        granted += cents(credit * share)
    if customer.gift and not customer.gift.prepaid and number == 0:
        granted += customer.gift.dollars * 100
    return Owed(fees, usage, discount, min(granted, usage - discount))


def _plans(customer: Customer, number: int) -> list[tuple[str, Fraction]]:
    """Return the plans of a period, and the share of its seconds on each."""
    if customer.choice is None:
        return [(customer.plan, Fraction(1))]
    at, chosen = customer.choice
    is_more = TERMS[chosen][0] > TERMS[customer.plan][0]
    if number == 1:
        return [(chosen, Fraction(1))]
    if not is_more:
        # A lower fee waits for the period's end.
        return [(customer.plan, Fraction(1))]
    start, end = customer.periods()[0]
    second = timedelta(seconds=1)
    after = Fraction((end - at.replace(microsecond=0)) // second, (end - start) // second)
    return [(customer.plan, 1 - after), (chosen, after)]


def taxed(net: int, percent: int) -> int:
    """Return the tax on so many cents."""
    return cents(Fraction(net * percent, 10**4))


def cents(dollars: Fraction) -> int:
    """Round half up, to cents."""
    return floor(dollars * 100 + Fraction(1, 2))


def _shared(one: Span, other: Span) -> Span | None:
    start, end = max(one[0], other[0]), min(one[1], other[1])
    return (start, end) if start < end else None


def _ms_outside(span: Span, without: Iterable[Span]) -> int:
    """Return the milliseconds of a span that none of the others holds."""
    left = _ms(span)
    at = span[0]
    for start, end in sorted(without):
        if shared := _shared((max(start, at), end), span):
            left -= _ms(shared)
            at = shared[1]
    return left


def _ms(span: Span) -> int:
    return _epoch_ms(span[1]) - _epoch_ms(span[0])


def _epoch_ms(moment: datetime) -> int:
    return floor(Fraction(round(moment.timestamp() * 10**6), 1000))
