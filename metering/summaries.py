"""Day summaries: usage records added up for each sandbox and local day of its account."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import numpy as np
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.db import OperationalError, connection, transaction

from metering.calendars import calendar_of
from metering.day_sums import DAY_SUMS, FIGURES, day_parameters
from metering.day_totals import replace_totals, settle_days
from metering.days import Calendar
from metering.meters import UNITS, Meter
from metering.models import AccountRegistration, DailyUsageTotal
from metering.period import WINDOW, to_ms
from metering.steps import Ints

logger = logging.getLogger(__name__)

# Every hourly run recomputes the days that touch so much of the past.
RECENT = timedelta(hours=48)
# A change to an older window marks its day. Less than RECENT by more than the time between two
# runs, so that no change falls between the two rules.
LONG_PAST = timedelta(hours=36)
# How far a run goes back for an account whose newest summary is old.
LOOK_BACK = timedelta(days=35)

_DAY = timedelta(days=1)
# Between midnight in the first zone and in the last.
_ZONES_APART = timedelta(hours=26)
_DAY_MS = 24 * 3_600_000

_REPLACE = f"""
    {DAY_SUMS}, gone AS (
        DELETE FROM metering_dailyusagesummary kept
        WHERE account_id = ANY(%(accounts)s) AND day = ANY(%(days)s)
            AND NOT EXISTS (
                SELECT FROM day_sum
                WHERE day_sum.sandbox_id = kept.sandbox_id AND day_sum.day = kept.day)
    )
    INSERT INTO metering_dailyusagesummary AS kept
        (account_id, sandbox_id, day, {", ".join(FIGURES)}, computed_at)
    SELECT account_id, sandbox_id, day, {", ".join(FIGURES)}, %(now)s FROM day_sum
    ON CONFLICT (account_id, day, sandbox_id) DO UPDATE
    SET {", ".join(f"{figure} = EXCLUDED.{figure}" for figure in FIGURES)},
        computed_at = EXCLUDED.computed_at
    -- A row that is right already is not written again.
    WHERE ({", ".join(f"kept.{figure}" for figure in FIGURES)})
        IS DISTINCT FROM ({", ".join(f"EXCLUDED.{figure}" for figure in FIGURES)})
    """  # noqa: S608 - names of our own columns


def records_kept_since(now: datetime) -> datetime:
    """Return the time from which on every usage record is still there.

    A day that is older keeps the summary it has.
    """
    return now - timedelta(days=settings.METERING_USAGE_RETENTION_D)


def summarise_usage(account_id: UUID, days: Iterable[date], *, now: datetime) -> int:
    """Recompute an account's summaries of these local days; return how many rows changed.

    Safe to repeat and to run at once: the rows are replaced by what the records add up to. A
    day whose records may have been dropped is left alone, and so is one that is yet to come.
    Raises AccountRegistration.DoesNotExist.
    """
    with transaction.atomic():
        _lock(account_id)
        return _replace(account_id, calendar_of(account_id), set(days), now)


@dataclass(frozen=True, slots=True)
class Summarised:
    """What one run over all accounts did."""

    accounts: int
    rows: int
    failed: int


def summarise_touched_days(*, now: datetime) -> Summarised:
    """Recompute each account's recent days, and those long past in which its usage changed.

    Safe to repeat, to run at once and to be ended. An account that fails is logged, and stops
    only itself.
    """
    rows = failed = 0
    accounts = list(_accounts_to_summarise(now))
    for account, settled_until in accounts:
        try:
            with transaction.atomic():
                _lock(account.pk)
                # Taken in the same transaction: a change that commits after this waits for it,
                # and then leaves a new row.
                touched = _take_touched_days(account.pk)
                calendar = calendar_of(account.pk)
                recent = _recent_days(calendar, account.registered_at, settled_until, now)
                days = {*recent, *_local_days(calendar, touched)}
                rows += _replace(account.pk, calendar, days, now)
                _settle(account.pk, calendar, recent, now)
        except SoftTimeLimitExceeded:
            raise
        except OperationalError:
            # A lost connection says nothing of the account, a held lock only that it is busy.
            if not connection.is_usable():
                raise
            failed += 1
            logger.warning("account is busy", exc_info=True, extra={"account_id": account.pk})
        except Exception:
            failed += 1
            logger.exception("usage not summarised", extra={"account_id": account.pk})
    return Summarised(len(accounts), rows, failed)


def touch_days(changed: Iterable[tuple[Ints, Ints]], *, now: datetime) -> None:
    """Mark the days of windows long past whose usage the caller's transaction changes.

    `changed` gives lives and the starts, in ms, of as many windows of theirs.
    """
    long_past_ms = to_ms(now - LONG_PAST)
    old = [
        np.stack([lives[is_old], windows_ms[is_old] // _DAY_MS])
        for lives, windows_ms in changed
        for is_old in [windows_ms < long_past_ms]
        if is_old.any()
    ]
    if not old:
        return
    pairs = np.unique(np.concatenate(old, axis=1), axis=1)
    with connection.cursor() as cursor:
        # DO NOTHING would not do: a row that another transaction is taking at this moment has
        # to be waited for, and the write does. Sorted, so that two folds do not wait in a ring.
        cursor.execute(
            """
            INSERT INTO metering_touchedday (account_id, day)
            SELECT DISTINCT sandbox.account_id, DATE '1970-01-01' + touched.day
            FROM unnest(%s::bigint[], %s::integer[]) AS touched(life, day)
            JOIN metering_life life ON life.id = touched.life
            JOIN metering_sandbox sandbox ON sandbox.id = life.sandbox_id
            ORDER BY 1, 2
            ON CONFLICT (account_id, day) DO UPDATE SET day = EXCLUDED.day
            """,
            [pairs[0].tolist(), pairs[1].tolist()],
        )


def touch_days_since(account_id: UUID, start: datetime) -> None:
    """Mark the days from `start` on that have summaries: the caller's transaction changes them."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO metering_touchedday (account_id, day)
            SELECT %(account)s, day::date
            FROM generate_series(%(first)s::date, (
                -- A local day ends in the next one of UTC.
                SELECT max(day) + 1 FROM metering_dailyusagesummary WHERE account_id = %(account)s
            ), interval '1 day') AS day
            ORDER BY 2
            ON CONFLICT (account_id, day) DO UPDATE SET day = EXCLUDED.day
            """,
            {"account": account_id, "first": start.astimezone(UTC).date()},
        )


@dataclass(frozen=True, slots=True)
class DayUsage:
    """What an account used on one of its local days, in base units, and how many ran for it."""

    day: date
    usage: dict[Meter, int]
    running_ms: int
    measured_ms: int
    sandboxes: int
    lives: int


def daily_usage(account_id: UUID, first_day: date, last_day: date) -> list[DayUsage]:
    """Return an account's days from `first_day` to `last_day`, both included, in order.

    Days without usage are left out, and so are meters. `sandboxes` counts those that had
    any record, `lives` their starts that ran.
    """
    return daily_usage_of([account_id], first_day, last_day).get(account_id, [])


def daily_usage_of(
    account_ids: Iterable[UUID], first_day: date, last_day: date
) -> dict[UUID, list[DayUsage]]:
    """Return what `daily_usage` does, of many accounts; those without a day are left out."""
    columns = {meter: UNITS[meter].stored for meter in Meter}
    used: dict[UUID, list[DayUsage]] = {}
    for total in DailyUsageTotal.objects.filter(
        account__in=list(account_ids), day__range=(first_day, last_day)
    ).order_by("account_id", "day"):
        quantities = {meter: getattr(total, column) for meter, column in columns.items()}
        day = DayUsage(
            day=total.day,
            usage={meter: int(quantity) for meter, quantity in quantities.items() if quantity},
            running_ms=total.running_ms,
            measured_ms=total.measured_ms,
            sandboxes=total.sandbox_count,
            lives=total.life_count,
        )
        used.setdefault(total.account_id, []).append(day)
    return used


def _lock(account_id: UUID) -> None:
    """Wait until nobody else summarises the account, and keep others out of this transaction.

    The account's registration is only locked for sharing, as every fold has it: until this is
    done, its time zone does not change.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"summaries of {account_id}"]
        )
        cursor.execute(
            "SELECT FROM metering_accountregistration WHERE account_id = %s FOR SHARE",
            [account_id],
        )


