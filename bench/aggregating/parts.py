"""Where the time of a fold goes: timers around the product's functions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from bench.aggregating.ways import fold
from metering import aggregator, ledger, runs, stream
from metering.tally import Tally

PARTS: tuple[tuple[str, Any, str], ...] = (
    ("reading Redis", stream, "read_after"),
    ("unpacking and joining", aggregator, "take_runs"),
    ("unpacking and joining", runs, "_joined"),
    ("folding", aggregator, "fold_lives"),
    ("folding", aggregator, "fold_interfaces"),
    ("checking samples", aggregator, "believable"),
    ("adding up folds", Tally, "add"),
    ("adding up folds", Tally, "total"),
    ("loading readings", ledger, "_load_lives"),
    ("loading readings", ledger, "load_interfaces"),
    ("loading readings", ledger, "load_storage"),
    ("recording interfaces", ledger, "_insert_new_readings"),
    ("writing usage", ledger, "add"),
    ("writing readings", ledger, "_replace"),
    ("writing gaps and resets", ledger, "_record_gaps"),
    ("writing gaps and resets", ledger, "_record_resets"),
    ("commit", BaseDatabaseWrapper, "_commit"),
    ("trimming the stream", stream, "trim"),
)
REST = "the rest"


class _Timers:
    """Time by part; what a part spends inside another counts for the other only."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._stack = [REST]
        self._since = time.perf_counter()

    @contextmanager
    def inside(self, part: str) -> Iterator[None]:
        self._turn()
        self._stack.append(part)
        try:
            yield
        finally:
            self._turn()
            self._stack.pop()

    def _turn(self) -> None:
        now = time.perf_counter()
        part = self._stack[-1]
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._since
        self._since = now

    def around(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its time, and its iterator's, counted for the part."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.inside(part):
                answer = function(*args, **kwargs)
            return self._iterating(part, answer) if isinstance(answer, Iterator) else answer

        return timed

    def _iterating(self, part: str, iterator: Iterator[Any]) -> Iterator[Any]:
        while True:
            with self.inside(part):
                try:
                    value = next(iterator)
                except StopIteration:
                    return
            yield value


def fold_by_part(host_id: UUID) -> dict[str, float]:
    """Fold all of a host's stream; return the seconds of each part, the longest first."""
    with ExitStack() as patches:
        timers = _Timers()
        for part, owner, name in PARTS:
            # A name that is no longer there counts for the part around it.
            if function := getattr(owner, name, None):
                patches.enter_context(patch.object(owner, name, timers.around(part, function)))
        with timers.inside(REST):
            fold(host_id)
    return dict(sorted(timers.seconds.items(), key=lambda item: -item[1]))
