"""What goes wrong around a pass, and what is billed for it: clocks, outages, lost events."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
from django.db.models import Sum

from metering import stream
from metering.collector import collect_storage
from metering.meters import Meter
from metering.models import Gap, Host, Life, LifeReading, Refusal, UsageRecord
from metering.period import to_ms
from metering.samples import State
from metering.source import Action, Container, SourceError
from tests.metering.fleet import CPU_NS_PER_MS, MINUTE, SECOND, START, TICK, Box, Fleet, Machine

pytestmark = pytest.mark.django_db


def billed_ms(machine: Machine) -> float:
    return machine.fleet.usage().get(Meter.CPU, 0) / CPU_NS_PER_MS


def running_ms(machine: Machine) -> int:
    lives = UsageRecord.objects.filter(life__host=machine.fleet.host_id)
    return int(lives.aggregate(ms=Sum("running_ms"))["ms"] or 0)


def host_of(machine: Machine) -> Host:
    return Host.objects.get(pk=machine.fleet.host_id)


@pytest.mark.parametrize("ahead_s", [3, -3])
def test_a_clock_three_seconds_off_changes_nothing(ahead_s: int) -> None:
    fleet = Fleet(registered_at=START - MINUTE)
    machine = Machine(fleet, clocks=[(START - MINUTE, ahead_s * SECOND)])
    machine.add("long")
    machine.add("stops", (START + SECOND, START + 7 * SECOND))
    machine.add("short", (START + 5 * SECOND, START + 6 * SECOND))
    machine.add("again", (START, START + 3 * SECOND), (START + 9 * SECOND, None))
    machine.run(MINUTE)
    assert Life.objects.count() == 5
    assert running_ms(machine) == machine.busy_ms()
    for life in Life.objects.filter(ended_at__isnull=False):
        assert LifeReading.objects.get(life=life).state == State.STOPPED
    assert Life.objects.get(container_id="short").ended_at == START + (6 + ahead_s) * SECOND
    assert host_of(machine).clock_offset_ms == ahead_s * 1000
    assert not Refusal.objects.exists()
    assert host_of(machine).problem == ""


@pytest.mark.parametrize("ahead_s", [30, -30])
def test_a_clock_far_off_costs_no_counter_and_is_shown_as_the_hosts_problem(ahead_s: int) -> None:
    fleet = Fleet()
    machine = Machine(fleet)
    machine.add("sbx")
    machine.run(MINUTE)
    off_from, off_until = fleet.now + SECOND, fleet.now + 2 * MINUTE + SECOND
    machine.clocks = [(off_from, ahead_s * SECOND), (off_until, timedelta(0))]
    machine.run(2 * MINUTE)
    direction = "ahead of" if ahead_s > 0 else "behind"
    assert f"clock is 30.0 s {direction} ours: 1 readings are left out" in host_of(machine).problem
    refusal = Refusal.objects.get()
    assert (refusal.reason, refusal.subject) == (Refusal.Reason.CLOCK_SKEWED, fleet.host.name)
    assert refusal.count > 50
    machine.run(MINUTE)
    assert host_of(machine).problem == ""
    assert billed_ms(machine) == running_ms(machine) == 4 * MINUTE / SECOND * 1000
    gap = Gap.objects.get(reason=Gap.Reason.CLOCK_SKEW)
    assert gap.start == START + MINUTE + 10 * SECOND
    assert off_until <= gap.end <= off_until + 3 * TICK
    assert Life.objects.count() == 1


@pytest.mark.parametrize("ahead_s", [30, -30])
def test_a_clock_far_off_from_the_first_pass_is_found_out(ahead_s: int) -> None:
    fleet = Fleet(registered_at=START - MINUTE)
    machine = Machine(fleet, clocks=[(START - MINUTE, ahead_s * SECOND)])
    machine.add("sbx")
    machine.run(10 * SECOND)
    assert "The host's clock is 30.0 s" in host_of(machine).problem
    assert Life.objects.count() == 1
    assert billed_ms(machine) == 0


def test_a_life_that_ends_while_the_clock_is_ahead_counts_no_time_that_is_not_over() -> None:
    fleet = Fleet()
    machine = Machine(fleet)
    machine.add("sbx", (START, START + 90 * SECOND), gpu_count=1)
    machine.run(MINUTE)
    machine.clocks = [(fleet.now, 30 * SECOND)]
    machine.run(MINUTE)
    assert Life.objects.get().ended_at == START + 90 * SECOND
    assert running_ms(machine) == 90_000
    assert fleet.usage()[Meter.GPU] == 90_000


def test_storage_of_a_host_whose_clock_is_off_is_not_read() -> None:
    fleet = Fleet(registered_at=START - MINUTE)
    machine = Machine(fleet, clocks=[(START - MINUTE, 30 * SECOND)])
    machine.add("sbx")
    machine.run(TICK)
    assert collect_storage(fleet.host_id, now=fleet.now, source=machine) == 0


def test_while_no_pass_was_made_the_gap_is_the_collectors() -> None:
    fleet = Fleet()
    machine = Machine(fleet)
    machine.add("sbx")
    machine.run(10 * SECOND)
    fleet.now += 5 * MINUTE
    machine.run(10 * SECOND)
    gap = Gap.objects.get(reason=Gap.Reason.COLLECTOR_DOWN)
    assert gap.end - gap.start == 5 * MINUTE + TICK - 10 * SECOND
    assert billed_ms(machine) == machine.busy_ms()


def test_after_a_lost_batch_the_gap_is_the_streams() -> None:
    fleet = Fleet()
    machine = Machine(fleet)
    machine.add("sbx")
    machine.run(10 * SECOND)
    for _ in range(10):
        fleet.now += TICK
        machine.collect()
    for entry in stream.read_after(fleet.host_id, "0-0", limit=15):
        stream._redis().xdel(f"metrics:stream:{fleet.host_id}", entry.entry_id)
    machine.run(TICK)
    gap = Gap.objects.exclude(reason=Gap.Reason.BEFORE_FIRST_SAMPLE).get()
    assert (gap.reason, gap.end) == (Gap.Reason.BATCH_LOST, fleet.now)
    assert billed_ms(machine) == machine.busy_ms()


def restarting(machine: Machine, count: int) -> list[Box]:
    return [
        machine.add(
            f"box-{number}",
            (START, START + 11 * SECOND),
            (START + 12 * SECOND, START + 13 * SECOND if number % 2 else None),
        )
        for number in range(count)
    ]


def test_three_hundred_missed_events_change_nothing() -> None:
    told, untold = Machine(Fleet()), Machine(Fleet())
    for machine in (told, untold):
        restarting(machine, 75)
        machine.fleet.now = START
        machine.run(10 * SECOND)
    # Of 300 events between two passes the engine remembers none.
    untold.is_lost = lambda event: event.at_ns > to_ms(START + 10 * SECOND) * 10**6
    untold.ring = 1
    for machine in (told, untold):
        machine.run(10 * SECOND, tick=5 * SECOND)
        assert Life.objects.filter(host=machine.fleet.host_id).count() == 150
    lives = [
        list(
            Life.objects.filter(host=machine.fleet.host_id)
            .order_by("container_id", "started_ns")
            .values_list("container_id", "started_ns", "gone_at")
        )
        for machine in (told, untold)
    ]
    assert lives[0] == lives[1]
    assert billed_ms(told) == billed_ms(untold)
    assert running_ms(told) == told.busy_ms()
    # A container that stopped again no longer shows when its life before ended.
    assert running_ms(untold) - told.busy_ms() == 37 * 1000


def test_a_stopped_container_that_lived_again_is_found_though_its_events_were_missed() -> None:
    fleet = Fleet()
    machine = Machine(fleet)
    machine.add("sbx", (START, START + SECOND), (START + 30 * SECOND, START + 31 * SECOND))
    machine.run(10 * SECOND)
    machine.is_lost, machine.ring = (lambda _event: True), 1
    machine.run(MINUTE)
    assert Life.objects.count() == 2
    assert running_ms(machine) == 2000


def test_an_engine_that_was_restarted_and_remembers_nothing_mixes_up_no_lives() -> None:
    fleet = Fleet()
    machine = Machine(fleet)
    machine.add("sbx", (START, START + 61 * SECOND), (START + 65 * SECOND, None))
    machine.run(MINUTE)
    machine.is_down = True
    machine.run(10 * SECOND)
    machine.is_down, machine.restarted_at = False, fleet.now
    machine.run(MINUTE)
    first, second = Life.objects.order_by("started_ns")
    assert (first.ended_at, second.started_at) == (START + 61 * SECOND, START + 65 * SECOND)
    assert LifeReading.objects.get(life=second).cpu_ns == CPU_NS_PER_MS * 65_000
    assert running_ms(machine) == machine.busy_ms()


def test_an_answer_that_cannot_be_read_ends_no_life() -> None:
    fleet = Fleet()
    machine = Machine(fleet)
    box = machine.add("sbx")
    machine.run(10 * SECOND)
    box.updates.append(fleet.now - 6 * SECOND)
    machine.unreadable, machine.ring = {"sbx"}, 1
    machine.run(10 * SECOND)
    machine.unreadable, machine.ring = set(), 10**6
    machine.run(10 * SECOND)
    assert Life.objects.get().ended_at is None
    assert LifeReading.objects.get().state == State.RUNNING
    assert billed_ms(machine) == machine.busy_ms()


def test_a_life_whose_end_nobody_saw_has_a_gap_up_to_when_it_was_missed() -> None:
    fleet = Fleet()
    machine = Machine(fleet)
    machine.add("sbx", (START, START + 11 * SECOND), removed_at=START + 11 * SECOND)
    machine.is_lost = lambda event: event.action is not Action.START
    machine.run(20 * SECOND)
    life = Life.objects.get()
    assert life.ended_at == life.gone_at == START + 10 * SECOND
    gap = Gap.objects.get(meter=Gap.WHOLE_LIFE)
    assert gap.reason == Gap.Reason.ENDED_BETWEEN_READINGS
    assert (gap.start, gap.end) == (START + 10 * SECOND, START + 12 * SECOND)


def test_a_refused_container_is_looked_at_again_once_a_minute() -> None:
    fleet = Fleet()
    machine = Machine(fleet)
    machine.add("sbx", (START, START + 9 * SECOND), (START + 15 * SECOND, None))
    machine.run(10 * SECOND)
    Life.objects.get().sandbox.account.__class__.objects.update(is_active=False)
    machine.run(10 * SECOND)
    machine.inspected.clear()
    machine.run(5 * MINUTE, tick=10 * SECOND)
    assert 3 <= len(machine.inspected) <= 6


def test_an_engine_that_does_not_answer_fails_the_pass_and_loses_no_life() -> None:
    fleet = Fleet()
    machine = Machine(fleet, is_down=True)
    machine.add("sbx", (START + SECOND, START + 3 * SECOND), removed_at=START + 4 * SECOND)
    fleet.now += TICK
    with pytest.raises(SourceError):
        machine.collect()
    machine.is_down = False
    machine.run(MINUTE)
    assert running_ms(machine) == 2000


class Passing(Machine):
    """One on which half a second goes by before an inspection answers."""

    def inspect(self, container_ids: Sequence[str]) -> list[Container]:
        self.fleet.now += SECOND / 2
        return Machine.inspect(self, container_ids)


@pytest.mark.parametrize("was_known", [True, False])
def test_a_container_removed_under_a_pass_has_the_times_of_its_events(*, was_known: bool) -> None:
    fleet = Fleet()
    machine = Passing(fleet)
    machine.run(TICK)
    start = fleet.now + (timedelta(0) if was_known else TICK - SECOND)
    if was_known:
        box = machine.add("sbx", (start, None))
        machine.run(TICK)
    else:
        box = machine.add("sbx", (start, None))
    end = fleet.now + TICK + SECOND / 4
    box.lives, box.removed_at = [(start, end)], end
    box.updates.append(fleet.now + SECOND)
    machine.run(3 * TICK)
    life = Life.objects.get()
    assert (life.started_at, life.ended_at, life.gone_at) == (start, end, end)
    assert running_ms(machine) == (end - start) / SECOND * 1000
    assert not Gap.objects.filter(meter=Gap.WHOLE_LIFE).exists()
