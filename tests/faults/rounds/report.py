"""What rounds of kills came to: a page for readers, and JSON with every round."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from math import inf
from pathlib import Path
from statistics import median, quantiles

from tests.faults.rounds.killing import Round

PRODUCT_TICK_S = 15
PACKAGES = ("django", "celery", "redis", "psycopg")


@dataclass
class Outcome:
    """The rounds of one kind of work. The controls' end with the first that goes wrong."""

    name: str
    unit: str
    seed: int
    tick_s: float
    took_s: float = 0.0
    rounds: list[Round] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def difference(self) -> int:
        """By how much the last figures are too high."""
        return self.rounds[-1].found - self.rounds[-1].expected

    @property
    def wrong(self) -> list[str]:
        """What is wrong, a sentence each."""
        return [f"round {one.number}: {line}" for one in self.rounds for line in one.wrong]

    @property
    def undone(self) -> list[Round]:
        """The rounds whose kill left something undone: in the others there was none to recover."""
        return [one for one in self.rounds if one.left_undone]

    def recovery_s(self, percent: int) -> float:
        """Return the seconds in which so many of a hundred of these rounds recovered.

        Without end where one of them did not.
        """
        times = [inf if one.recovery_s is None else one.recovery_s for one in self.undone]
        if len(times) < 2 or inf in times:
            return max(times, default=0.0)
        return quantiles(times, n=100, method="inclusive")[percent - 1]

    @property
    def slowest_s(self) -> float:
        """The longest recovery time, in seconds; without end where a round did not recover."""
        return max(inf if one.recovery_s is None else one.recovery_s for one in self.rounds)

    def line(self) -> str:
        """Return all of it in a line."""
        last = self.rounds[-1]
        return (
            f"{self.name}, seed {self.seed}: {len(self.rounds)} rounds in {self.took_s:.0f} s, "
            f"{self.unit}: {last.expected} expected, {last.found} found, "
            f"difference {self.difference}; {len(self.undone)} kills left work undone, "
            f"recovered after {self.recovery_s(50):.2f} s (p50), {self.recovery_s(99):.2f} s (p99)"
        )


def control_line(control: Outcome) -> str:
    """Return in a line what a control came to."""
    last = control.rounds[-1]
    return (
        f"{control.name}: wrong after {last.number} rounds, last killed at {last.point!r}: "
        f"{last.expected} {control.unit} expected, {last.found} found"
    )


def write(outcomes: Sequence[Outcome], controls: Sequence[Outcome], page: Path) -> None:
    """Write the page, and the JSON beside it."""
    page.write_text("\n".join(_page(outcomes, controls)) + "\n")
    told = {
        "versions": _versions(),
        "work": [asdict(one) for one in outcomes],
        "controls": [asdict(one) for one in controls],
    }
    page.with_suffix(".json").write_text(json.dumps(told, indent=1))


def _page(outcomes: Sequence[Outcome], controls: Sequence[Outcome]) -> list[str]:
    rows: dict[str, Callable[[Outcome], str]] = {
        "rounds": lambda one: f"{len(one.rounds):,}",
        "whole worker nodes killed": lambda one: _victims(one, "node"),
        "processes of a node killed": lambda one: _victims(one, "process"),
        "kills that left work undone": lambda one: f"{len(one.undone):,}",
        "counted in": lambda one: one.unit,
        "expected": lambda one: f"{one.rounds[-1].expected:,}",
        "found": lambda one: f"{one.rounds[-1].found:,}",
        "difference": lambda one: f"{one.difference:,}",
        "things wrong": lambda one: f"{len(one.wrong):,}",
        "recovered after, p50": lambda one: f"{one.recovery_s(50):.2f} s",
        "recovered after, p99": lambda one: f"{one.recovery_s(99):.2f} s",
        "recovered after, at most": lambda one: f"{one.slowest_s:.2f} s",
        "a sweep every": lambda one: f"{one.tick_s:g} s",
        "seed": lambda one: str(one.seed),
    }
    return [
        "# Rounds of kill -9",
        "",
        "Real Celery workers, Redis and PostgreSQL. In each round work comes in, a worker is",
        "killed in the middle of it, and the figures come right by themselves. Recovery is counted",
        "from the kill to then, over the kills that left work undone. In production a sweep comes",
        f"every {PRODUCT_TICK_S} s.",
        "",
        f"| | {' | '.join(one.name for one in outcomes)} |",
        f"|---|{'---|' * len(outcomes)}",
        *(f"| {row} | {' | '.join(map(tell, outcomes))} |" for row, tell in rows.items()),
        "",
        *(line for one in outcomes for line in _points(one)),
        *(f"- {note}" for one in outcomes for note in one.notes),
        "",
        "Controls: plain Celery tasks that are acknowledged early, look first and write then.",
        "",
        *(f"- {control_line(one)}" for one in controls),
        "",
        ", ".join(f"{name} {number}" for name, number in _versions().items()) + ".",
        *(f"- {one.name}: {line}" for one in outcomes for line in one.wrong),
    ]


def _victims(outcome: Outcome, victim: str) -> str:
    return str(sum(one.victim == victim for one in outcome.rounds))


def _points(outcome: Outcome) -> list[str]:
    """Return a table of the kill points of one kind of work."""
    of_point: dict[str, list[Round]] = {}
    for one in outcome.rounds:
        of_point.setdefault(one.point, []).append(one)
    return [
        f"| {outcome.name}, killed | times | left work undone | recovered after, p50 | at most |",
        "|---|---|---|---|---|",
        *(_point(point, rounds) for point, rounds in of_point.items()),
        "",
    ]


def _point(point: str, rounds: Sequence[Round]) -> str:
    undone = [one for one in rounds if one.left_undone]
    times = [one.recovery_s for one in undone if one.recovery_s is not None]
    shown = f"{median(times):.2f} s | {max(times):.2f} s" if times else "– | –"
    return f"| {point} | {len(rounds)} | {len(undone)} | {shown} |"


def _versions() -> dict[str, str]:
    return {"Python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
