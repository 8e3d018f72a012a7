"""Rounds of `kill -9` in the billing run and in aggregation, and controls that do not survive them.

`make faults-rounds` runs 100 of each and writes a report; here there are fewer.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from tests.faults.rounds import plain
from tests.faults.rounds.crew import Crew, crew
from tests.faults.rounds.killing import becomes_whole, run_rounds
from tests.faults.rounds.points import ANOTHERS
from tests.faults.rounds.report import Outcome, control_line, write
from tests.faults.rounds.work import Aggregation, Billing, PlainAggregation, PlainBilling, Work
from tests.faults.test_billing_run import without_uniqueness

ROUNDS = int(os.environ.get("ROUNDS", "20"))
TICK_S = float(os.environ.get("ROUNDS_TICK_S", "1"))
SEED = int(os.environ.get("ROUNDS_SEED") or time.time())
REPORT = os.environ.get("ROUNDS_REPORT", "")
# Of the controls, which have come out wrong long before.
MOST_ROUNDS = 20
# What is not done by then nobody has been asked to do: two ticks came meanwhile.
LOST_AFTER_S = 10 + 2 * TICK_S
RECOVERED_WITHIN_S = 60

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(600 + 90 * ROUNDS),
]


@dataclass
class Told:
    """What the tests of this module came to, for the report."""

    outcomes: list[Outcome] = field(default_factory=list)
    controls: list[Outcome] = field(default_factory=list)


@pytest.fixture(scope="module")
def told() -> Iterator[Told]:
    everything = Told()
    yield everything
    if REPORT and everything.outcomes:
        write(everything.outcomes, everything.controls, Path(REPORT))


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Say a figure, past pytest's hold on what is printed."""

    def out_loud(line: str) -> None:
        with capsys.disabled():
            print(f"\n{line}")  # noqa: T201 - figures are what the make target is for

    return out_loud


def chance() -> Random:
    return Random(SEED)  # noqa: S311 - a test's chance, to be had again


def outcome_of(work: Work) -> Outcome:
    return Outcome(work.name, work.unit, seed=SEED, tick_s=TICK_S)


def run_all(work: Work, workers: Crew) -> Outcome:
    """Run rounds up to one that goes wrong."""
    outcome, began = outcome_of(work), time.monotonic()
    for one in run_rounds(work, workers, chance(), rounds=ROUNDS, rest_every=ROUNDS):
        outcome.rounds.append(one)
        if one.wrong:
            break
    outcome.took_s = time.monotonic() - began
    return outcome


def test_killed_in_any_round_the_billing_run_makes_every_invoice_once(
    service_environment: dict[str, str],
    tmp_path: Path,
    told: Told,
    say: Callable[[str], None],
) -> None:
    with crew(service_environment, tmp_path, of="billing", tick_s=TICK_S) as workers:
        workers.add_beat()
        outcome = run_all(Billing(chance()), workers)
    told.outcomes.append(outcome)
    say(outcome.line())
    assert outcome.wrong == []
    assert outcome.difference == 0
    assert len(outcome.rounds) == ROUNDS
    # Else the kills have shown nothing.
    assert outcome.undone
    assert outcome.slowest_s < RECOVERED_WITHIN_S


def test_killed_in_any_round_aggregation_counts_every_sample_once(
    service_environment: dict[str, str],
    tmp_path: Path,
    told: Told,
    say: Callable[[str], None],
) -> None:
    work = Aggregation(ROUNDS)
    with crew(service_environment, tmp_path, of="aggregation", tick_s=TICK_S) as workers:
        workers.add_beat()
        outcome = run_all(work, workers)
        met = workers.fault.notes().count(ANOTHERS)
    outcome.notes.append(f"{met:,} times a worker found that another was at the same entries")
    told.outcomes.append(outcome)
    say(f"{outcome.line()}; {outcome.notes[-1]}")
    assert outcome.wrong == []
    assert outcome.difference == 0
    assert len(outcome.rounds) == ROUNDS
    # Else the kills have shown nothing.
    assert outcome.undone
    assert outcome.slowest_s < RECOVERED_WITHIN_S
    # Else no two of them have claimed the same.
    assert met


def run_control(work: Work, workers: Crew) -> Outcome:
    """Run rounds of a control up to the first that goes wrong."""
    outcome = outcome_of(work)
    kills = run_rounds(
        work, workers, chance(), rounds=MOST_ROUNDS, rest_every=1, within_s=LOST_AFTER_S
    )
    for one in kills:
        outcome.rounds.append(one)
        if one.wrong:
            break
    return outcome


def test_control_plain_tasks_that_are_killed_lose_invoices(
    service_environment: dict[str, str],
    tmp_path: Path,
    told: Told,
    say: Callable[[str], None],
) -> None:
    with (
        without_uniqueness(),
        crew(service_environment, tmp_path, of="plain billing", tick_s=TICK_S) as workers,
    ):
        work = PlainBilling(chance(), workers)
        work.put_in()
        # Where nobody is killed, it does what it should.
        assert becomes_whole(work, within_s=RECOVERED_WITHIN_S)
        assert work.faults() == []
        control = run_control(work, workers)
        # Nothing is on its way that would make it right.
        assert not workers.has_messages()
    told.controls.append(control)
    say(control_line(control))
    assert control.difference < 0
    assert any(re.search("has 0 invoices", fault) for fault in control.rounds[-1].wrong)


def test_control_plain_tasks_that_are_killed_count_usage_twice(
    service_environment: dict[str, str],
    tmp_path: Path,
    told: Told,
    say: Callable[[str], None],
) -> None:
    work = PlainAggregation(MOST_ROUNDS + 1)
    with crew(service_environment, tmp_path, of="plain aggregation", tick_s=TICK_S) as workers:
        work.put_in()
        workers.send(plain.FOLD, queue="aggregate")
        # Where nobody is killed, it does what it should.
        assert becomes_whole(work, within_s=RECOVERED_WITHIN_S)
        assert work.faults() == []
        workers.add_beat()
        control = run_control(work, workers)
    told.controls.append(control)
    say(control_line(control))
    assert control.difference > 0
