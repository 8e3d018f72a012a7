"""Simulated sandboxes through collector, Redis, aggregation and PostgreSQL."""

from __future__ import annotations

import gc
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.db.models import Sum
from pytest_django.fixtures import Settings

from metering import aggregator, stream
from metering.collector import collect_host
from metering.meters import Meter
from metering.models import (
    AccountRegistration,
    CounterReset,
    Gap,
    InterfaceReading,
    LateUsage,
    Life,
    LifeReading,
    NetworkUsageRecord,
    Refusal,
    StreamCursor,
    UsageRecord,
)
from metering.period import to_ms, window_start
from metering.queries import coverage, host_states, newest_reading_at, streams_behind
from metering.services import freeze_account, register_account, register_host
from metering.source import SourceError
from tests.metering.fleet import MINUTE, SECOND, START, TICK, Fleet

pytestmark = pytest.mark.django_db

COUNTERS = (Meter.CPU, Meter.NETWORK_EGRESS, Meter.NETWORK_INGRESS, Meter.DISK_WRITE)


def everything_stored() -> list[Any]:
    """Return every row that a fold can change, but for the counts of what came too late."""
    return [
        sorted(map(repr, model.objects.values()))
        for model in (UsageRecord, NetworkUsageRecord, Gap, CounterReset, LateUsage)
    ] + [list(InterfaceReading.objects.order_by("pk").values())]


def assert_segments_sum_to_their_readings() -> None:
    for reading in LifeReading.objects.all():
        sums = UsageRecord.objects.filter(life=reading.life_id).aggregate(
            cpu=Sum("cpu_ns"), write=Sum("disk_write_bytes")
        )
        assert (sums["cpu"] or 0) == reading.cpu_ns - reading.base_cpu_ns
        assert (sums["write"] or 0) == reading.disk_write_bytes - reading.base_disk_write_bytes
    for interface in InterfaceReading.objects.all():
        sums = NetworkUsageRecord.objects.filter(interface=interface).aggregate(
            rx=Sum("rx_bytes"), tx=Sum("tx_bytes")
        )
        assert sums["rx"] == interface.rx_bytes - interface.base_rx_bytes
        assert sums["tx"] == interface.tx_bytes - interface.base_tx_bytes


def test_usage_is_the_closed_form_and_gaps_explain_the_rest_of_memory() -> None:
    fleet = Fleet()
    sandboxes = [fleet.add(f"sbx-{n}", cpu_ns_per_ms=n * 1001) for n in range(1, 4)]
    fleet.run(20 * MINUTE, tick=5 * SECOND)
    expected = fleet.closed_form()
    usage = fleet.usage()
    for meter in COUNTERS:
        assert usage[meter] == expected[meter]
    # Each was first read five seconds after it began; nothing says what it held until then.
    gaps = Gap.objects.filter(life__host=fleet.host_id)
    assert {gap.reason for gap in gaps} == {Gap.Reason.BEFORE_FIRST_SAMPLE}
    unmeasured = len(sandboxes) * 5000 * 64_000_001
    assert usage[Meter.MEMORY] == expected[Meter.MEMORY] - unmeasured
    covered = coverage(fleet.account_id, fleet.everything)
    assert covered.running_ms == 3 * 20 * 60 * 1000
    assert covered.running_ms - covered.measured_ms == 3 * 5000
    assert newest_reading_at(fleet.account_id) == fleet.now
    assert_segments_sum_to_their_readings()


def test_a_life_has_one_record_a_window_and_they_chain() -> None:
    fleet = Fleet()
    fleet.add("sbx")
    fleet.run(40 * MINUTE, tick=30 * SECOND)
    records = list(UsageRecord.objects.order_by("window_start"))
    assert [record.window_start for record in records] == [
        window_start(START) + n * 15 * MINUTE for n in range(4)
    ]
    for before, after in pairwise(records):
        assert before.closing_cpu_ns == after.opening_cpu_ns
    assert all(r.closing_cpu_ns - r.opening_cpu_ns == r.cpu_ns for r in records)
    assert sum(record.sample_count for record in records) == 80


