"""Rounds: work comes in, a worker is killed outright in the middle of it, the others make it right.

Nobody helps: a round is over when the figures are whole, and what it took from the kill to then is
its recovery time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

from tests.faults.rounds.crew import Crew, Victim
from tests.faults.rounds.points import GOES_ON, STANDS
from tests.faults.rounds.work import Work
from tests.processes import wait_until

# Each kill point comes once in so many rounds; the others are killed at any time.
TURN = 20
ANY_TIME = "at any time"
LOOK_EVERY_S = 0.02
WHOLE_WITHIN_S = 120
REST_TICKS = 3


@dataclass(frozen=True)
class Kill:
    """Where a worker is killed, and whether its node goes with it."""

    point: str
    victim: Victim


@dataclass(frozen=True)
class Round:
    """A kill and what came of it. The figures are of all rounds so far.

    `recovery_s` is None when the figures did not come right. A kill may come when all is done.
    """

    number: int
    point: str
    victim: Victim
    left_undone: bool
    recovery_s: float | None
    expected: int
    found: int
    wrong: list[str] = field(default_factory=list)


def kills_of(points: Sequence[str], rounds: int) -> Iterator[Kill]:
    """Yield the kills of so many rounds: each point in turn, then at any time, and again."""
    turn = [*points, *[ANY_TIME] * (TURN - len(points))]
    victims: tuple[Victim, Victim] = ("node", "process")
    for number in range(rounds):
        # Shifted by one each turn: each point has both victims.
        yield Kill(turn[number % TURN], victims[(number + number // TURN) % 2])


def run_rounds(
    work: Work,
    workers: Crew,
    random: Random,
    *,
    rounds: int,
    rest_every: int,
    within_s: float = WHOLE_WITHIN_S,
) -> Iterator[Round]:
    """Yield each round when it is over: its figures are whole, too high, or low for too long.

    After each so many rounds there is a rest before they are judged, so that what is done again
    too late is seen in the round to blame.
    """
    for number, kill in enumerate(kills_of(work.points, rounds), start=1):
        killed_at = _kill_in_the_middle(work, workers, kill, random)
        undone = work.found() < work.expected()
        is_whole = becomes_whole(work, within_s=within_s)
        recovery_s = time.monotonic() - killed_at if is_whole else None
        if number % rest_every == 0:
            time.sleep(workers.tick_s * REST_TICKS)
        expected, found = work.expected(), work.found()
        yield Round(
            number,
            kill.point,
            kill.victim,
            left_undone=undone,
            recovery_s=recovery_s,
            expected=expected,
            found=found,
            wrong=work.faults(),
        )


def _kill_in_the_middle(work: Work, workers: Crew, kill: Kill, random: Random) -> float:
    """Put a round's work in and kill a worker that is at it; return when, on the clock's count."""
    stands = kill.point != ANY_TIME
    workers.fault.arm(kill.point if stands else work.begins, STANDS if stands else GOES_ON)
    work.put_in()
    pid = workers.fault.reached_by()
    if stands:
        work.wait_at(kill.point, workers)
    else:
        time.sleep(random.uniform(0, work.lasts_s))
    killed_at = time.monotonic()
    workers.kill(pid, kill.victim)
    return killed_at


def becomes_whole(work: Work, *, within_s: float) -> bool:
    """Return whether the figures come right in time. Too high, they never do."""
    expected = work.expected()
    try:
        wait_until(
            lambda: work.found() >= expected,
            seconds=within_s,
            what=f"{work.name} to come to {expected}",
            every_s=LOOK_EVERY_S,
        )
    except TimeoutError:
        return False
    return work.found() == expected
