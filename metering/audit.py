"""The proof that usage is neither lost nor made up: what must add up, added up again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from metering.audited_days import CHECKS_OF_DAYS
from metering.calendars import calendars_of
from metering.day_sums import day_parameters
from metering.models import AccountRegistration, Gap
from metering.period import Period
from metering.readings import INTERFACE_COUNTERS, LIFE_COUNTERS
from metering.summaries import RECENT, records_kept_since

# What is compared belongs to one account, so many small snapshots prove as much as one large
# one, and none keeps old rows alive for hours.
ACCOUNTS_A_SNAPSHOT = 200
EXAMPLES = 20

_ACCEPTED_BEHIND = timedelta(days=35)
_RUN_EVERY = timedelta(hours=1)
_DAY = timedelta(days=1)
# From the easternmost zone's midnight to the westernmost's.
_EAST, _WEST = timedelta(hours=14), timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure that is not what others say it must be. What it does not have is empty."""

    account: str
    sandbox: str
    life: int | None
    interface: str
    figure: str
    # The start of a window, or a day.
    at: str
    expected: int
    found: int


@dataclass(frozen=True, slots=True)
class Check:
    """How many figures one check compared, how many differ, and the first of those."""

    name: str
    compared: int
    differences: int
    examples: tuple[Difference, ...]

    def plus(self, other: Check) -> Check:
        """Return both as one."""
        return Check(
            self.name,
            self.compared + other.compared,
            self.differences + other.differences,
            (*self.examples, *other.examples)[:EXAMPLES],
        )


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found. `lives_left_out` are those whose first records may be dropped."""

    checks: tuple[Check, ...]
    lives_left_out: int

    @property
    def failing(self) -> dict[str, int]:
        """Return how many differences each check has that has any."""
        return {check.name: check.differences for check in self.checks if check.differences}


def accounts_audited(accounts: Sequence[UUID] | None = None) -> list[UUID]:
    """Return the registered ones of these accounts; all by default."""
    chosen = AccountRegistration.objects.order_by("pk")
    if accounts is not None:
        chosen = chosen.filter(pk__in=accounts)
    return list(chosen.values_list("pk", flat=True))


def audit_usage(
    *,
    now: datetime,
    accounts: Sequence[UUID] | None = None,
    period: Period | None = None,
    watch: Callable[[int], None] = lambda _: None,
) -> Audit:
    """Compare what must be equal, in the lives and days of these accounts; all by default.

    `watch` is told how many more accounts were compared.

    `period` leaves out lives and days that share no time with it. Reads only, and sees a moment
    at which no fold is half done. Lives are proved whole, so those are left out whose first
    records may have been dropped.
    """
    account_ids = accounts_audited(accounts)
    checks = {name: Check(name, 0, 0, ()) for name in (*_CHECKS_OF_LIVES, *CHECKS_OF_DAYS)}
    left_out = 0
    for start in range(0, len(account_ids), ACCOUNTS_A_SNAPSHOT):
        some = account_ids[start : start + ACCOUNTS_A_SNAPSHOT]
        with _one_snapshot():
            parameters = _scope(some, now, period)
            left_out += _count_left_out(parameters)
            for name, statement in _CHECKS_OF_LIVES.items():
                checks[name] = checks[name].plus(_compare(name, statement, parameters))
            days = _days_to_compare(now, period)
            if days is not None:
                parameters = day_parameters(calendars_of(some), first=days[0], last=days[1])
                parameters |= {"first": days[0], "last": days[1]}
                for name, statement in CHECKS_OF_DAYS.items():
                    checks[name] = checks[name].plus(_compare(name, statement, parameters))
        watch(len(some))
    return Audit(tuple(checks.values()), left_out)


@contextmanager
def _one_snapshot() -> Iterator[None]:
    """Let all reads inside see one moment, while folds go on.

    Inside a caller's transaction, the caller's isolation holds.
    """
    is_outermost = not connection.in_atomic_block
    with transaction.atomic():
        if is_outermost:
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield


def _scope(accounts: list[UUID], now: datetime, period: Period | None) -> dict[str, Any]:
    return {
        "accounts": accounts,
        "kept_since": records_kept_since(now),
        "accepted_behind": _ACCEPTED_BEHIND,
        "start": period.start if period else None,
        "end": period.end if period else None,
    }


def _days_to_compare(now: datetime, period: Period | None) -> tuple[date, date] | None:
    """Return the first and last day that is held whole and done for good, in every time zone."""
    first = (records_kept_since(now) + _EAST).date() + _DAY
    # Of the day after it, the westernmost zone has not yet recomputed the last hours.
    last = (now - RECENT - _RUN_EVERY - _DAY - _WEST).astimezone(UTC).date()
    if period:
        first = max(first, period.start.date())
        last = min(last, (period.end - timedelta(microseconds=1)).date())
    return (first, last) if first <= last else None


def _count_left_out(parameters: dict[str, Any]) -> int:
    with connection.cursor() as cursor:
        cursor.execute(_LEFT_OUT, parameters)
        (count,) = cursor.fetchone()
    return int(count)


def _compare(name: str, statement: str, parameters: dict[str, Any]) -> Check:
    """Run a statement whose `compared` has what was expected and what was found."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""{statement}
            SELECT account_id::text, sandbox, life, interface, figure, at, expected::numeric,
                found::numeric, total.compared, total.differences
            FROM (
                SELECT count(*), count(*) FILTER (WHERE expected IS DISTINCT FROM found)
                FROM compared) AS total (compared, differences)
            LEFT JOIN (
                SELECT * FROM compared WHERE expected IS DISTINCT FROM found
                ORDER BY account_id, sandbox, life, interface, figure, at
                LIMIT {EXAMPLES}) AS difference ON true
            """,  # noqa: S608 - our own statements
            parameters,
        )
        rows = cursor.fetchall()
    *_, compared, differences = rows[0]
    examples = [
        Difference(account, sandbox, life, interface, figure, at, int(expected), int(found))
        for account, sandbox, life, interface, figure, at, expected, found, _, _ in rows
        if expected is not None
    ]
    return Check(name, compared, differences, tuple(examples))


_LIVES = """
    WITH candidate AS (
        SELECT life.id, sandbox.account_id, sandbox.sandbox_id AS sandbox,
            -- One without a base line at zero counts from its first sample, whenever that was.
            CASE WHEN life.counts_from_zero THEN life.started_at
                ELSE GREATEST(life.started_at, life.recorded_at - %(accepted_behind)s) END
                >= %(kept_since)s AS is_whole
        FROM metering_life life JOIN metering_sandbox sandbox ON sandbox.id = life.sandbox_id
        WHERE sandbox.account_id = ANY(%(accounts)s)
            AND (%(start)s::timestamptz IS NULL
                OR (life.started_at < %(end)s AND COALESCE(life.gone_at, 'infinity') > %(start)s))
    ), life AS (
        SELECT id, account_id, sandbox FROM candidate WHERE is_whole
    )"""

_LEFT_OUT = f"{_LIVES} SELECT count(*) FROM candidate WHERE NOT is_whole"  # noqa: S608 - ours
_ROWS = "account_id, sandbox, life, interface, figure, at, expected, found"


@dataclass(frozen=True, slots=True)
class _Series:
    """Where one kind of counters is kept: its readings, its records, and how they are joined."""

    counters: tuple[str, ...]
    reading: str
    series: str
    interface: str
    record: str
    record_key: str

    @property
    def joined(self) -> str:
        """Return the lives with their readings."""
        return f"life JOIN {self.reading} reading ON reading.life_id = life.id"


_OF_LIVES = _Series(
    counters=tuple(LIFE_COUNTERS),
    reading="metering_lifereading",
    series="life.id",
    interface="''",
    record="metering_usagerecord",
    record_key="life_id",
)
_OF_INTERFACES = _Series(
    counters=tuple(INTERFACE_COUNTERS),
    reading="metering_interfacereading",
    series="reading.interface",
    interface="reading.name",
    record="metering_networkusagerecord",
    record_key="interface_id",
)


def _totals(kind: _Series) -> str:
    """Compare each counter's growth since its base line with all windows and late usage.

    What a CounterReset stepped down was billed before it fell, so it is growth as well.
    """
    values = ", ".join(
        f"('{name}', reading.{name} - reading.base_{name}, recorded.{name})"
        for name in kind.counters
    )
    return f"""{_LIVES}, compared ({_ROWS}) AS (
        SELECT life.account_id, life.sandbox, life.id, {kind.interface}, counter.name, '',
            counter.grown + COALESCE((
                SELECT sum(before - after) FROM metering_counterreset reset
                WHERE reset.series = {kind.series} AND reset.counter = counter.name), 0),
            COALESCE(counter.recorded, 0) + COALESCE((
                SELECT sum(quantity) FROM metering_lateusage late
                WHERE late.life_id = life.id AND late.interface = {kind.interface}
                    AND late.quantity_name = counter.name), 0)
        FROM {kind.joined}
        LEFT JOIN LATERAL (
            SELECT {", ".join(f"sum({name}) AS {name}" for name in kind.counters)}
            FROM {kind.record} record WHERE record.{kind.record_key} = {kind.series}
        ) recorded ON true
        CROSS JOIN LATERAL (VALUES {values}) counter (name, grown, recorded)
    )"""  # noqa: S608 - names of our own columns


def _chain(kind: _Series) -> str:
    """Compare each window's opening with the closing before it, and its closing with its growth.

    A counter that was not read before its base line stands at 0 until then. One that fell may
    stand lower by what it fell. Growth in a frozen window is late usage and in no record: the
    first window after it opens higher by that; records that were frozen themselves, and
    recomputed since, stand as they stood.
    """
    values = ", ".join(
        f"('{name}', record.opening_{name}, record.closing_{name}, record.{name}, "
        f"reading.base_{name})"
        for name in kind.counters
    )
    names = ", ".join(f"'{name}'" for name in kind.counters)
    return f"""{_LIVES}, entry AS (
        SELECT life.account_id, life.sandbox, life.id AS life, {kind.interface} AS interface,
            {kind.series} AS series, counter.*, record.window_start, true AS is_record, 0 AS late
        FROM {kind.joined}
        JOIN {kind.record} record ON record.{kind.record_key} = {kind.series}
        CROSS JOIN LATERAL (VALUES {values}) counter (figure, opening, closing, growth, base)
        UNION ALL
        SELECT NULL, NULL, life.id, NULL, {kind.series}, late.quantity_name,
            NULL, NULL, 0, NULL, late.window_start, false, late.quantity
        FROM {kind.joined}
        JOIN metering_lateusage late
            ON late.life_id = life.id AND late.interface = {kind.interface}
        WHERE late.quantity_name IN ({names})
    ), summed AS (
        SELECT *, sum(late) OVER earlier AS late_before,
            bool_or(NOT is_record) OVER earlier AS has_late_before,
            sum(growth + late) OVER earlier - growth AS grown_before
        FROM entry
        -- What became late in a window comes after its record.
        WINDOW earlier AS (
            PARTITION BY series, figure ORDER BY window_start, is_record DESC
            ROWS UNBOUNDED PRECEDING)
    ), chained AS (
        SELECT *, COALESCE(lag(closing) OVER records, base) AS closing_before,
            lag(window_start) OVER records AS start_before,
            late_before - COALESCE(lag(late_before) OVER records, 0) AS late_between,
            COALESCE(lag(closing) OVER records, 0) = 0 AS is_unread
        FROM summed WHERE is_record
        WINDOW records AS (PARTITION BY series, figure ORDER BY window_start)
    ), judged AS (
        SELECT *, closing_before + late_between AS should_open, opening + growth AS should_close,
            opening IN (closing_before, closing_before + late_between)
                OR (is_unread AND opening IN (0, base))
                OR (has_late_before AND opening = base + grown_before) AS opens,
            closing = opening + growth OR (opening = 0 AND closing = base + growth) AS closes
        FROM chained
    ), compared ({_ROWS}) AS (
        SELECT account_id, sandbox, life, interface,
            (CASE WHEN opens_or_fell THEN 'closing ' ELSE 'opening ' END) || figure,
            window_start::text,
            CASE WHEN opens_or_fell THEN should_close ELSE should_open END,
            CASE WHEN NOT opens_or_fell THEN opening
                WHEN closes OR should_close - closing BETWEEN 1 AND fell.within
                THEN should_close ELSE closing END
        FROM judged LEFT JOIN LATERAL (
            -- The span in which a counter fell may have begun before its window: the next fall
            -- after the time in question counts as well.
            SELECT sum(fall) FILTER (WHERE at <= window_start OR after_start = 1) AS before,
                sum(fall) FILTER (WHERE at > window_start AND (at <= window_end OR after_end = 1))
                    AS within
            FROM (
                SELECT at, before - after AS fall, window_end,
                    row_number() OVER (PARTITION BY at > window_start ORDER BY at) AS after_start,
                    row_number() OVER (PARTITION BY at > window_end ORDER BY at) AS after_end
                FROM metering_counterreset reset,
                    (SELECT judged.window_start + interval '15 minutes') span (window_end)
                WHERE reset.series = judged.series AND reset.counter = judged.figure
                    AND at > COALESCE(judged.start_before, '-infinity')) falls
        ) fell ON NOT (opens AND closes)
        CROSS JOIN LATERAL (
            SELECT opens OR COALESCE(should_open - opening BETWEEN 1 AND fell.before, false)
        ) opening_judged (opens_or_fell)
    )"""  # noqa: S608 - names of our own columns


def _time(meter: str, *, record: str, whole: str, late_measured: str) -> str:
    """Compare the time a meter counted with the time it was measured and the gaps in it."""
    return f"""{_LIVES}, compared ({_ROWS}) AS (
        SELECT life.account_id, life.sandbox, life.id, '', '{whole}', '',
            COALESCE(recorded.whole, 0) + COALESCE(late.whole, 0),
            COALESCE(recorded.measured, 0) + COALESCE(late.measured, 0) + COALESCE((
                SELECT sum(round(EXTRACT(epoch FROM gap."end" - gap.start) * 1000))
                FROM metering_gap gap
                -- Of the time a host was silent nobody knows whether the life ran: it counts
                -- on neither side.
                WHERE gap.life_id = life.id AND gap.meter = '{meter}'
                    AND gap.reason <> '{Gap.Reason.HOST_SILENT}'), 0)
        FROM life
        LEFT JOIN LATERAL (
            SELECT sum({whole}) AS whole, sum(measured_ms) AS measured
            FROM {record} record WHERE record.life_id = life.id) recorded ON true
        LEFT JOIN LATERAL (
            SELECT sum(quantity) FILTER (WHERE quantity_name = '{whole}') AS whole,
                sum(quantity) FILTER (WHERE quantity_name = '{late_measured}') AS measured
            FROM metering_lateusage late WHERE late.life_id = life.id) late ON true
    )"""  # noqa: S608 - names of our own columns


_CHECKS_OF_LIVES = {
    "counters of lives": _totals(_OF_LIVES),
    "counters of interfaces": _totals(_OF_INTERFACES),
    "chain of lives": _chain(_OF_LIVES),
    "chain of interfaces": _chain(_OF_INTERFACES),
    "time of memory": _time(
        "memory",
        record="metering_usagerecord",
        whole="running_ms",
        late_measured="measured_ms",
    ),
    "time of storage": _time(
        "storage",
        record="metering_storageusagerecord",
        whole="existing_ms",
        late_measured="storage_measured_ms",
    ),
}
