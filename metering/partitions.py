"""Monthly partitions of the tables that grow, made ahead of time by the tables' owner."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from django.db import connection, connections, transaction
from psqlextra.partitioning import (
    PostgresPartitioningConfig,
    PostgresPartitioningManager,
    PostgresRangePartition,
    PostgresRangePartitioningStrategy,
    PostgresTimePartition,
    PostgresTimePartitionSize,
)

from metering.models import NetworkUsageRecord, StorageUsageRecord, UsageRecord

# Samples up to 35 days old are accepted, so the two months before have theirs too.
MONTHS_BEHIND = 2
MONTHS_AHEAD = 3

PARTITIONED = (
    "metering_usagerecord",
    "metering_networkusagerecord",
    "metering_storageusagerecord",
)
OWNER = "owner"

_MONTH_NAME = re.compile(r"_(\d{4})_(\d{2})$")


@dataclass(frozen=True, slots=True)
class Month:
    """One month of the partitioned tables, `[start, end)`."""

    start: datetime
    end: datetime

    @classmethod
    def of(cls, number: int) -> Month:
        """Return a month by its number since the year 0."""
        return cls(_first_day(number), _first_day(number + 1))

    @property
    def suffix(self) -> str:
        """How the names of its partitions end."""
        return f"{self.start:%Y_%m}"


def month_number(moment: datetime) -> int:
    """Return the months since the year 0."""
    return moment.year * 12 + moment.month - 1


def _first_day(number: int) -> datetime:
    year, month = divmod(number, 12)
    return datetime(year, month + 1, 1, tzinfo=UTC)


class _Months(PostgresRangePartitioningStrategy):
    """A partition for each month around `now`, and back to `since`, named by year and month."""

    def __init__(self, now: datetime, since: datetime) -> None:
        self._first = min(month_number(now) - MONTHS_BEHIND, month_number(since))
        self._last = month_number(now) + MONTHS_AHEAD

    def to_create(self) -> Generator[PostgresRangePartition, None, None]:
        """Yield the months that must have a partition."""
        for number in range(self._first, self._last + 1):
            yield PostgresTimePartition(
                PostgresTimePartitionSize(months=1), _first_day(number), name_format="%Y_%m"
            )

    def to_delete(self) -> Generator[PostgresRangePartition, None, None]:
        """Yield nothing: old months are dropped by retention, not by the calendar."""
        yield from ()


def make_partitions(*, now: datetime, since: datetime | None = None) -> list[str]:
    """Make the partitions for the months around `now`, and back to `since`; return their names.

    Safe to repeat. Rows that the default partitions took in, for want of a month of their own,
    are moved into one first. Runs as the owner: the application's role cannot make tables.
    """
    made: list[str] = []
    for model in (UsageRecord, NetworkUsageRecord, StorageUsageRecord):
        table = str(model._meta.db_table)  # noqa: SLF001 - Django's documented way
        months = PostgresPartitioningConfig(model=model, strategy=_Months(now, since or now))
        with transaction.atomic(using=OWNER):
            _wait_for_turn(table)
            made += [f"{name} (out of the default)" for name in _empty_default(table)]
            # Planned under the lock: another may have made them meanwhile.
            plan = PostgresPartitioningManager([months]).plan(using=OWNER, skip_delete=True)
            plan.apply(using=OWNER)
        made += [partition.name() for partition in plan.creations]
    return made


def rows_without_month() -> dict[str, int]:
    """Return how many rows lie in the default partition of each table that has some there."""
    counts = {}
    with connection.cursor() as cursor:
        for table in PARTITIONED:
            cursor.execute(f"SELECT count(*) FROM {table}_default")  # noqa: S608 - our own tables
            if count := cursor.fetchone()[0]:
                counts[table] = count
    return counts


def _wait_for_turn(table: str) -> None:
    """Let one transaction at a time make partitions of a table.

    Before anything of it is locked: two that both had looked at the default would wait for each
    other.
    """
    with connections[OWNER].cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"partitions of {table}"]
        )


def _empty_default(table: str) -> list[str]:
    """Move the rows of a default partition to months of their own; return the months made.

    A month cannot be made while the default partition has rows of it, so that is taken off
    meanwhile. Nobody sees the table without the rows: it is one transaction, the caller's.
    """
    with connections[OWNER].cursor() as cursor:
        cursor.execute(f"SELECT EXISTS (SELECT FROM {table}_default)")  # noqa: S608 - our own tables
        if not cursor.fetchone()[0]:
            return []
        cursor.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        cursor.execute(
            f"SELECT DISTINCT date_trunc('month', window_start, 'UTC') "  # noqa: S608
            f"FROM {table}_default"
        )
        months = [Month.of(month_number(start)) for (start,) in cursor.fetchall()]
        cursor.execute(f"ALTER TABLE {table} DETACH PARTITION {table}_default")
        made = [f"{table}_{month.suffix}" for month in months]
        for name, month in zip(made, months, strict=True):
            cursor.execute(
                f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF {table} "
                "FOR VALUES FROM (%s) TO (%s)",
                [month.start, month.end],
            )
        cursor.execute(f"INSERT INTO {table} SELECT * FROM {table}_default")  # noqa: S608
        cursor.execute(f"DELETE FROM {table}_default")  # noqa: S608 - our own tables
        cursor.execute(f"ALTER TABLE {table} ATTACH PARTITION {table}_default DEFAULT")
    return made


def months_kept() -> list[Month]:
    """Return the months that any of the tables has a partition of, oldest first."""
    months = {
        (int(found[1]), int(found[2])) for name in _names() if (found := _MONTH_NAME.search(name))
    }
    return [Month.of(year * 12 + month - 1) for year, month in sorted(months)]


def drop_month(month: Month) -> list[str]:
    """Drop the partitions of a month; return their names. Safe to repeat. Runs as the owner."""
    dropped = [name for name in _names() if name.endswith(f"_{month.suffix}")]
    with transaction.atomic(using=OWNER), connections[OWNER].cursor() as cursor:
        for name in dropped:
            # Another may be dropping it too.
            cursor.execute(f"DROP TABLE IF EXISTS {name}")
    return dropped


def _names() -> Iterable[str]:
    """Return the names of all partitions of the three tables."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT child.relname FROM pg_inherits
            JOIN pg_class child ON child.oid = pg_inherits.inhrelid
            JOIN pg_class parent ON parent.oid = pg_inherits.inhparent
            WHERE parent.relname = ANY(%s) ORDER BY child.relname
            """,
            [list(PARTITIONED)],
        )
        return [name for (name,) in cursor.fetchall()]
