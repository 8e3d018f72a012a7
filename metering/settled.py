"""What accounts used up to now: settled days from their totals, the rest from usage records.

It is what the records add up to, at every moment, and reads a row a day instead of one for each
life and quarter of an hour.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db import connection

from metering.days import Calendar
from metering.meters import UNITS, Meter
from metering.period import Period
from metering.totals import LIFE_COLUMNS, LIVES, NETWORK_COLUMNS, STORAGE_COLUMNS

_DAY = timedelta(days=1)
# In the order in which usage_of_spans has them.
_METERS = (*LIFE_COLUMNS, *NETWORK_COLUMNS, *STORAGE_COLUMNS)
_FIGURES = (*(UNITS[meter].stored for meter in _METERS), "running_ms", "measured_ms")

_SETTLED = """
    SELECT account.account_id, account.time_zone,
        ARRAY(SELECT time_zone::text FROM metering_formertimezone
              WHERE account_id = account.account_id ORDER BY until),
        ARRAY(SELECT until FROM metering_formertimezone
              WHERE account_id = account.account_id ORDER BY until),
        settled.since, settled.until,
        (SELECT min(day) FROM metering_touchedday WHERE account_id = account.account_id)
    FROM metering_settleddays settled
    JOIN metering_accountregistration account USING (account_id)
    WHERE settled.account_id = ANY(%s)
"""


def _records(join: str, of_life: str, columns: dict[str, str]) -> str:
    figures = ", ".join(f"record.{columns[f]}" if f in columns else "0" for f in _FIGURES)
    return f"""
        SELECT life.number, {figures} FROM life {join}
        -- By their index, as the lives: else whole months may be read.
        JOIN LATERAL (
            SELECT * FROM {of_life} AND window_start >= %(first)s AND window_start < %(last)s
                AND window_start >= life.span_start AND window_start < life.span_end
            OFFSET 0
        ) AS record ON true"""  # noqa: S608 - names of our own columns


_OF_LIFE = {UNITS[meter].stored: column for meter, column in LIFE_COLUMNS.items()}
_OF_INTERFACE = {UNITS[meter].stored: column for meter, column in NETWORK_COLUMNS.items()}
_OF_STORAGE = {UNITS[meter].stored: column for meter, column in STORAGE_COLUMNS.items()}
_USED = f"""
    WITH life AS MATERIALIZED (
        SELECT span.*, life.id
        FROM unnest(%(numbers)s::integer[], %(accounts)s::uuid[], %(starts)s::timestamptz[],
                    %(ends)s::timestamptz[]) AS span(number, account_id, span_start, span_end)
        JOIN metering_sandbox sandbox ON sandbox.account_id = span.account_id {LIVES}
    ), part (number, {", ".join(_FIGURES)}) AS (
        {
    _records(
        "",
        "metering_usagerecord WHERE life_id = life.id",
        _OF_LIFE | {"running_ms": "running_ms", "measured_ms": "measured_ms"},
    )
}
        UNION ALL {
    _records(
        "JOIN metering_interfacereading interface ON interface.life_id = life.id",
        "metering_networkusagerecord WHERE interface_id = interface.interface",
        _OF_INTERFACE,
    )
}
        UNION ALL {_records("", "metering_storageusagerecord WHERE life_id = life.id", _OF_STORAGE)}
        UNION ALL
        SELECT settled.number, {", ".join(_FIGURES)}
        FROM unnest(%(settled_numbers)s::integer[], %(settled_accounts)s::uuid[],
                    %(first_days)s::date[], %(end_days)s::date[])
            AS settled(number, account_id, first_day, end_day)
        JOIN metering_dailyusagetotal total ON total.account_id = settled.account_id
            AND day >= first_day AND day < end_day
    )
    SELECT number, {", ".join(f"sum({figure})" for figure in _FIGURES)} FROM part GROUP BY number
