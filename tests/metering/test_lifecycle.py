"""Lives through passes, stream and folds: what each is billed, to the millisecond."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db.models import Sum

from metering import aggregator, collector, stream
from metering.aggregation import fold_lives
from metering.collector import collect_containers, collect_sandbox, collect_storage
from metering.lives import record_lives
from metering.meters import Meter
from metering.models import (
    Gap,
    Host,
    Life,
    LifeReading,
    Refusal,
    Sandbox,
    StorageUsageRecord,
    StreamCursor,
    UsageRecord,
)
from metering.period import Period, to_ms
from metering.readings import Fold
from metering.samples import Records, State
from metering.simulator import OFFER
from metering.source import UNKNOWN_GPUS
from tests.metering.fleet import CPU_NS_PER_MS, MINUTE, SECOND, START, TICK, Fleet, Machine

pytestmark = pytest.mark.django_db

HALF = SECOND / 2


def sums(life: Life | None = None) -> dict[str, int]:
    """Return what was recorded of a life, or of all."""
    records = UsageRecord.objects.filter(life=life) if life else UsageRecord.objects.all()
    names = ("running_ms", "cpu_allocated_ns", "memory_allocated_byte_ms", "gpu_ms", "cpu_ns")
    found = records.aggregate(**{name: Sum(name) for name in names})
    return {name: int(found[name] or 0) for name in names}


def stored(life: Life) -> dict[str, int]:
    names = ("storage_byte_ms", "existing_ms", "measured_ms")
    found = StorageUsageRecord.objects.filter(life=life).aggregate(
        **{name: Sum(name) for name in names}
    )
    return {name: int(found[name] or 0) for name in names}


def test_a_thousand_lives_of_a_second_between_two_ticks_are_exact() -> None:
    machine = Machine(Fleet())
    machine.run(TICK)
    start = machine.fleet.now + HALF
    for number in range(1000):
        machine.add(
            f"box-{number}",
            (start, start + SECOND),
            # A part is removed at once, so that no inspection tells of it.
            removed_at=start + SECOND + HALF / 2 if number % 4 == 0 else None,
            cpu_limit_micro=500_000,
            memory_limit_bytes=1000,
            gpu_count=2,
        )
    machine.run(2 * TICK)
    assert Life.objects.count() == 1000
    expected = {
        "running_ms": 1000,
        "cpu_allocated_ns": 500_000 * 1000,
        "memory_allocated_byte_ms": 1000 * 1000,
        "gpu_ms": 2 * 1000,
    }
    for removed, gaps in ((False, set()), (True, {("allocated", "limits_unknown")})):
        lives = Life.objects.filter(gone_at__isnull=not removed)
        assert len(lives) == (250 if removed else 750)
        for life in lives:
            assert life.ended_at == start + SECOND
        unread = {("memory", "before_first_sample"), ("counters", "ended_between_readings")}
        found = Gap.objects.filter(life__in=lives)
        # Its storage is told to be over, and was never read.
        unread |= {("storage", "before_first_sample")} if removed else set()
        assert set(found.values_list("meter", "reason")) == unread | gaps
        records = UsageRecord.objects.filter(life__in=lives)
        assert len(records) == len(lives)
        for name, value in expected.items():
            is_known = not removed or name == "running_ms"
            values = set(records.values_list(name, flat=True))
            assert values == {value if is_known else 0}


def test_a_life_recorded_as_it_started_is_exact_though_it_was_removed_at_once() -> None:
    machine = Machine(Fleet())
    fleet = machine.fleet
    machine.run(TICK)
    box = machine.add("sbx", (fleet.now + HALF, fleet.now + 3 * HALF), gpu_count=1)
    box.removed_at = fleet.now + 3 * HALF
    fleet.now += SECOND
    host = Host.objects.get(pk=fleet.host_id)
    record_lives(host, machine.inspect(["sbx"]), now=fleet.now)
    fleet.now -= SECOND
    machine.run(2 * TICK)
    assert sums()["running_ms"] == sums()["gpu_ms"] == 1000
    assert sums()["cpu_allocated_ns"] == 10**9
    assert Life.objects.count() == 1
    assert not Gap.objects.filter(reason=Gap.Reason.LIMITS_UNKNOWN).exists()


@pytest.mark.parametrize(
    "paused_s",
    [(10.5, 11.25), (9.25, 31.5), (10, 20), (0.25, 1), (57.25, 58.5)],
    ids=["between two ticks", "over some", "on ticks", "before the first", "near the end"],
)
@pytest.mark.parametrize("ended_s", [None, 58.75])
def test_what_counts_in_which_state(paused_s: tuple[float, float], ended_s: float | None) -> None:
    fleet = Fleet()
    paused = (START + paused_s[0] * SECOND, START + paused_s[1] * SECOND)
    facts = {"cpu_limit_micro": 1_500_000, "memory_limit_bytes": 3000, "gpu_count": 2}
    sandbox = fleet.add(
        "sbx",
        paused=paused,
        ended_at=START + ended_s * SECOND if ended_s else None,
        **facts,
    )
    fleet.run(2 * MINUTE)
    usage, expected = fleet.usage(), sandbox.usage(Period(START, fleet.now))
    exact = (Meter.CPU_ALLOCATED, Meter.MEMORY_ALLOCATED, Meter.GPU)
    assert {meter: usage[meter] for meter in exact} == {m: expected[m] for m in exact}
    # Memory from its first reading on, counters up to the last.
    unread_memory_ms = 2000
    assert usage[Meter.MEMORY] == expected[Meter.MEMORY] - unread_memory_ms * 64_000_001
    unread = Gap.objects.filter(reason=Gap.Reason.ENDED_BETWEEN_READINGS)
    busy_ms = sum(
        sandbox.alive_ms(span) - sandbox.paused_ms(span)
        for span in (Period(gap.start, gap.end) for gap in unread)
    )
    assert usage[Meter.CPU] == expected[Meter.CPU] - busy_ms * 500_001


def test_a_pause_in_a_life_that_was_never_read_counts_as_one() -> None:
    machine = Machine(Fleet())
    at = START + TICK
    machine.run(TICK)
    box = machine.add("sbx", (at + HALF, at + 3 * HALF))
    box.pauses.append((at + SECOND, at + SECOND + HALF / 2))
    machine.run(2 * TICK)
    assert sums()["running_ms"] == 1000
    assert sums()["cpu_allocated_ns"] == 750 * 10**6


def test_a_sandbox_without_limits_is_allocated_what_its_host_offers() -> None:
    fleet = Fleet()
    fleet.add("sbx", ended_at=START + 9 * SECOND)
    fleet.run(20 * SECOND)
    assert sums()["cpu_allocated_ns"] == OFFER.cpu_micro * 9000
    assert sums()["memory_allocated_byte_ms"] == OFFER.memory_bytes * 9000


def test_limits_that_an_update_changed_count_from_the_next_reading() -> None:
    machine = Machine(Fleet())
    box = machine.add("sbx", cpu_limit_micro=10**6)
    machine.run(10 * SECOND)
    box.cpu_limit_micro = 3 * 10**6
    box.updates.append(machine.fleet.now + SECOND)
    machine.run(10 * SECOND)
    assert Life.objects.get().cpu_limit_micro == 3 * 10**6
    # The reading at twelve seconds is the first to show it.
    assert sums()["cpu_allocated_ns"] == 10**6 * 12_000 + 3 * 10**6 * 8000


@pytest.mark.parametrize(("offered", "counted"), [(4, 4), (None, 0)])
def test_all_gpus_of_a_host_are_as_many_as_it_tells_of(offered: int | None, counted: int) -> None:
    machine = Machine(Fleet(), gpus=offered)
    machine.add("sbx", (START, START + 9 * SECOND), gpu_count=UNKNOWN_GPUS)
    machine.run(20 * SECOND)
    assert sums()["gpu_ms"] == counted * 9000
    unknown = Gap.objects.filter(reason=Gap.Reason.LIMITS_UNKNOWN)
    spans = [] if offered else [("gpu", START, START + 9 * SECOND)]
    assert list(unknown.values_list("meter", "start", "end")) == spans


def with_storage(machine: Machine, minutes: int) -> None:
    """Collect for so long, with a reading of storage every five minutes."""
    for _ in range(minutes):
        machine.run(MINUTE, tick=30 * SECOND)
        if machine.fleet.now.minute % 5 == 0:
            collect_storage(machine.fleet.host_id, now=machine.fleet.now, source=machine)
    machine.fleet.aggregate()


def test_storage_counts_from_its_first_reading_until_the_container_is_removed() -> None:
    machine = Machine(Fleet())
    removed_at = START + 31 * MINUTE + SECOND
    machine.add("sbx", (START, START + 6 * MINUTE), removed_at=removed_at, layer_bytes=7)
    with_storage(machine, 40)
    life = Life.objects.get()
    # It is first read at ten past, after three minutes.
    assert (life.ended_at, life.gone_at) == (START + 6 * MINUTE, removed_at)
    existed_ms = (31 * 60 + 1) * 1000
    assert stored(life) == {
        "existing_ms": existed_ms,
        "measured_ms": existed_ms - 3 * 60_000,
        "storage_byte_ms": 7 * (existed_ms - 3 * 60_000),
    }
    gap = Gap.objects.get(meter="storage")
    assert (gap.start, gap.end) == (START, START + 3 * MINUTE)
    assert gap.reason == Gap.Reason.BEFORE_FIRST_SAMPLE


def test_storage_moves_to_the_next_life_and_is_counted_once() -> None:
    machine = Machine(Fleet())
    again, removed_at = START + 12 * MINUTE, START + 26 * MINUTE
    machine.add("sbx", (START, START + 6 * MINUTE), (again, None), removed_at=removed_at)
    machine.boxes[0].lives[1] = (again, removed_at)
    with_storage(machine, 30)
    first, second = Life.objects.order_by("started_ns")
    assert (first.gone_at, second.gone_at) == (again, removed_at)
    assert stored(first)["existing_ms"] == 12 * 60_000
    assert stored(second)["existing_ms"] == 14 * 60_000
    # Until its own first reading nothing is known of the second's: one minute.
    measured = [stored(life)["measured_ms"] for life in (first, second)]
    assert measured == [9 * 60_000, 13 * 60_000]


def test_storage_is_held_for_twenty_five_minutes_and_then_a_gap() -> None:
    machine = Machine(Fleet())
    machine.add("sbx", layer_bytes=3)
    with_storage(machine, 3)
    machine.run(60 * MINUTE, tick=MINUTE)
    collect_storage(machine.fleet.host_id, now=machine.fleet.now, source=machine)
    machine.fleet.aggregate()
    life = Life.objects.get()
    assert stored(life)["measured_ms"] == 25 * 60_000
    assert stored(life)["existing_ms"] == 63 * 60_000
    held = Gap.objects.get(meter="storage", reason=Gap.Reason.HELD_TOO_LONG)
    assert (held.start, held.end) == (START + 28 * MINUTE, START + 63 * MINUTE)


def test_storage_removed_without_an_event_ends_at_the_last_time_known() -> None:
    machine = Machine(Fleet())
    machine.add("sbx", (START, START + MINUTE), removed_at=START + 10 * MINUTE + SECOND)
    machine.is_lost = lambda event: event.action == "destroy"
    with_storage(machine, 12)
    life = Life.objects.get()
    assert (life.ended_at, life.gone_at) == (START + MINUTE, START + 10 * MINUTE)
    assert stored(life)["existing_ms"] == 10 * 60_000


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(Fleet())
    monkeypatch.setattr(collector, "open_source", lambda _host: machine)
    machine.add("sbx")
    machine.run(10 * SECOND)
    return machine


def test_a_last_reading_before_a_stop_makes_counters_exact_to_that_moment(
    machine: Machine,
) -> None:
    fleet = machine.fleet
    fleet.now += SECOND
    assert collect_sandbox(fleet.account_id, "sbx", now=fleet.now) == 1
    assert collect_sandbox(fleet.account_id, "sbx", now=fleet.now) == 1
    machine.boxes[0].lives[0] = (START, fleet.now + HALF)
    machine.run(10 * SECOND)
    assert sums()["cpu_ns"] == 11_000 * CPU_NS_PER_MS
    assert sums()["running_ms"] == 11_500


def test_a_sandbox_that_nobody_knows_or_that_is_over_gives_none(machine: Machine) -> None:
    fleet = machine.fleet
    assert collect_sandbox(fleet.account_id, "other", now=fleet.now) == 0
    assert collect_sandbox(fleet.host_id, "sbx", now=fleet.now) == 0
    machine.boxes[0].lives[0] = (START, fleet.now)
    machine.run(10 * SECOND)
    assert collect_sandbox(fleet.account_id, "sbx", now=fleet.now) == 0


def test_an_extra_reading_of_a_container_that_began_again_goes_to_no_life(
    machine: Machine,
) -> None:
    fleet = machine.fleet
    machine.boxes[0].lives[:] = [(START, fleet.now + HALF), (fleet.now + SECOND, None)]
    fleet.now += 3 * HALF
    assert collect_containers(fleet.host_id, {"sbx"}, now=fleet.now, source=machine) == 0
    machine.run(10 * SECOND)
    first, second = Life.objects.order_by("started_ns")
    assert sums(first)["cpu_ns"] == 10_000 * CPU_NS_PER_MS
    assert sums(first)["running_ms"] == 10_500
    assert LifeReading.objects.get(life=second).cpu_ns == sums(second)["cpu_ns"]


def test_an_extra_reading_is_held_as_long_as_the_sandboxes_own() -> None:
    machine = Machine(Fleet())
    machine.add("sbx")
    machine.run(TICK)
    Sandbox.objects.update(interval_s=60)
    machine.run(2 * MINUTE - TICK + SECOND)
    extra_at = machine.fleet.now
    assert collect_containers(machine.fleet.host_id, {"sbx"}, now=extra_at, source=machine) == 1
    machine.run(3 * MINUTE)
    assert LifeReading.objects.get().read_ms > to_ms(extra_at)
    assert not Gap.objects.filter(end__gt=extra_at).exists()
    assert LifeReading.objects.get().state == State.RUNNING


def fold_but(bad_ms: set[int]) -> Callable[..., Fold]:
    """Return a fold that fails on any batch with a sample of one of these times."""

    def fold(samples: Records, *args: Any, **facts: Any) -> Fold:
        if bad_ms & set(samples["read_ms"].tolist()):
            raise ZeroDivisionError("cannot be folded")
        return fold_lives(samples, *args, **facts)

    return fold


def test_a_batch_that_cannot_be_folded_is_set_aside_and_those_behind_it_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fleet = Fleet()
    fleet.add("sbx")
    fleet.run_without_aggregating(ticks=9, tick=TICK)
    bad = list(stream.read_after(fleet.host_id, "0-0", limit=10))[3]
    monkeypatch.setattr(aggregator, "fold_lives", fold_but({to_ms(START + 4 * TICK)}))
    fleet.aggregate()
    refusal = Refusal.objects.get()
    assert (refusal.reason, refusal.subject) == (Refusal.Reason.BATCH_UNFOLDABLE, bad.entry_id)
    assert "ZeroDivisionError: cannot be folded" in refusal.detail
    assert StreamCursor.objects.get().problem == ""
    assert fleet.usage()[Meter.CPU] == 500_001 * 18_000
    assert sums()["running_ms"] == 18_000
    assert fleet.aggregate() == 0


def test_where_no_batch_can_be_folded_none_is_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet()
    fleet.add("sbx")
    fleet.run_without_aggregating(ticks=3, tick=TICK)
    monkeypatch.setattr(
        aggregator, "fold_lives", fold_but({to_ms(START + TICK * n) for n in range(9)})
    )
    with pytest.raises(ZeroDivisionError):
        fleet.aggregate()
    assert not Refusal.objects.exists()
    monkeypatch.undo()
    fleet.run(TICK)
    assert fleet.usage()[Meter.CPU] == fleet.closed_form()[Meter.CPU]