def _replace(account_id: UUID, calendar: Calendar, days: set[date], now: datetime) -> int:
    # A day that has not begun has no usage; but it may have been today in the zone before.
    first, last = records_kept_since(now), now + _ZONES_APART
    asked = sorted(day for day in days if first <= calendar.start_of(day) <= last)
    changed = 0
    with connection.cursor() as cursor:
        for first_day, last_day in _runs(asked):
            parameters = day_parameters({account_id: calendar}, first=first_day, last=last_day)
            cursor.execute(_REPLACE, parameters | {"now": now})
            changed += cursor.rowcount
            replace_totals(account_id, first_day, last_day)
    return changed


def _settle(account_id: UUID, calendar: Calendar, days: Sequence[date], now: datetime) -> None:
    """Note which of these days, recomputed just now, are done for good: they follow each other."""
    kept = records_kept_since(now)
    whole = [day for day in days if calendar.start_of(day) >= kept]
    if whole:
        settle_days(account_id, since=whole[0], until=calendar.day_of(now - RECENT))


def _runs(days: list[date]) -> Iterator[tuple[date, date]]:
    """Yield the first and last day of each run of days that follow each other."""
    for n, day in enumerate(days):
        if n == 0 or day - days[n - 1] != _DAY:
            first = day
        if n == len(days) - 1 or days[n + 1] - day != _DAY:
            yield first, day


