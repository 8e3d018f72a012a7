"""Measures on services made for it, in a process of its own, and leaves nothing but the figures."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings

from bench.aggregating.processes import Worker
from soulbox.embedded import POLL_INTERVAL_S, Embedded, is_locked
from soulbox.reset import remove_home

STOP_LIMIT_S = 60


@contextmanager
def alone() -> Iterator[Worker]:
    """Give a process to measure in, on embedded services that are new, and removed afterwards.

    The servers stop with the last process that uses them, so the caller is not to start them.
    Raises InUseError when they are in use.
    """
    embedded = settings.EMBEDDED
    if not isinstance(embedded, Embedded):
        raise TypeError("the benchmark runs on embedded services only")
    remove_home(embedded)
    try:
        with Worker() as worker:
            yield worker
    finally:
        deadline = time.monotonic() + STOP_LIMIT_S
        while is_locked(embedded.keeper_lock) and time.monotonic() < deadline:
            time.sleep(POLL_INTERVAL_S)
        remove_home(embedded)


def run_alone(measure: Callable[..., Mapping[str, Any]], *, results: Path, is_quick: bool) -> None:
    """Call `measure(is_quick=...)` alone; write and print what it returns."""
    with alone() as worker:
        figures = worker.call(measure, is_quick=is_quick)
    keep(figures, results)
    print(json.dumps(figures, indent=2))
    print(f"Every figure is in {results}.")


def keep(figures: Mapping[str, Any], results: Path) -> None:
    """Write every figure."""
    results.parent.mkdir(exist_ok=True)
    results.write_text(json.dumps(figures, indent=2) + "\n")
