"""Lives whose host nobody hears of, and what becomes of them when it is back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from django.db.models import Sum

from metering import silence
from metering.meters import Meter
from metering.models import Gap, Host, Life, LifeReading, StreamCursor, UsageRecord
from metering.queries import streams_behind
from metering.samples import State
from metering.services import register_host
from metering.silence import SILENT_AFTER, close_silent_hosts
from metering.source import Reading
from tests.metering.fleet import CPU_NS_PER_MS, MINUTE, SECOND, START, TICK, Fleet, Machine

pytestmark = pytest.mark.django_db


def running_ms(**of: object) -> int:
    return int(UsageRecord.objects.filter(**of).aggregate(ms=Sum("running_ms"))["ms"] or 0)


def silent(duration: timedelta = 11 * MINUTE, *lives: tuple[datetime, datetime | None]) -> Machine:
    """Return a host that ran for a minute and was then not heard of, and its lives closed."""
    machine = Machine(Fleet())
    machine.add("sbx", *lives or [(START, None)])
    machine.run(MINUTE)
    machine.fleet.now += duration
    close_silent_hosts(now=machine.fleet.now)
    return machine


def test_lives_of_a_host_that_is_silent_for_ten_minutes_are_closed_at_the_last_time_seen() -> None:
    machine = Machine(Fleet())
    machine.add("sbx")
    machine.run(MINUTE)
    assert close_silent_hosts(now=START + MINUTE + SILENT_AFTER) == 0
    now = START + MINUTE + SILENT_AFTER + SECOND
    assert close_silent_hosts(now=now) == 1
    assert close_silent_hosts(now=now + MINUTE) == 0
    life = Life.objects.get()
    assert (life.ended_at, life.gone_at) == (START + MINUTE, None)
    gap = Gap.objects.get(reason=Gap.Reason.HOST_SILENT)
    assert (gap.meter, gap.start, gap.end) == (Gap.WHOLE_LIFE, START + MINUTE, now)


def test_invoices_do_not_wait_for_a_silent_host() -> None:
    machine = silent()
    assert streams_behind(machine.fleet.account_id, until=machine.fleet.now) == []


def test_they_do_wait_for_what_it_sent_and_nobody_folded() -> None:
    machine = Machine(Fleet())
    machine.add("sbx")
    machine.run(MINUTE)
    machine.fleet.now += TICK
    machine.collect()
    machine.fleet.now += 11 * MINUTE
    close_silent_hosts(now=machine.fleet.now)
    assert streams_behind(machine.fleet.account_id, until=machine.fleet.now) != []
    machine.fleet.aggregate()
    close_silent_hosts(now=machine.fleet.now)
    assert streams_behind(machine.fleet.account_id, until=machine.fleet.now) == []


def test_they_do_not_wait_for_a_life_that_was_recorded_after_its_host_was_last_seen() -> None:
    machine = Machine(Fleet())
    machine.add("sbx")
    machine.run(MINUTE)
    late = START + MINUTE + SECOND
    Life.objects.update(started_at=late, started_ns=int(late.timestamp()) * 10**9)
    machine.fleet.now += 11 * MINUTE
    close_silent_hosts(now=machine.fleet.now)
    assert Life.objects.get().ended_at == late
    assert streams_behind(machine.fleet.account_id, until=machine.fleet.now) == []


def test_a_host_that_is_back_goes_on_with_the_same_lives_and_exact_counters() -> None:
    machine = silent()
    machine.run(MINUTE)
    life = Life.objects.get()
    assert (life.ended_at, life.gone_at) == (None, None)
    assert machine.fleet.usage()[Meter.CPU] == machine.busy_ms() * CPU_NS_PER_MS
    assert running_ms() == machine.busy_ms()
    # What nobody knew is known now; only its memory was not measured.
    gap = Gap.objects.exclude(reason=Gap.Reason.BEFORE_FIRST_SAMPLE).get()
    assert (gap.meter, gap.reason) == ("memory", Gap.Reason.COLLECTOR_DOWN)
    assert gap.end - gap.start == 11 * MINUTE + TICK - 10 * SECOND


def test_a_life_that_ended_while_its_host_was_silent_has_its_own_end_when_it_is_back() -> None:
    end = START + 5 * MINUTE
    machine = silent(11 * MINUTE, (START, end))
    # The engine's memory does not go so far back.
    machine.ring, machine.is_lost = 1, lambda _event: True
    machine.run(10 * SECOND)
    machine.run(10 * SECOND)
    life = Life.objects.get()
    assert (life.ended_at, life.gone_at) == (end, None)
    assert running_ms() == 5 * 60_000
    assert LifeReading.objects.get().state == State.STOPPED
    assert not Gap.objects.filter(reason=Gap.Reason.HOST_SILENT).exists()
    tail = Gap.objects.get(reason=Gap.Reason.ENDED_BETWEEN_READINGS)
    assert (tail.start, tail.end) == (START + MINUTE, end)


def test_where_another_life_began_meanwhile_the_first_stays_closed() -> None:
    lives = [
        (START, START + 2 * MINUTE),
        (START + 5 * MINUTE, START + 6 * MINUTE),
        (START + 10 * MINUTE, None),
    ]
    machine = silent(11 * MINUTE, *lives)
    machine.ring, machine.is_lost = 1, lambda _event: True
    machine.run(10 * SECOND)
    first, last = Life.objects.order_by("started_ns")
    assert first.ended_at == START + MINUTE
    assert Gap.objects.filter(life=first, reason=Gap.Reason.HOST_SILENT).exists()
    assert running_ms(life=first) == 60_000
    assert running_ms(life=last) == (2 * MINUTE + 10 * SECOND) / SECOND * 1000


def test_a_pass_that_began_before_its_host_was_found_silent_has_the_last_word() -> None:
    machine = Machine(Fleet())
    box = machine.add("sbx")
    machine.run(MINUTE)
    machine.fleet.now += 11 * MINUTE
    back_at = machine.fleet.now
    read, closed = machine.read, []

    def read_while_another_closes(container_ids: Sequence[str]) -> list[Reading]:
        closed.append(close_silent_hosts(now=back_at))
        return read(container_ids)

    machine.read = read_while_another_closes  # type: ignore[method-assign]
    machine.collect()
    machine.read = read  # type: ignore[method-assign]
    assert closed == [1]
    # It ends for good before the next pass, which finds nothing to inspect.
    box.lives, box.removed_at = [(START, back_at + SECOND)], back_at + SECOND
    machine.run(10 * SECOND)
    life = Life.objects.get()
    assert (life.ended_at, life.gone_at) == (back_at + SECOND, back_at + SECOND)
    assert running_ms() == 12 * 60_000 + 1000
    assert not Gap.objects.filter(meter=Gap.WHOLE_LIFE).exists()


def test_a_host_that_is_heard_of_meanwhile_is_not_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    machines = [Machine(Fleet()) for _ in range(2)]
    for machine in machines:
        machine.add("sbx")
        machine.run(MINUTE)
        machine.fleet.now += 11 * MINUTE
    heard: list[UUID] = []

    def hear_of_the_other(host: Host) -> None:
        if not heard:
            [other] = [machine for machine in machines if machine.fleet.host_id != host.pk]
            other.collect()
            heard.append(other.fleet.host_id)

    monkeypatch.setattr(silence, "_count_as_collected", hear_of_the_other)
    assert close_silent_hosts(now=machines[0].fleet.now) == 1
    assert Life.objects.get(ended_at=None).host_id == heard[0]


def test_lives_of_a_host_that_is_not_active_any_more_are_closed() -> None:
    machine = Machine(Fleet())
    machine.add("sbx")
    machine.run(MINUTE)
    Host.objects.filter(pk=machine.fleet.host_id).update(is_active=False)
    assert close_silent_hosts(now=START + 2 * MINUTE) == 1
    assert Life.objects.get().ended_at == START + MINUTE
    assert running_ms() == 60_000


def test_a_host_that_was_never_seen_has_nothing_to_close() -> None:
    fleet = Fleet()
    assert close_silent_hosts(now=fleet.now + timedelta(days=1)) == 0
    assert StreamCursor.objects.get(host=fleet.host_id).collected_until is None


def test_a_sandbox_that_moves_to_another_host_has_two_lives_and_both_are_exact() -> None:
    one, other = Machine(Fleet()), Machine(Fleet())
    # Both hosts are the same customer's.
    other.fleet.account_id = one.fleet.account_id
    moved_at = START + MINUTE
    one.add("sbx", (START, moved_at), removed_at=moved_at)
    other.add("sbx", (moved_at, None))
    one.run(2 * MINUTE)
    other.fleet.now = START
    other.run(2 * MINUTE)
    first, second = Life.objects.order_by("started_ns")
    assert first.sandbox_id == second.sandbox_id
    assert (first.host_id, second.host_id) == (one.fleet.host_id, other.fleet.host_id)
    assert (first.ended_at, second.ended_at) == (moved_at, None)
    assert (running_ms(life=first), running_ms(life=second)) == (60_000, 60_000)


def test_a_host_set_active_again_goes_on_with_its_lives() -> None:
    machine = Machine(Fleet())
    fleet = machine.fleet
    machine.add("sbx")
    machine.run(MINUTE)
    Host.objects.filter(pk=fleet.host_id).update(is_active=False)
    fleet.now += MINUTE
    close_silent_hosts(now=fleet.now)
    register_host(
        host_id=fleet.host_id, name=fleet.host.name, endpoint=fleet.host.endpoint, now=fleet.now
    )
    machine.run(MINUTE)
    assert Life.objects.get().ended_at is None
    assert fleet.usage()[Meter.CPU] == machine.busy_ms() * CPU_NS_PER_MS
