"""Run the cases in a process of their own, write the figures down, and leave nothing behind."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path

from django.conf import settings

from bench.aggregating.cases import QUICK, Plan, measure
from bench.aggregating.processes import Worker
from bench.aggregating.report import as_json, as_table
from soulbox.embedded import POLL_INTERVAL_S, Embedded, is_locked
from soulbox.reset import remove_home

STOP_LIMIT_S = 60


def run(*, results: Path, is_quick: bool) -> None:
    """Measure on embedded services made for it. Raises InUseError when they are in use."""
    embedded = settings.EMBEDDED
    if not isinstance(embedded, Embedded):
        raise TypeError("the benchmark runs on embedded services only")
    remove_home(embedded)
    began = time.monotonic()
    try:
        # The servers stop with the last process that uses them: this one does not.
        with Worker() as worker:
            table, figures = worker.call(_measure, is_quick=is_quick)
    finally:
        _wait_for_the_servers_to_stop(embedded)
        remove_home(embedded)
    results.parent.mkdir(exist_ok=True)
    results.write_text(json.dumps(figures, indent=2) + "\n")
    print(table)
    print(f"\n{time.monotonic() - began:,.0f} s. Every figure is in {results}.")


def _wait_for_the_servers_to_stop(embedded: Embedded) -> None:
    deadline = time.monotonic() + STOP_LIMIT_S
    while is_locked(embedded.keeper_lock) and time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL_S)


def _measure(*, is_quick: bool) -> tuple[str, dict[str, object]]:
    plan = QUICK if is_quick else Plan()
    measured = measure(plan, say=partial(print, flush=True))
    return as_table(measured, plan), as_json(measured, plan)