def _accounts_to_summarise(now: datetime) -> Iterator[tuple[AccountRegistration, date | None]]:
    """Yield whom to summarise, who had a container lately or a day touched, and what is settled."""
    accounts = AccountRegistration.objects.raw(
        """
        SELECT account.*, settled.until AS settled_until
        FROM metering_accountregistration account
        LEFT JOIN metering_settleddays settled ON settled.account_id = account.account_id
        WHERE account.account_id IN (
            SELECT sandbox.account_id FROM metering_life life
            JOIN metering_sandbox sandbox ON sandbox.id = life.sandbox_id
            WHERE life.gone_at IS NULL OR life.gone_at >= %(since)s)
        OR account.account_id IN (SELECT account_id FROM metering_touchedday)
        -- Whom a run that is cut off does not reach, the next one may.
        ORDER BY random()
        """,
        {"since": now - RECENT},
    )
    for account in accounts:
        settled_until: date | None = vars(account)["settled_until"]
        yield account, settled_until


def _recent_days(
    calendar: Calendar, registered_at: datetime, settled_until: date | None, now: datetime
) -> list[date]:
    """Return the local days that are not summarised for good, up to today."""
    today = calendar.day_of(now)
    first = calendar.day_of(now - RECENT)
    if settled_until is None:
        first = min(first, calendar.day_of(registered_at))
    else:
        # Earlier where nothing ran since, or nobody summarised it: missed runs are caught up here.
        first = min(first, settled_until)
    first = max(first, today - LOOK_BACK)
    return [first + n * _DAY for n in range((today - first).days + 1)]


def _take_touched_days(account_id: UUID) -> list[date]:
    """Remove the account's marks and return the days, in UTC, that they are of."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            DELETE FROM metering_touchedday WHERE id IN (
                SELECT id FROM metering_touchedday WHERE account_id = %s
                ORDER BY day FOR UPDATE)
            RETURNING day
            """,
            [account_id],
        )
        return [day for (day,) in cursor.fetchall()]


def _local_days(calendar: Calendar, days: Iterable[date]) -> Iterator[date]:
    """Yield the local days that share windows with these days in UTC."""
    for day in days:
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        first, last = calendar.day_of(start), calendar.day_of(start + _DAY - WINDOW)
        yield from (first + n * _DAY for n in range((last - first).days + 1))
