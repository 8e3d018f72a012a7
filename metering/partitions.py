"""Monthly partitions of the tables that grow, made ahead of time by the tables' owner."""

from __future__ import annotations

from collections.abc import Generator
from datetime import UTC, datetime

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


class _Months(PostgresRangePartitioningStrategy):
    """A partition for each month around `now`, named by year and month."""

    def __init__(self, now: datetime) -> None:
        self._month = now.year * 12 + now.month - 1

    def to_create(self) -> Generator[PostgresRangePartition, None, None]:
        """Yield the months that must have a partition."""
        for number in range(self._month - MONTHS_BEHIND, self._month + MONTHS_AHEAD + 1):
            year, month = divmod(number, 12)
            yield PostgresTimePartition(
                PostgresTimePartitionSize(months=1),
                datetime(year, month + 1, 1, tzinfo=UTC),
                name_format="%Y_%m",
            )

    def to_delete(self) -> Generator[PostgresRangePartition, None, None]:
        """Yield nothing: old months are dropped by retention, not by the calendar."""
        yield from ()


def make_partitions(*, now: datetime) -> list[str]:
    """Make the partitions for the months around `now` that are missing; return their names.

    Safe to repeat. Runs as the owner: the application's role cannot make tables.
    """
    plan = PostgresPartitioningManager(
        [
            PostgresPartitioningConfig(model=model, strategy=_Months(now))
            for model in (UsageRecord, NetworkUsageRecord, StorageUsageRecord)
        ]
    ).plan(using="owner", skip_delete=True)
    plan.apply(using="owner")
    return [partition.name() for partition in plan.creations]