def test_folding_the_stream_again_from_the_start_changes_nothing() -> None:
    fleet = Fleet()
    fleet.add("sbx")
    fleet.run(2 * MINUTE)
    before = everything_stored()
    assert fleet.aggregate() == 0
    StreamCursor.objects.update(entry_id="0-0", sequence=0)
    assert fleet.aggregate() == 60
    assert everything_stored() == before
    assert LifeReading.objects.get().out_of_order_count == 60


def test_every_pass_and_every_aggregation_done_twice_changes_nothing() -> None:
    once, twice = Fleet(), Fleet()
    for fleet in (once, twice):
        fleet.add("sbx", ended_at=START + 90 * SECOND)
        for _ in range(60):
            fleet.now += TICK
            for _ in range(2 if fleet is twice else 1):
                fleet.collect()
                fleet.aggregate()
    assert once.usage() == twice.usage()
    assert Life.objects.filter(host=twice.host_id).count() == 1


def test_thirty_percent_of_samples_dropped_change_no_counter() -> None:
    fleet = Fleet()
    fleet.source.share = 0.3
    for n in range(5):
        fleet.add(f"sbx-{n}")
    fleet.run(16 * MINUTE)
    fleet.source.share = 0.0
    fleet.run(TICK)
    expected, usage = fleet.closed_form(), fleet.usage()
    for meter in COUNTERS:
        assert usage[meter] == expected[meter]
    assert_segments_sum_to_their_readings()
    assert UsageRecord.objects.aggregate(n=Sum("sample_count"))["n"] < 5 * 481 * 0.8


def test_an_outage_of_the_collector_costs_no_counter_and_leaves_a_gap() -> None:
    fleet = Fleet()
    fleet.add("sbx")
    fleet.run(TICK)
    fleet.now += timedelta(hours=10)
    fleet.run(TICK)
    assert fleet.usage()[Meter.CPU] == fleet.closed_form()[Meter.CPU]
    (gap,) = Gap.objects.filter(reason=Gap.Reason.COLLECTOR_DOWN)
    assert gap.start == START + TICK + 10 * SECOND
    assert gap.end == fleet.now
    assert UsageRecord.objects.count() == 41


def test_a_restarted_sandbox_begins_a_life_that_counts_from_zero() -> None:
    fleet = Fleet()
    fleet.add("sbx", ended_at=START + MINUTE)
    fleet.run(2 * MINUTE)
    fleet.add("sbx", container_id="another")
    fleet.run(MINUTE)
    first, second = Life.objects.order_by("started_at")
    assert first.sandbox_id == second.sandbox_id
    assert (first.ended_at, second.ended_at) == (START + MINUTE, None)
    # The first life's last two seconds were never read: a gap says so, nobody pays.
    gap = Gap.objects.get(life=first, reason=Gap.Reason.ENDED_BETWEEN_READINGS)
    unread_ms = to_ms(gap.end) - to_ms(gap.start)
    assert unread_ms <= TICK / timedelta(milliseconds=1)
    assert fleet.usage()[Meter.CPU] == fleet.closed_form()[Meter.CPU] - unread_ms * 500_001
    assert_segments_sum_to_their_readings()


def test_a_life_between_two_passes_is_recorded_with_its_exact_time() -> None:
    fleet = Fleet()
    fleet.run(TICK)
    fleet.add("short", started_at=fleet.now, ended_at=fleet.now + SECOND)
    fleet.run(TICK)
    life = Life.objects.get()
    assert life.ended_at == life.started_at + SECOND
    assert UsageRecord.objects.get().running_ms == 1000
    assert {gap.meter for gap in Gap.objects.all()} == {"memory", "counters"}


