"""The product's way from a stream to usage, and three others to compare it with.

Each works in the process it is called in and returns what it cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

import numpy as np
from django.db import connection, transaction
from django.db.models import Sum

from bench.aggregating.fleet import Totals
from bench.aggregating.processes import Cost, Servers, cost_of
from bench.aggregating.tables import SAMPLE_COLUMNS, PlainUsage, stream_redis
from metering import stream
from metering.aggregator import aggregate_host
from metering.copying import copy_rows
from metering.models import Host, StreamCursor
from metering.period import WINDOW_MS, from_ms
from metering.readings import HELD_INTERVALS
from metering.samples import Known, Records, unpack

ALL_ENTRIES = 10**9
SAMPLES_A_COPY = 100_000
# Ten samples of a life between two saves of its row, as a run every 20 s would have.
TEXTS_A_READ = 10_000
TEXTS_A_PIPELINE = 1_000
GROUP, CONSUMER = "aggregation", "one"
HELD_MS = 2_000 * HELD_INTERVALS


def connect() -> None:
    """Open the connections that the first fold would open, and load what it would load."""
    Host.objects.count()
    list(stream.read_after(UUID(int=0), "0-0", limit=1))


def fold(host_id: UUID) -> int:
    """Fold all of a host's stream as the product does; return the number of samples."""
    total = 0
    while folded := aggregate_host(host_id, now=datetime.now(UTC)):
        total += folded
    return total


def product(host_id: UUID, servers: Servers) -> Cost:
    """Fold all of a host's stream as the product does; return what it cost."""
    return cost_of(partial(fold, host_id), servers)


def cursor_of(host_id: UUID) -> str:
    """Return the entry up to which a host's stream is folded."""
    return StreamCursor.objects.get(host_id=host_id).entry_id


# Only reading and adding: what no way can do without.


def floor(host_id: UUID, after: str, servers: Servers) -> tuple[Cost, int]:
    """Read the same batches, unpack them and sum their columns; return the sum of cpu_ns too."""
    cpu_ns = 0

    def work() -> int:
        nonlocal cpu_ns
        samples = 0
        for entry in stream.read_after(host_id, after, limit=ALL_ENTRIES):
            batch = unpack(entry.packed)
            sums = _column_sums(batch.samples) | _column_sums(batch.interfaces)
            cpu_ns += sums["cpu_ns"]
            samples += len(batch.samples)
        return samples

    return cost_of(work, servers), cpu_ns


def _column_sums(records: Records) -> dict[str, int]:
    names = records.dtype.names or ()
    return {name: int(records[name].sum()) for name in names if records[name].dtype.kind in "iu"}


# The samples as rows, aggregated where they lie.

_POSTGRESQL = f"""
WITH steps AS (
    SELECT life, read_ms,
        read_ms - 1 - (read_ms - 1) % {WINDOW_MS} AS window_ms,
        lag(read_ms) OVER earlier AS from_ms,
        cpu_ns - lag(cpu_ns) OVER earlier AS cpu,
        lag(memory_bytes) OVER earlier AS memory,
        rx_bytes - lag(rx_bytes) OVER earlier AS rx,
        tx_bytes - lag(tx_bytes) OVER earlier AS tx
    FROM bench_sample WINDOW earlier AS (PARTITION BY life ORDER BY read_ms)
), cut AS (
    SELECT *, read_ms - from_ms AS length, greatest(window_ms - from_ms, 0) AS before_ms
    FROM steps WHERE from_ms IS NOT NULL
), sums AS (
    SELECT life, window_ms, count(*) AS samples, max(before_ms) AS before_ms,
        sum(cpu)::bigint AS cpu, sum(cpu * before_ms / length)::bigint AS cpu_before,
        sum(memory * least(length, {HELD_MS}))::bigint AS memory,
        sum(memory * least(before_ms, {HELD_MS}))::bigint AS memory_before,
        sum(rx)::bigint AS rx, sum(rx * before_ms / length)::bigint AS rx_before,
        sum(tx)::bigint AS tx, sum(tx * before_ms / length)::bigint AS tx_before
    FROM cut GROUP BY life, window_ms
), shared AS (
    SELECT life, window_ms, samples, cpu - cpu_before AS cpu, memory - memory_before AS memory,
        rx - rx_before AS rx, tx - tx_before AS tx FROM sums
    UNION ALL
    SELECT life, window_ms - {WINDOW_MS}, 0, cpu_before, memory_before, rx_before, tx_before
    FROM sums WHERE before_ms > 0
)
INSERT INTO bench_usage AS kept
    (life, window_ms, cpu_ns, memory_byte_ms, rx_bytes, tx_bytes, sample_count)
SELECT life, window_ms, sum(cpu), sum(memory), sum(rx), sum(tx), sum(samples)
FROM shared GROUP BY life, window_ms
ON CONFLICT (life, window_ms) DO UPDATE SET
    cpu_ns = kept.cpu_ns + EXCLUDED.cpu_ns,
    memory_byte_ms = kept.memory_byte_ms + EXCLUDED.memory_byte_ms,
    rx_bytes = kept.rx_bytes + EXCLUDED.rx_bytes,
    tx_bytes = kept.tx_bytes + EXCLUDED.tx_bytes,
    sample_count = kept.sample_count + EXCLUDED.sample_count
"""  # noqa: S608 - constants


