"""When which step of dunning is due. The schedule is rows that staff change."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

RETRY: Final = "retry"
SUSPEND: Final = "suspend"
WRITE_OFF: Final = "write_off"
_ORDER: Final = ("", RETRY, SUSPEND, WRITE_OFF)
"""Of steps of one day: what may bring the money comes first. "" is before the first step."""


@dataclass(frozen=True, slots=True)
class Step:
    """What is done so many days after the first failure."""

    after_days: int
    action: str

    def __post_init__(self) -> None:
        if self.action not in _ORDER:
            raise ValueError(f"There is no action {self.action!r}.")

    @property
    def place(self) -> tuple[int, int]:
        """Where it stands in the schedule; later steps have greater places."""
        return self.after_days, _ORDER.index(self.action)

    def due_at(self, opened_at: datetime) -> datetime:
        """Return when it is due, counted from the first failure."""
        return opened_at + timedelta(days=self.after_days)


BEFORE_ALL: Final = Step(0, "")


@dataclass(frozen=True, slots=True)
class Schedule:
    """All steps, in order."""

    steps: Sequence[Step]

    @classmethod
    def of(cls, steps: Iterable[Step]) -> Schedule:
        """Return the schedule of these steps, given in any order."""
        return cls(tuple(sorted(steps, key=lambda step: step.place)))

    @property
    def name(self) -> str:
        """A text of 64 characters that is another one for another schedule."""
        said = ",".join(f"{step.after_days}:{step.action}" for step in self.steps)
        return hashlib.sha256(said.encode()).hexdigest()

    def step_due(self, done: Step, *, opened_at: datetime, now: datetime) -> Step | None:
        """Return the step after `done` that is to be taken now.

        Of several retries that are due only the last is taken: an invoice is not charged for each
        day on which nobody was at work.
        """
        due = [step for step in self._after(done) if step.due_at(opened_at) <= now]
        retries = [step for step in due if step.action == RETRY]
        for step in due:
            if step.action != RETRY or step == retries[-1]:
                return step
        return None

    def next_at(self, done: Step, *, opened_at: datetime, action: str = "") -> datetime | None:
        """Return when the next step after `done`, or the next of that action, is due."""
        step = self.next_step(done, action=action)
        return step.due_at(opened_at) if step else None

    def next_step(self, done: Step, *, action: str = "") -> Step | None:
        """Return the next step after `done`, or the next of that action."""
        for step in self._after(done):
            if not action or step.action == action:
                return step
        return None

    def _after(self, done: Step) -> list[Step]:
        return [step for step in self.steps if step.place > done.place]