def test_what_ran_before_its_account_was_known_is_a_base_line() -> None:
    fleet = Fleet(registered_at=START + MINUTE)
    fleet.add("old")
    fleet.now = START + 2 * MINUTE
    fleet.run(MINUTE)
    assert fleet.usage()[Meter.CPU] == 500_001 * 58_000
    reading = LifeReading.objects.get()
    assert reading.base_cpu_ns == 500_001 * 122_000
    assert_segments_sum_to_their_readings()


def test_growth_in_a_frozen_window_becomes_late_usage_and_leaves_the_record_alone() -> None:
    fleet = Fleet()
    fleet.add("sbx")
    fleet.run(MINUTE)
    before = UsageRecord.objects.values().get()
    network_before = NetworkUsageRecord.objects.values().get()
    freeze_account(fleet.account_id, until=window_start(START) + 15 * MINUTE)
    fleet.run(20 * MINUTE)
    frozen, _open = UsageRecord.objects.order_by("window_start").values()[:2]
    assert frozen == before
    assert NetworkUsageRecord.objects.order_by("window_start").values()[0] == network_before
    late = {row.quantity_name: row.quantity for row in LateUsage.objects.all()}
    unfrozen = fleet.closed_form()
    assert late["cpu_ns"] + fleet.usage()[Meter.CPU] == unfrozen[Meter.CPU]
    assert late["tx_bytes"] + fleet.usage()[Meter.NETWORK_EGRESS] == unfrozen[Meter.NETWORK_EGRESS]
    before_late = LateUsage.objects.order_by("pk").values_list("quantity", flat=True)
    assert fleet.aggregate() == 0
    assert list(before_late) == list(
        LateUsage.objects.order_by("pk").values_list("quantity", flat=True)
    )


def test_a_freeze_never_moves_back() -> None:
    fleet = Fleet()
    freeze_account(fleet.account_id, until=START)
    freeze_account(fleet.account_id, until=START - MINUTE)
    assert AccountRegistration.objects.get(pk=fleet.account_id).frozen_until == START


def test_registering_an_account_again_keeps_what_it_was_first() -> None:
    fleet = Fleet()
    register_account(account_id=fleet.account_id, time_zone="Asia/Tokyo", registered_at=fleet.now)
    account = AccountRegistration.objects.get(pk=fleet.account_id)
    assert (account.registered_at, account.time_zone) == (START, "UTC")


# The Docker SDK leaves the socket of a connection that failed to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_engine_that_does_not_answer_leaves_its_reason_on_the_host() -> None:
    fleet = Fleet()
    register_host(
        host_id=fleet.host_id, name="gone", endpoint="unix:///nowhere/docker.sock", now=START
    )
    with pytest.raises(SourceError, match="did not answer"):
        collect_host(fleet.host_id, now=START)
    gc.collect()
    (state,) = host_states(now=START)
    assert "The Docker engine at unix:///nowhere/docker.sock did not answer" in state.state
    fleet.add("sbx")
    fleet.run(TICK)
    (state,) = host_states(now=fleet.now)
    assert state.state == "metered"


def test_a_redis_that_takes_no_batch_leaves_its_reason_and_costs_no_counter(
    settings: Settings,
) -> None:
    fleet = Fleet()
    fleet.add("sbx")
    fleet.run(TICK)
    working = settings.STREAM_REDIS_URL
    settings.STREAM_REDIS_URL = "unix:///nowhere/redis.sock"
    stream._redis.cache_clear()
    fleet.now += TICK
    with pytest.raises(stream.StreamUnavailableError, match="did not take the batch"):
        fleet.collect()
    with pytest.raises(stream.StreamUnavailableError, match="did not give the stream"):
        fleet.aggregate()
    (state,) = host_states(now=fleet.now)
    assert "did not take the batch" in state.state
    settings.STREAM_REDIS_URL = working
    stream._redis.cache_clear()
    fleet.run(TICK)
    (state,) = host_states(now=fleet.now)
    assert state.state == "metered"
    assert fleet.usage()[Meter.CPU] == fleet.closed_form()[Meter.CPU]


