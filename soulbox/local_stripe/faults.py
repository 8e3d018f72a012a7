"""Faults that tests ask for: what goes wrong with which call."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

KINDS = {
    "timeout_before": "nothing is done, and no answer comes",
    "timeout_after_success": "the work is done, and no answer comes",
    "reset_before": "nothing is done, and the connection is reset",
    "reset_after_success": "the work is done, and the connection is reset",
    "500_before": "nothing is done; the 500 is kept by the key",
    "500_after_success": "the work is done; the 500 is kept by the key",
    "409": "another call with the same key is under way; nothing is kept",
    "429": "too many requests; nothing is kept",
    "delay": "the work waits, with the key in use, and succeeds",
}
HOLD_S = 60.0


@dataclass
class Rule:
    """What goes wrong with the nth call from now of some operations, and with those after it."""

    kind: str
    operation: str = "*"
    nth: int = 1
    times: int = 1
    seconds: float = HOLD_S

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no fault {self.kind}; there are {', '.join(KINDS)}")


class Faults:
    """Rules in their order, and faults at random, repeatable by the seed."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._random = random.Random(0)  # noqa: S311 - repeatable, and no secret
        self._probabilities: dict[str, float] = {}
        self._operations: list[str] = ["*"]
        self._seconds = HOLD_S

    def add(self, rule: Rule) -> None:
        """Ask for a fault."""
        self._rules.append(rule)

    def at_random(
        self,
        *,
        seed: int,
        probabilities: dict[str, float],
        operations: list[str],
        seconds: float,
    ) -> None:
        """Let calls of these operations go wrong by chance; no probabilities end it."""
        if unknown := probabilities.keys() - KINDS.keys():
            raise ValueError(f"no fault {', '.join(sorted(unknown))}")
        self._random = random.Random(seed)  # noqa: S311 - repeatable, and no secret
        self._probabilities = dict(sorted(probabilities.items()))
        self._operations = operations
        self._seconds = seconds

    def next_for(self, operation: str) -> Rule | None:
        """Return what goes wrong with this call, and count it."""
        for rule in self._rules:
            if not fnmatchcase(operation, rule.operation):
                continue
            if rule.nth > 1:
                rule.nth -= 1
                continue
            rule.times -= 1
            if rule.times <= 0:
                self._rules.remove(rule)
            return rule
        if not any(fnmatchcase(operation, pattern) for pattern in self._operations):
            return None
        # One draw a call: the same seed goes wrong at the same calls.
        drawn = self._random.random() if self._probabilities else 1.0
        for kind, probability in self._probabilities.items():
            if drawn < probability:
                return Rule(kind, operation, seconds=self._seconds)
            drawn -= probability
        return None

    def told(self) -> list[dict[str, Any]]:
        """Return the rules still waiting."""
        return [asdict(rule) for rule in self._rules]

    def clear(self) -> None:
        """Let nothing go wrong any more."""
        self._rules.clear()
        self._probabilities = {}
