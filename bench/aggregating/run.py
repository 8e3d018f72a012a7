"""Run the cases in a process of their own, write the figures down, and leave nothing behind."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from bench.aggregating.cases import QUICK, Plan, measure
from bench.aggregating.report import as_json, as_table
from bench.harness.alone import alone, keep


def run(*, results: Path, is_quick: bool) -> None:
    """Measure on embedded services made for it. Raises InUseError when they are in use."""
    began = time.monotonic()
    with alone() as worker:
        table, figures = worker.call(_measure, is_quick=is_quick)
    keep(figures, results)
    print(table)
    print(f"\n{time.monotonic() - began:,.0f} s. Every figure is in {results}.")


def _measure(*, is_quick: bool) -> tuple[str, dict[str, object]]:
    plan = QUICK if is_quick else Plan()
    measured = measure(plan, say=partial(print, flush=True))
    return as_table(measured, plan), as_json(measured, plan)
