from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import (
    Count,
    Exists,
    Expression,
    F,
    Func,
    OuterRef,
    Q,
    QuerySet,
    Sum,
    TextField,
    Value,
)

from metering import stream
from metering.labels import require_label_name
from metering.meters import Meter
from metering.models import (
    Host,
    Life,
    NetworkUsageRecord,
    StorageUsageRecord,
    StreamCursor,
    UsageRecord,
)
from metering.partitions import rows_without_month
from metering.period import Period, from_ms
from metering.services import PUSHED
from metering.silence import SILENT_AFTER
from metering.stream import Waiting
from metering.totals import (
    LIFE_COLUMNS,
    NETWORK_COLUMNS,
    STORAGE_COLUMNS,
    running_of_spans,
)

# Passes are two seconds apart and folds fifteen; after these many something is wrong.
SILENT_AFTER_S = 20
SENT = "api"
BEHIND_AFTER_S = 60


@dataclass(frozen=True, slots=True)
class Coverage:
    """How long sandboxes ran, and for how much of that their gauges were measured."""

    running_ms: int
    measured_ms: int


@dataclass(frozen=True, slots=True)
class HostState:
    """Whether one host is metered. Ages in seconds; None: never so far.

    `source` is what its figures come from; where samples are sent to us it is `api`.
    `clock_offset_ms` is how far its clock is ahead of ours.
    """

    host_id: UUID
    name: str
    source: str
    clock_offset_ms: int | None
    is_active: bool
    running: int
    last_seen_age_s: int | None
    folded_age_s: int | None
    lost_batches: int
    refused: int
    problem: str

    @property
    def state(self) -> str:
        """Return what is wrong with the host's metering, or that nothing is."""
        if not self.is_active:
            return "not active"
        if self.problem:
            return self.problem
        if self.source == SENT:
            return self._sent_state
        if self.last_seen_age_s is None or self.last_seen_age_s > SILENT_AFTER_S:
            return "silent: is its collecting worker up, and Redis?"
        if self.folded_age_s is None or self.folded_age_s > BEHIND_AFTER_S:
            return "behind: is the aggregating worker up?"
        return "metered"

    @property
    def _sent_state(self) -> str:
        if self.last_seen_age_s is None:
            return "nothing was sent yet"
        if self.running and self.last_seen_age_s > SILENT_AFTER.total_seconds():
            return "silent: its runtime sends no samples"
        return "metered"

    def summary(self) -> str:
        """Return one line for people."""
        return (
            f"{self.name} ({self.source or 'not read yet'}): {self.state}; {self.running} running, "
            f"last pass {_ago(self.last_seen_age_s)}, folded to {_ago(self.folded_age_s)}, "
            f"{self.lost_batches} batches lost, {self.refused} refused"
        )


def _ago(seconds: int | None) -> str:
    return "never" if seconds is None else f"{seconds} s ago"


def host_states(*, now: datetime) -> list[HostState]:
    """Return the state of each host, by name."""
    hosts = (
        Host.objects.select_related("cursor")
        .annotate(
            running=Count("lives", filter=Q(lives__ended_at__isnull=True), distinct=True),
            refused=Count("refusals", distinct=True),
        )
        .order_by("name")
    )
    return [
        HostState(
            host_id=host.pk,
            name=host.name,
            source=SENT if host.endpoint.startswith(PUSHED) else host.source,
            clock_offset_ms=host.clock_offset_ms,
            is_active=host.is_active,
            running=host.running,
            last_seen_age_s=_age_s(host.last_seen_at, now),
            folded_age_s=_age_s(host.cursor.collected_until, now),
            lost_batches=host.cursor.lost_batch_count,
            refused=host.refused,
            problem=host.problem or host.cursor.problem,
        )
        for host in hosts
    ]


def table_problems() -> list[str]:
    """Return what is wrong with the tables of usage, a line each."""
    return [
        f"{table}: {count:,} rows are in no month of their own. make_partitions_ahead moves them; "
        "see its log if they stay."
        for table, count in rows_without_month().items()
    ]