"""  # noqa: S608 - names of our own columns


@dataclass(frozen=True, slots=True)
class SpanUsage:
    """What was used in a span, in base units, and how long sandboxes ran and were measured."""

    usage: dict[Meter, int]
    running_ms: int
    measured_ms: int


@dataclass(frozen=True, slots=True)
class _Settled:
    """The local days from `since` to before `until` whose totals are what the records add up to."""

    calendar: Calendar
    since: date
    until: date

    def days_in(self, period: Period) -> tuple[date, date] | None:
        """Return the first settled day that lies in the period whole, and the day after the last.

        None where there is none.
        """
        first = max(self.since, self.calendar.day_of(period.start))
        if self.calendar.start_of(first) < period.start:
            first += _DAY
        end = min(self.until, self.calendar.day_of(period.end))
        return (first, end) if first < end else None


def usage_so_far(spans: Sequence[tuple[UUID, Period]]) -> list[SpanUsage]:
    """Return, in their order, what each account used in the windows that start in its span.

    It is what `usage_of_spans` and `running_of_spans` say, by two queries for all of them.
    """
    settled = _settled_of({account_id for account_id, _ in spans})
    days: list[tuple[int, UUID, date, date]] = []
    rest: list[tuple[int, UUID, Period]] = []
    for number, (account_id, period) in enumerate(spans):
        of_account = settled.get(account_id)
        found = of_account.days_in(period) if of_account else None
        if of_account is None or found is None:
            rest.append((number, account_id, period))
            continue
        days.append((number, account_id, *found))
        bounds = (of_account.calendar.start_of(found[0]), of_account.calendar.start_of(found[1]))
        rest += [(number, account_id, part) for part in _around(period, *bounds)]
    used = [SpanUsage({}, 0, 0) for _ in spans]
    if not spans:
        return used
    with connection.cursor() as cursor:
        cursor.execute(_USED, _parameters(days, rest))
        for number, *sums, running_ms, measured_ms in cursor.fetchall():
            usage = {meter: int(total) for meter, total in zip(_METERS, sums, strict=True) if total}
            used[number] = SpanUsage(usage, int(running_ms), int(measured_ms))
    return used


def quantities_so_far(spans: Sequence[tuple[UUID, Period]]) -> list[dict[Meter, int]]:
    """Return what `usage_of_spans` does, by `usage_so_far`."""
    return [one.usage for one in usage_so_far(spans)]


def _settled_of(account_ids: Collection[UUID]) -> dict[UUID, _Settled]:
    found: dict[UUID, _Settled] = {}
    with connection.cursor() as cursor:
        cursor.execute(_SETTLED, [list(account_ids)])
        for account_id, zone, former, changes, since, until, touched in cursor.fetchall():
            calendar = Calendar(
                tuple(ZoneInfo(name) for name in (*former, zone)),
                tuple(change.astimezone(UTC) for change in changes),
            )
            if touched:
                start = datetime(touched.year, touched.month, touched.day, tzinfo=UTC)
                until = min(until, calendar.day_of(start))  # noqa: PLW2901 - a mark ends them
            if since < until:
                found[account_id] = _Settled(calendar, since, until)
    return found


def _around(period: Period, start: datetime, end: datetime) -> Iterator[Period]:
    if period.start < start:
        yield Period(period.start, start)
    if end < period.end:
        yield Period(end, period.end)


def _parameters(
    days: Sequence[tuple[int, UUID, date, date]], rest: Sequence[tuple[int, UUID, Period]]
) -> dict[str, Any]:
    never = datetime.min.replace(tzinfo=UTC)
    return {
        "numbers": [number for number, _, _ in rest],
        "accounts": [account_id for _, account_id, _ in rest],
        "starts": [period.start for _, _, period in rest],
        "ends": [period.end for _, _, period in rest],
        # Months outside of these are not looked at.
        "first": min((period.start for _, _, period in rest), default=never),
        "last": max((period.end for _, _, period in rest), default=never),
        "settled_numbers": [number for number, _, _, _ in days],
        "settled_accounts": [account_id for _, account_id, _, _ in days],
        "first_days": [first for _, _, first, _ in days],
        "end_days": [end for _, _, _, end in days],
    }