def postgresql(host_id: UUID, first: str, servers: Servers) -> tuple[Cost, Totals]:
    """Store every sample in an empty table by binary COPY, then aggregate all with lag().

    Only what is common to all ways: no gaps, no falling counters, no disk, no frozen windows.
    One sort of the whole backlog in memory is the best it can have; an index on the samples
    costs more at COPY than the sort it spares, so there is none.
    """
    batch = next(stream.read_after(host_id, "0-0", limit=1))
    copy_rows("bench_sample", _as_rows(batch.packed))

    def work() -> int:
        samples = 0
        with transaction.atomic():
            rows: list[Records] = []
            for entry in stream.read_after(host_id, first, limit=ALL_ENTRIES):
                rows.append(_as_rows(entry.packed))
                if sum(map(len, rows)) >= SAMPLES_A_COPY:
                    samples += _copy(rows)
                    rows = []
            samples += _copy(rows)
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL work_mem = '1GB'")
                cursor.execute("SET LOCAL jit = off")
                cursor.execute(_POSTGRESQL)
        return samples

    cost = cost_of(work, servers)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT sum(cpu_ns), sum(memory_byte_ms), sum(rx_bytes), sum(tx_bytes) FROM bench_usage"
        )
        totals = Totals(*map(int, cursor.fetchone()))
    return cost, totals


def _copy(rows: list[Records]) -> int:
    if not rows:
        return 0
    joined = np.concatenate(rows)
    copy_rows("bench_sample", joined)
    return len(joined)


def _as_rows(packed: bytes) -> Records:
    batch = unpack(packed)
    if not np.array_equal(batch.samples["life"], batch.interfaces["life"]):
        raise ValueError("the batch has not one interface for each sample, in the same order")
    rows = np.empty(len(batch.samples), np.dtype([(name, "<i8") for name in SAMPLE_COLUMNS]))
    for name in SAMPLE_COLUMNS:
        of_interface = name in {"rx_bytes", "tx_bytes"}
        rows[name] = (batch.interfaces if of_interface else batch.samples)[name]
    return rows


# An entry for each sample, a Decimal for each figure, and the ORM.

COUNTERS = ("cpu_ns", "rx_bytes", "tx_bytes", "disk_read_bytes", "disk_write_bytes")


def write_texts(host_id: UUID) -> None:
    """Append each sample of the host's stream as an entry of its own, with its figures as text."""
    server, key = stream_redis(), _text_key(host_id)
    server.delete(key)
    server.xgroup_create(key, GROUP, id="0", mkstream=True)
    pipeline = server.pipeline(transaction=False)
    for entry in stream.read_after(host_id, "0-0", limit=ALL_ENTRIES):
        for row in _as_rows(entry.packed):
            pipeline.xadd(key, _as_text(row))
            if len(pipeline) >= TEXTS_A_PIPELINE:
                pipeline.execute()
    pipeline.execute()


