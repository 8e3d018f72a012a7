"""Days on which an account used far more of a meter than in its own past weeks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from fractions import Fraction
from statistics import median
from uuid import UUID

from django.db import connection

from metering.meters import GB, UNITS, Meter

HISTORY_DAYS = 28
# With less there is nothing to compare with.
FEWEST_DAYS = 7
# A day is reported from so many times what was expected, and so many spreads above it.
SMALLEST_RATIO = 2
SMALLEST_SCORE = 5

# By so much at least a day has to be above what was expected, in stored units: less is noise.
_HOUR_NS = 3600 * 10**9
_HOUR_MS = 3_600_000
FLOORS: dict[Meter, int] = {
    Meter.CPU: _HOUR_NS,
    Meter.MEMORY: 4 * GB * _HOUR_MS,
    Meter.NETWORK_EGRESS: GB,
    Meter.NETWORK_INGRESS: GB,
    Meter.STORAGE: 24 * GB * _HOUR_MS,
    Meter.GPU: _HOUR_MS // 4,
    Meter.DISK_READ: 10 * GB,
    Meter.DISK_WRITE: 10 * GB,
    Meter.CPU_ALLOCATED: 4 * _HOUR_NS,
    Meter.MEMORY_ALLOCATED: 8 * GB * _HOUR_MS,
}

_DAY = timedelta(days=1)
_WEEK = 7
# Makes the median deviation of noise as large as its standard deviation.
_DEVIATION = Fraction(14826, 10000)


@dataclass(frozen=True, slots=True)
class Excess:
    """A day's value and what was expected of it, in stored units.

    `score` is how many times what is usual between days lies between the two.
    """

    value: int
    expected: Fraction
    score: Fraction

    @property
    def ratio(self) -> Fraction | None:
        """Return how many times what was expected it is; None where that was nothing."""
        return self.value / self.expected if self.expected else None


@dataclass(frozen=True, slots=True)
class Spike:
    """An account's local day on which it used unusually much of a meter."""

    account_id: UUID
    day: date
    meter: Meter
    excess: Excess


def find_excess(history: Sequence[int], value: int, *, floor: int) -> Excess | None:
    """Return how a day stands out from the days before it, the last one first; None: it does not.

    Medians, so that a spike in the past hides no other. What is expected is the highest of
    three: of all days; of the last week, since what has lasted for days is no spike; and of the
    same day of the weeks before, since many accounts work by the week.
    """
    if len(history) < FEWEST_DAYS or value < floor:
        return None
    usual = Fraction(median(history))
    same_day = history[_WEEK - 1 :: _WEEK]
    expected = max(usual, Fraction(median(history[:_WEEK])), Fraction(median(same_day)))
    if value < SMALLEST_RATIO * expected:
        return None
    deviation = _DEVIATION * Fraction(median(abs(day - usual) for day in history))
    # Where days hardly differ, a tenth of them and a share of the floor stand for the spread.
    spread = max(deviation, expected / 10, Fraction(floor, SMALLEST_SCORE))
    score = (value - expected) / spread
    return Excess(value, expected, score) if score >= SMALLEST_SCORE else None


def find_spikes(
    first_day: date, last_day: date | None = None, *, meter: Meter | None = None
) -> list[Spike]:
    """Return the spikes of all accounts on these local days, the most severe first.

    Without `last_day` of one day, without `meter` of all. A day that is not over can only be
    too low yet.
    """
    last = last_day or first_day
    spikes = [
        Spike(account_id, day, of_meter, excess)
        for account_id, of_meter, begun, totals in _totals(first_day, last, meter)
        for day in _days(max(first_day, begun + FEWEST_DAYS * _DAY), last)
        if (value := totals.get(day))
        and (excess := find_excess(_history(totals, begun, day), value, floor=FLOORS[of_meter]))
    ]
    return sorted(spikes, key=lambda spike: (-spike.excess.score, spike.day, str(spike.account_id)))


def _days(first: date, last: date) -> Iterator[date]:
    for n in range((last - first).days + 1):
        yield first + n * _DAY


def _history(totals: dict[date, int], begun: date, day: date) -> list[int]:
    """Return the days before `day`, the last first; without usage they are 0, as they were."""
    count = min(HISTORY_DAYS, (day - begun).days)
    return [totals.get(day - n * _DAY, 0) for n in range(1, count + 1)]


def _totals(
    first: date, last: date, meter: Meter | None
) -> Iterator[tuple[UUID, Meter, date, dict[date, int]]]:
    """Yield each account's totals by day of each meter, and its first day, or one before all."""
    meters = [meter] if meter else list(Meter)
    sums = ", ".join(f"sum({UNITS[of_meter].stored})" for of_meter in meters)
    with connection.cursor() as cursor:
        # By account, so that each is found by its days: the index begins with the account.
        cursor.execute(
            f"""
            SELECT account.account_id, begun.day, days.*
            FROM metering_accountregistration account
            CROSS JOIN LATERAL (
                SELECT min(day) FROM metering_dailyusagesummary
                WHERE account_id = account.account_id) begun (day)
            CROSS JOIN LATERAL (
                SELECT day, {sums} FROM metering_dailyusagesummary
                WHERE account_id = account.account_id AND day BETWEEN %s AND %s
                GROUP BY day) days
            ORDER BY account.account_id
            """,  # noqa: S608 - names of our own columns
            [first - HISTORY_DAYS * _DAY, last],
        )
        rows = cursor.fetchall()
    found: dict[tuple[UUID, Meter], tuple[date, dict[date, int]]] = {}
    for account_id, begun, day, *values in rows:
        for of_meter, value in zip(meters, values, strict=True):
            found.setdefault((account_id, of_meter), (begun, {}))[1][day] = int(value)
    for (account_id, of_meter), (begun, totals) in found.items():
        yield account_id, of_meter, begun, totals