def stream_lag(host_id: UUID) -> Waiting:
    """Return what of a host's stream waits to be folded: entries, since when, bytes of all.

    Raises StreamUnavailableError, StreamCursor.DoesNotExist.
    """
    cursor = StreamCursor.objects.get(host_id=host_id)
    return stream.waiting(host_id, folded=cursor.entry_id, sequence=cursor.sequence)


def _age_s(moment: datetime | None, now: datetime) -> int | None:
    return None if moment is None else int((now - moment).total_seconds())


def usage_totals(account_id: UUID, period: Period) -> dict[Meter, int]:
    """Return what the account used in the windows that start in `period`, in base units.

    Meters without usage are left out.
    """
    totals: dict[Meter, int] = {}
    for records, life, sums in _records(period):
        totals |= _used(records.filter(_of_account(account_id, life)).aggregate(**sums))
    return totals


def usage_by_sandbox(account_id: UUID, period: Period) -> dict[str, dict[Meter, int]]:
    """Return what `usage_totals` does by sandbox id; it adds up to that.

    Sandboxes without usage are left out, and so are meters of each.
    """
    return _usage_by(account_id, period, lambda life: F(f"{life}__sandbox__sandbox_id"))


def usage_by_label(
    account_id: UUID, period: Period, *, name: str
) -> dict[str | None, dict[Meter, int]]:
    """Return what `usage_totals` does by the value of one label; it adds up to that.

    None is what lives without the label used. Raises LabelNameError.
    """
    require_label_name(name)
    # Not a key transform: that takes a name of digits for a place in a list.
    return _usage_by(
        account_id,
        period,
        lambda life: Func(
            F(f"{life}__labels"),
            Value(name),
            function="jsonb_extract_path_text",
            output_field=TextField(),
        ),
    )


def label_names(account_id: UUID, period: Period) -> list[str]:
    """Return the names of the labels that lives with usage in `period` carry, sorted."""
    has_usage = Q()
    for records, life, _ in _records(period):
        has_usage |= Q(Exists(records.filter(**{life: OuterRef("pk")})))
    names = (
        Life.objects.filter(has_usage, sandbox__account_id=account_id)
        .exclude(labels={})
        .annotate(name=Func(F("labels"), function="jsonb_object_keys", output_field=TextField()))
        .values_list("name", flat=True)
        .distinct()
    )
    return sorted(names)


def starts(account_id: UUID, period: Period) -> int:
    """Return how many lives of the account's sandboxes started in `period`."""
    return Life.objects.filter(
        sandbox__account_id=account_id, started_at__gte=period.start, started_at__lt=period.end
    ).count()


def _records(period: Period) -> Iterator[tuple[QuerySet[Any], str, dict[str, Sum]]]:
    """Yield the period's records of each table, the way to their lives, and sums by meter."""
    tables: tuple[tuple[QuerySet[Any], str, dict[Meter, str]], ...] = (
        (UsageRecord.objects.all(), "life", LIFE_COLUMNS),
        (NetworkUsageRecord.objects.all(), "interface__life", NETWORK_COLUMNS),
        (StorageUsageRecord.objects.all(), "life", STORAGE_COLUMNS),
    )
    for records, life, columns in tables:
        yield (
            records.filter(window_start__gte=period.start, window_start__lt=period.end),
            life,
            {meter.value: Sum(column) for meter, column in columns.items()},
        )


def _of_account(account_id: UUID, life: str) -> Q:
    return Q(**{f"{life}__sandbox__account_id": account_id})


def _usage_by(
    account_id: UUID, period: Period, part_of: Callable[[str], Expression | F]
) -> dict[Any, dict[Meter, int]]:
    """Return usage by what `part_of` gives for the way from a record to its life."""
    usage: dict[Any, dict[Meter, int]] = {}
    for records, life, sums in _records(period):
        parts = records.filter(_of_account(account_id, life)).annotate(part=part_of(life))
        for row in parts.values("part").annotate(**sums).order_by():
            part = row.pop("part")
            if used := _used(row):
                usage.setdefault(part, {}).update(used)
    return usage