def test_a_batch_lost_from_the_stream_is_seen_and_costs_no_counter() -> None:
    fleet = Fleet()
    fleet.add("sbx")
    fleet.now += TICK
    fleet.collect()
    (entry,) = stream.read_after(fleet.host_id, "0-0", limit=10)
    stream._redis().xdel(f"metrics:stream:{fleet.host_id}", entry.entry_id)
    fleet.run(TICK)
    cursor = StreamCursor.objects.get(host=fleet.host_id)
    assert (cursor.lost_batch_count, cursor.sequence) == (1, 2)
    assert fleet.usage()[Meter.CPU] == fleet.closed_form()[Meter.CPU]


def test_a_redis_that_lost_its_data_is_seen_and_costs_no_counter() -> None:
    fleet = Fleet()
    fleet.add("sbx")
    fleet.run(4 * TICK)
    keys = [f"metrics:{name}:{fleet.host_id}" for name in ("stream", "sequence")]
    fleet.now += TICK
    fleet.collect()
    stream._redis().delete(*keys)
    fleet.run(TICK)
    cursor = StreamCursor.objects.get(host=fleet.host_id)
    # The number of the batch that was lost is not given again.
    assert (cursor.lost_batch_count, cursor.sequence) == (1, 6)
    assert fleet.usage()[Meter.CPU] == fleet.closed_form()[Meter.CPU]


def test_a_life_that_was_over_before_its_account_was_known_bills_and_refuses_nothing() -> None:
    fleet = Fleet(registered_at=START + MINUTE)
    fleet.add("old", started_at=START - timedelta(days=50), ended_at=START - timedelta(days=49))
    fleet.now = START + 2 * MINUTE
    fleet.run(10 * SECOND)
    assert Life.objects.get().ended_at == START - timedelta(days=49)
    assert fleet.usage() == {}
    assert not Refusal.objects.exists()
    assert not UsageRecord.objects.exists()


def test_many_commits_give_what_one_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    many, one = Fleet(), Fleet()
    for fleet in (many, one):
        fleet.add("a")
        fleet.add("b")
        for _ in range(45):
            fleet.now += 30 * SECOND
            fleet.collect()
    one.aggregate()
    monkeypatch.setattr(aggregator, "SAMPLES_PER_COMMIT", 5)
    assert many.aggregate() == 90
    assert many.usage() == one.usage()


def test_trimming_never_passes_the_cursor() -> None:
    fleet = Fleet()
    fleet.add("sbx")
    for _ in range(300):
        fleet.now += TICK
        fleet.collect()
    entries = list(stream.read_after(fleet.host_id, "0-0", limit=1000))
    far_ahead = fleet.now + timedelta(days=365)
    stream.trim(fleet.host_id, folded=entries[200].entry_id, now=far_ahead)
    left = list(stream.read_after(fleet.host_id, "0-0", limit=1000))
    assert len(left) < 300
    assert left[-100:] == entries[-100:]


def test_a_host_is_behind_until_it_is_folded_past_the_time_asked_for() -> None:
    fleet = Fleet()
    fleet.add("sbx", ended_at=START + MINUTE)
    fleet.now += TICK
    fleet.collect()
    assert streams_behind(fleet.account_id, until=START + SECOND) == [fleet.host.name]
    fleet.aggregate()
    assert streams_behind(fleet.account_id, until=START + SECOND) == []
    assert streams_behind(fleet.account_id, until=START + 10 * MINUTE) == [fleet.host.name]
    fleet.run(2 * MINUTE)
    # Its only life is over and folded: the host may fall behind without holding this account.
    assert streams_behind(fleet.account_id, until=fleet.now + timedelta(days=1)) == []
