from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payments.dunning_schedule import BEFORE_ALL, RETRY, SUSPEND, WRITE_OFF, Schedule, Step

OPENED = datetime(2026, 6, 1, 0, 15, tzinfo=UTC)
DEFAULT = Schedule.of(
    [
        Step(28, WRITE_OFF),
        Step(14, SUSPEND),
        *(Step(days, RETRY) for days in (14, 7, 3, 1)),
    ]
)
SECOND = timedelta(seconds=1)
steps = st.builds(Step, st.integers(1, 30), st.sampled_from([RETRY, SUSPEND, WRITE_OFF]))


def due(done: Step, *, days: float, schedule: Schedule = DEFAULT) -> Step | None:
    return schedule.step_due(done, opened_at=OPENED, now=OPENED + timedelta(days=days))


@pytest.mark.parametrize(
    ("done", "days", "step"),
    [
        (BEFORE_ALL, 0, None),
        (BEFORE_ALL, 1, Step(1, RETRY)),
        (Step(1, RETRY), 1, None),
        (Step(1, RETRY), 3, Step(3, RETRY)),
        (Step(7, RETRY), 14, Step(14, RETRY)),
        (Step(14, RETRY), 14, Step(14, SUSPEND)),
        (Step(14, SUSPEND), 27, None),
        (Step(14, SUSPEND), 28, Step(28, WRITE_OFF)),
        (Step(28, WRITE_OFF), 300, None),
        # Nobody was at work for a while: one retry, then the rest in order.
        (BEFORE_ALL, 8, Step(7, RETRY)),
        (BEFORE_ALL, 300, Step(14, RETRY)),
        (Step(14, RETRY), 300, Step(14, SUSPEND)),
        (Step(14, SUSPEND), 300, Step(28, WRITE_OFF)),
    ],
)
def test_the_step_that_is_due(done: Step, days: int, step: Step | None) -> None:
    assert due(done, days=days) == step


def test_a_step_is_due_at_its_second_and_not_before() -> None:
    moment = OPENED + timedelta(days=1)
    assert DEFAULT.step_due(BEFORE_ALL, opened_at=OPENED, now=moment - SECOND) is None
    assert DEFAULT.step_due(BEFORE_ALL, opened_at=OPENED, now=moment) == Step(1, RETRY)


def test_what_comes_next_is_known_ahead() -> None:
    def at(done: Step, action: str = "") -> timedelta | None:
        moment = DEFAULT.next_at(done, opened_at=OPENED, action=action)
        return moment - OPENED if moment else None

    assert at(BEFORE_ALL) == timedelta(days=1)
    assert at(Step(3, RETRY), SUSPEND) == timedelta(days=14)
    assert at(Step(14, RETRY), RETRY) is None
    assert at(Step(28, WRITE_OFF)) is None


def test_a_step_that_is_added_before_those_taken_is_not_taken_any_more() -> None:
    changed = Schedule.of([Step(2, SUSPEND), Step(5, RETRY)])
    assert due(Step(3, RETRY), days=6, schedule=changed) == Step(5, RETRY)


def test_an_unknown_action_is_refused() -> None:
    with pytest.raises(ValueError, match="no action"):
        Step(1, "shout")


@given(st.sets(steps, max_size=8), st.integers(0, 40), st.integers(0, 40))
def test_every_step_is_taken_once_in_order_and_never_two_retries_at_once(
    chosen: set[Step], first_look: int, second_look: int
) -> None:
    schedule = Schedule.of(chosen)
    done, taken = BEFORE_ALL, []
    for look in sorted((first_look, second_look, 100)):
        at_once = []
        while step := due(done, days=look, schedule=schedule):
            at_once.append(step)
            done = step
        assert sum(step.action == RETRY for step in at_once) <= 1
        taken += at_once
    assert taken == sorted(taken, key=lambda step: step.place)
    assert {step for step in taken if step.action != RETRY} == {
        step for step in chosen if step.action != RETRY
    }


@given(st.lists(steps, max_size=8, unique=True))
def test_the_name_is_of_the_steps_and_not_of_their_order(chosen: list[Step]) -> None:
    assert Schedule.of(chosen).name == Schedule.of(reversed(chosen)).name
    assert len(Schedule.of(chosen).name) == 64
    if chosen:
        assert Schedule.of(chosen[1:]).name != Schedule.of(chosen).name
