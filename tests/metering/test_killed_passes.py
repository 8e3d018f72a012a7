"""A pass that is killed at any statement, and made again: it comes to what one pass comes to."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from django.db import connection
from django.db.models import Sum

from metering.models import Gap, Life, UsageRecord
from metering.silence import close_silent_hosts
from tests.metering.fleet import MINUTE, SECOND, START, TICK, Fleet, Machine

pytestmark = pytest.mark.django_db(transaction=True)

ENDED_AT = START + 5 * MINUTE


class KilledError(BaseException):
    """Nobody catches it, as nobody goes on in a process that is killed."""


def kill_at(number: int) -> Callable[..., Any]:
    """Return what ends the work before its nth statement."""
    statements = count(1)

    def execute(execute: Callable[..., Any], *statement: Any) -> Any:
        if next(statements) == number:
            raise KilledError
        return execute(*statement)

    return execute


def host_that_is_back() -> Machine:
    """Return a host that was silent; meanwhile a box ended, another goes on, a third is new."""
    machine = Machine(Fleet())
    machine.add("ended", (START, ENDED_AT))
    machine.add("goes-on", (START, None))
    machine.run(MINUTE, tick=5 * TICK)
    machine.fleet.now += 11 * MINUTE
    close_silent_hosts(now=machine.fleet.now)
    machine.add("new", (machine.fleet.now - SECOND, None))
    # The engine's memory does not go so far back.
    machine.ring, machine.is_lost = 1, lambda _event: True
    return machine


def host_as_usual() -> Machine:
    """Return a host that was read all the while; since then boxes began, ended and went."""
    machine = Machine(Fleet())
    for name in ("ended", "goes-on", "removed", "restarted"):
        machine.add(name, (START, None))
    machine.run(MINUTE, tick=5 * TICK)
    machine.fleet.now += TICK
    at = machine.fleet.now - SECOND
    ended, _, removed, restarted = machine.boxes
    ended.lives = [(START, at)]
    removed.lives, removed.removed_at = [(START, at)], at
    restarted.lives = [(START, at - SECOND / 2), (at, None)]
    machine.add("new", (at, None))
    machine.add("short", (at - SECOND / 4, at), removed_at=at)
    return machine


def ends(machine: Machine) -> None:
    """End all boxes before the next pass, and make it."""
    now = machine.fleet.now
    for box in machine.boxes:
        box.lives = [(start, end or now + SECOND) for start, end in box.lives]
    machine.run(TICK)


def lives_of(machine: Machine) -> set[tuple[object, ...]]:
    """Return of each life what it is, how long it ran, and whether a gap stands for its end."""
    return {
        (
            life.container_id,
            life.ended_at,
            life.gone_at,
            UsageRecord.objects.filter(life=life).aggregate(ms=Sum("running_ms"))["ms"],
            Gap.objects.filter(life=life, meter=Gap.WHOLE_LIFE).exists(),
        )
        for life in Life.objects.filter(host=machine.fleet.host_id)
    }


def gaps_of(machine: Machine) -> set[tuple[object, ...]]:
    gaps = Gap.objects.filter(life__host=machine.fleet.host_id)
    return set(gaps.values_list("life__container_id", "meter", "start", "end", "reason"))


@pytest.mark.parametrize("is_made_again", [True, False])
@pytest.mark.parametrize("host", [host_that_is_back, host_as_usual])
def test_a_pass_may_be_killed_at_any_statement(
    host: Callable[[], Machine], *, is_made_again: bool
) -> None:
    machine = host()
    machine.collect()
    ends(machine)
    undisturbed, gaps = lives_of(machine), gaps_of(machine)
    assert len(undisturbed) == len([life for box in machine.boxes for life in box.lives])
    assert not any(is_unknown for *_, is_unknown in undisturbed)
    for number in count(1):
        machine = host()
        try:
            with connection.execute_wrapper(kill_at(number)):
                machine.collect()
        except KilledError:
            if is_made_again:
                machine.collect()
        else:
            break
        ends(machine)
        assert lives_of(machine) == undisturbed, f"killed at statement {number}"
        # What ended before another pass was read once less.
        assert gaps_of(machine) == gaps or not is_made_again, f"killed at statement {number}"
    assert number > 10