def _text_key(host_id: UUID) -> str:
    return f"bench:text:{host_id}"


def _as_text(row: np.void) -> dict[Any, Any]:
    known = Known(int(row["known"]))
    names = {"life", "read_ms", "memory_bytes", *COUNTERS}
    if Known.DISK_READ not in known:
        names -= {"disk_read_bytes", "disk_write_bytes"}
    return {name: str(row[name]) for name in names}


@dataclass
class _Plain:
    """The last sample of each life and the usage of each window, in dictionaries."""

    last: dict[int, dict[str, Decimal]] = field(default_factory=dict)
    usage: dict[tuple[int, int], dict[str, Decimal]] = field(default_factory=dict)
    touched: set[tuple[int, int]] = field(default_factory=set)

    def add(self, fields: Mapping[bytes, bytes]) -> None:
        """Add one sample."""
        life = int(fields[b"life"])
        sample = {
            name.decode(): Decimal(value.decode())
            for name, value in fields.items()
            if name != b"life"
        }
        before = self.last.get(life)
        self.last[life] = sample if before is None else before | sample
        if before is None or sample["read_ms"] <= before["read_ms"]:
            return
        length = sample["read_ms"] - before["read_ms"]
        growth = {
            name: max(sample[name] - before[name], Decimal(0))
            for name in COUNTERS
            if name in sample and name in before
        }
        growth["memory_byte_ms"] = before["memory_bytes"] * min(length, Decimal(HELD_MS))
        window = int(sample["read_ms"] - 1) // WINDOW_MS
        edge = Decimal(window * WINDOW_MS)
        if before["read_ms"] < edge:
            part = edge - before["read_ms"]
            earlier = {name: grown * part // length for name, grown in growth.items()}
            growth = {name: grown - earlier[name] for name, grown in growth.items()}
            self._grow((life, window - 1), earlier)
        self._grow((life, window), growth)
        self.usage[life, window]["sample_count"] += 1

    def _grow(self, key: tuple[int, int], growth: dict[str, Decimal]) -> None:
        self.touched.add(key)
        if key not in self.usage:
            names = (*COUNTERS, "memory_byte_ms", "sample_count")
            self.usage[key] = dict.fromkeys(names, Decimal(0))
        usage = self.usage[key]
        for name, grown in growth.items():
            usage[name] += grown

    def save(self) -> None:
        """Save each row that was touched since the last save."""
        for life, window in self.touched:
            PlainUsage.objects.update_or_create(
                life=life,
                window_start=from_ms(window * WINDOW_MS),
                defaults=self.usage[life, window],
            )
        self.touched.clear()


def straightforward(host_id: UUID, lives: int, servers: Servers) -> tuple[Cost, Totals]:
    """Read entries of one sample each, add them up in Decimal, save rows through the ORM.

    A read takes many entries, and one transaction saves the rows they touch.
    """
    server, key, plain = stream_redis(), _text_key(host_id), _Plain()

    def entries(limit: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
        # redis-py types the answer as a union over all protocols.
        streams: Any = server.xreadgroup(GROUP, CONSUMER, {key: ">"}, count=limit)
        return streams[0][1] if streams else []

    def take(found: Iterable[tuple[bytes, dict[bytes, bytes]]]) -> int:
        ids = []
        for entry_id, fields in found:
            plain.add(fields)
            ids.append(entry_id)
        with transaction.atomic():
            plain.save()
        server.xack(key, GROUP, *ids)
        return len(ids)

    def work() -> int:
        samples = 0
        while found := entries(TEXTS_A_READ):
            samples += take(found)
        return samples

    # The first reading of each is its base line here as it is for the others.
    take(entries(lives))
    cost = cost_of(work, servers)
    names = ("cpu_ns", "memory_byte_ms", "rx_bytes", "tx_bytes")
    sums = PlainUsage.objects.aggregate(**{f"{name}_sum": Sum(name) for name in names})
    return cost, Totals(**{name: int(sums[f"{name}_sum"]) for name in names})
