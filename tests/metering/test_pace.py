"""How often a host is read, and a sandbox that has an interval of its own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.db.models import Sum

from metering import stream
from metering.meters import Meter
from metering.models import Gap, Sandbox, StreamCursor, UsageRecord
from metering.pace import SLOW_INTERVAL, interval_of, is_due
from tests.metering.fleet import MINUTE, SECOND, START, TICK, Fleet, Machine

pytestmark = pytest.mark.django_db


def pace(fleet: Fleet, *, later: timedelta = timedelta(0)) -> timedelta:
    cursor = StreamCursor.objects.get(host=fleet.host_id)
    return interval_of(cursor, now=datetime.now(UTC) + later)


def samples(fleet: Fleet) -> int:
    records = UsageRecord.objects.filter(life__host=fleet.host_id)
    return int(records.aggregate(n=Sum("sample_count"))["n"])


@pytest.mark.parametrize(
    ("since_s", "interval_s", "due"),
    [
        (None, 2, True),
        (0, 2, False),
        (0.9, 2, False),
        (1, 2, True),
        (8.9, 10, False),
        (9, 10, True),
    ],
)
def test_a_pass_is_due_an_interval_after_the_last_give_or_take_half_a_tick(
    since_s: float | None, interval_s: int, *, due: bool
) -> None:
    last = None if since_s is None else START - since_s * SECOND
    assert is_due(last, interval_s * SECOND, now=START) == due


def test_a_stream_that_is_not_folded_for_a_minute_slows_passes_down_until_it_is() -> None:
    fleet = Fleet()
    fleet.add("sbx")
    assert pace(fleet) == TICK
    fleet.now += TICK
    fleet.collect()
    assert pace(fleet, later=59 * SECOND) == TICK
    assert pace(fleet, later=62 * SECOND) == SLOW_INTERVAL
    fleet.aggregate()
    assert pace(fleet, later=timedelta(hours=1)) == TICK


def test_a_redis_that_is_nearly_full_slows_passes_down_until_it_is_not() -> None:
    fleet = Fleet()
    client = stream._redis()
    limit = client.config_get("maxmemory")["maxmemory"]
    used = client.info("memory")["used_memory"]
    try:
        client.config_set("maxmemory", int(used / 0.75))
        assert pace(fleet) == SLOW_INTERVAL
        client.config_set("maxmemory", int(used / 0.5))
        assert pace(fleet) == TICK
    finally:
        client.config_set("maxmemory", limit)


def test_a_redis_without_a_limit_is_never_full() -> None:
    assert stream.memory_share() == 0.0


def test_under_back_pressure_counters_are_exact_and_memory_is_held_for_fifty_seconds() -> None:
    fleet = Fleet()
    machine = Machine(fleet)
    machine.add("sbx")
    machine.run(2 * MINUTE, tick=SLOW_INTERVAL)
    machine.run(MINUTE)
    fleet.now += 40 * SECOND
    machine.run(10 * SECOND, tick=SLOW_INTERVAL)
    fleet.now += 50 * SECOND
    machine.run(10 * SECOND, tick=SLOW_INTERVAL)
    assert fleet.usage()[Meter.CPU] == machine.busy_ms() * 10**6
    gaps = Gap.objects.exclude(reason=Gap.Reason.BEFORE_FIRST_SAMPLE).order_by("start")
    # After a reading of a quick pass ten seconds, after one of a slow pass fifty.
    assert [gap.end - gap.start for gap in gaps] == [40 * SECOND, 10 * SECOND]


@pytest.mark.parametrize("slow", [False, True])
def test_a_sandbox_with_an_interval_of_its_own_is_read_no_more_often(*, slow: bool) -> None:
    fleet = Fleet(registered_at=START - MINUTE)
    machine = Machine(fleet)
    machine.add("sbx")
    # It is read when it is found, and from then on in its turn.
    machine.run(TICK)
    Sandbox.objects.update(interval_s=10)
    first_ms = 2000
    tick = SLOW_INTERVAL if slow else TICK
    machine.run(5 * MINUTE, tick=tick)
    assert 29 <= samples(fleet) <= 32
    machine.boxes[0].lives[0] = (START, fleet.now + SECOND)
    machine.run(10 * SECOND, tick=tick)
    lived_ms = 5 * 60_000 + first_ms + 1000
    record = UsageRecord.objects.aggregate(
        running=Sum("running_ms"), measured=Sum("measured_ms"), memory=Sum("memory_byte_ms")
    )
    assert record["running"] == lived_ms
    # It is held for five of its own intervals: but for what was before its first reading
    # nothing is missing.
    assert record["measured"] == lived_ms - first_ms
    assert record["memory"] == 1000 * (lived_ms - first_ms)
    reasons = set(Gap.objects.values_list("meter", "reason"))
    assert reasons == {("memory", "before_first_sample"), ("counters", "ended_between_readings")}
