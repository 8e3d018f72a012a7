"""Evidence says of each life what the records say, and sums to the usage it is evidence of."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from metering.evidence import LifeEvidence, evidence_of_spans
from metering.meters import Meter
from metering.models import Life, NetworkUsageRecord, UsageRecord
from metering.period import Period
from metering.totals import usage_of_spans
from tests.metering.batches import Host

pytestmark = pytest.mark.django_db

START = datetime(2026, 11, 2, 10, 7, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
EVERYTHING = Period(START - DAY, START + DAY)
EDGE = datetime(2026, 11, 2, 10, 45, tzinfo=UTC)
SPANS = [Period(START - DAY, EDGE), Period(EDGE, START + DAY), EVERYTHING]


@pytest.fixture
def account_id() -> UUID:
    host = Host()
    account_id = host.account()
    for sandbox_id, begin, minutes in [("b", 0, 41), ("a", 50, 33), ("a", 3, 30)]:
        since = START + begin * MINUTE
        life = host.start(account_id, sandbox_id, since)
        host.run(life, since, since + minutes * MINUTE, cpu_ns_per_s=10**9 + begin)
        host.stop(life, since + minutes * MINUTE)
    other = host.account()
    life = host.start(other, "a", START)
    host.run(life, START, START + 10 * MINUTE, cpu_ns_per_s=10**9)
    host.fold(START + 200 * MINUTE)
    return account_id


def test_evidence_sums_to_the_usage_of_each_span(account_id: UUID) -> None:
    spans = [(account_id, span) for span in SPANS]
    found = evidence_of_spans(spans)
    sums = [
        {meter: sum(row.quantity for row in rows) for meter, rows in of_span.items()}
        for of_span in found
    ]
    assert sums == usage_of_spans(spans)
    assert sums[2][Meter.CPU] == sums[0][Meter.CPU] + sums[1][Meter.CPU] > 0
    assert [row.sandbox_id for row in found[2][Meter.CPU]] == ["a", "a", "b"]


def test_evidence_of_a_life_is_what_its_records_say(account_id: UUID) -> None:
    [found] = evidence_of_spans([(account_id, EVERYTHING)])
    for row in found[Meter.CPU]:
        records = list(UsageRecord.objects.filter(life_id=row.life_id).order_by("window_start"))
        life = Life.objects.get(pk=row.life_id)
        assert (row.container_id, row.started_at) == (life.container_id, life.started_at)
        assert row.record_count == len(records) > 1
        assert (row.first_window, row.last_window) == (
            records[0].window_start,
            records[-1].window_start,
        )
        assert (row.opening, row.closing) == (
            records[0].opening_cpu_ns,
            records[-1].closing_cpu_ns,
        )
        ends = (row.closing or 0) - (row.opening or 0)
        assert row.quantity == ends == sum(r.cpu_ns for r in records)
        assert row.sample_count == sum(r.sample_count for r in records)
        assert row.applied_ms == sum(r.running_ms for r in records)
        assert row.measured_ms == sum(r.measured_ms for r in records)
        assert row.records_hash == hashlib.sha256(_written(records).encode()).hexdigest()


def _written(records: list[UsageRecord]) -> str:
    names = [
        *("cpu_ns", "memory_byte_ms", "gpu_ms", "disk_read_bytes", "disk_write_bytes"),
        *("cpu_allocated_ns", "memory_allocated_byte_ms"),
        *("opening_cpu_ns", "closing_cpu_ns", "opening_disk_read_bytes"),
        *("closing_disk_read_bytes", "opening_disk_write_bytes", "closing_disk_write_bytes"),
        "sample_count",
    ]
    return "\n".join(
        " ".join([str(int(r.window_start.timestamp())), *(str(getattr(r, name)) for name in names)])
        for r in records
    )


def test_counters_of_a_lifes_interfaces_are_summed(account_id: UUID) -> None:
    [life] = Life.objects.filter(sandbox__sandbox_id="b", sandbox__account_id=account_id)
    windows = UsageRecord.objects.filter(life=life).values_list("window_start", flat=True)
    before = _egress(account_id, life.pk)
    expected = {
        name: getattr(before, name) for name in ("opening", "closing", "quantity", "record_count")
    }
    for number, name in enumerate(["eth8", "eth9"]):
        interface = life.interfaces.create(
            interface=10_000 + number,
            name=name,
            read_ms=0,
            rx_bytes=0,
            base_rx_bytes=0,
            tx_bytes=0,
            base_tx_bytes=0,
            known=3,
        )
        counter = 100 + number
        expected["opening"] += counter
        for window in sorted(windows):
            NetworkUsageRecord.objects.create(
                interface=interface,
                window_start=window,
                rx_bytes=0,
                opening_rx_bytes=0,
                closing_rx_bytes=0,
                tx_bytes=7,
                opening_tx_bytes=counter,
                closing_tx_bytes=counter + 7,
                sample_count=1,
            )
            counter += 7
            expected["quantity"] += 7
            expected["record_count"] += 1
        expected["closing"] += counter
    after = _egress(account_id, life.pk)
    assert {name: getattr(after, name) for name in expected} == expected
    assert after.records_hash != before.records_hash


def _egress(account_id: UUID, life_id: int) -> LifeEvidence:
    [found] = evidence_of_spans([(account_id, EVERYTHING)])
    [row] = [row for row in found[Meter.NETWORK_EGRESS] if row.life_id == life_id]
    return row


def test_many_spans_cost_three_queries(account_id: UUID) -> None:
    with CaptureQueriesContext(connection) as queries:
        evidence_of_spans([(account_id, span) for span in SPANS])
    assert len(queries) == 3
    assert evidence_of_spans([]) == []