def _used(sums: dict[str, Any]) -> dict[Meter, int]:
    return {Meter(name): int(total) for name, total in sums.items() if total}


def coverage(account_id: UUID, period: Period) -> Coverage:
    """Return how much of the account's running time in `period` was measured."""
    [(running_ms, measured_ms)] = running_of_spans([(account_id, period)])
    return Coverage(running_ms=running_ms, measured_ms=measured_ms)


def running_sandboxes(account_id: UUID, *, most: int = 20) -> list[str]:
    """Return the ids of sandboxes of the account that run as far as is known, so many at most."""
    rows = Life.objects.filter(
        sandbox__account=account_id, ended_at__isnull=True, gone_at__isnull=True
    )
    return list(rows.order_by().values_list("sandbox__sandbox_id", flat=True).distinct()[:most])


def newest_reading_at(account_id: UUID) -> datetime | None:
    """Return the time of the newest reading that the account's usage counts, None without one."""
    with connection.cursor() as cursor:
        cursor.execute(_NEWEST, [account_id])
        [newest] = cursor.fetchone()
    return None if newest is None else from_ms(newest)


# OFFSET 0 has each sandbox's lives looked up by their index: else all lives of everybody may be
# read to find those of one account.
_NEWEST = """
    SELECT max(reading.read_ms) FROM metering_sandbox sandbox
    JOIN LATERAL (
        SELECT read_ms FROM metering_life life
        JOIN metering_lifereading ON life_id = life.id
        WHERE life.sandbox_id = sandbox.id AND sample_count > 0
        OFFSET 0
    ) AS reading ON true
    WHERE sandbox.account_id = %s
"""


def newest_readings_at(account_ids: Collection[UUID]) -> dict[UUID, datetime]:
    """Return what `newest_reading_at` does for each account that has a reading."""
    with connection.cursor() as cursor:
        cursor.execute(_NEWEST_OF_EACH, [list(account_ids)])
        return {account_id: from_ms(newest) for account_id, newest in cursor.fetchall()}


_NEWEST_OF_EACH = (
    _NEWEST.replace("SELECT max", "SELECT sandbox.account_id, max").replace("= %s", "= ANY(%s)")
    + "    GROUP BY sandbox.account_id\n"
)


def streams_behind(account_id: UUID, *, until: datetime) -> list[str]:
    """Return the names of the hosts that carried the account and are not folded up to `until`.

    While there is one, usage before `until` may still grow.
    """
    return streams_behind_of({account_id: until}).get(account_id, [])


def streams_behind_of(until: Mapping[UUID, datetime]) -> dict[UUID, list[str]]:
    """Return what `streams_behind` does for each account that has such a host."""
    behind = Q(collected_until__isnull=True) | Q(collected_until__lt=max(until.values()))
    hosts = StreamCursor.objects.filter(behind, host__is_active=True).values_list("host", flat=True)
    found: dict[UUID, list[str]] = {}
    # Mostly there is none, and then the lives are not looked at.
    if not (host_ids := list(hosts)):
        return found
    with connection.cursor() as cursor:
        cursor.execute(_BEHIND, [list(until), list(until.values()), host_ids])
        for account_id, name in cursor.fetchall():
            found.setdefault(account_id, []).append(name)
    return found


_BEHIND = """
    SELECT DISTINCT wanted.account_id, host.name
      FROM unnest(%s::uuid[], %s::timestamptz[]) AS wanted (account_id, until)
      JOIN metering_sandbox sandbox ON sandbox.account_id = wanted.account_id
      JOIN metering_life life ON life.sandbox_id = sandbox.id AND life.started_at < wanted.until
      JOIN metering_streamcursor stream ON stream.host_id = life.host_id
      JOIN metering_host host ON host.id = life.host_id
     WHERE life.host_id = ANY(%s)
       AND (stream.collected_until IS NULL
            OR stream.collected_until < wanted.until
               AND (life.ended_at IS NULL OR life.ended_at >= stream.collected_until))
     ORDER BY host.name
"""
