"""Run every part, print its table as it is done, keep all figures."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from bench.collecting.containers import measure_containers
from bench.collecting.groups import measure_groups
from bench.collecting.measuring import QUICK, Plan
from bench.collecting.report import Part, save, show
from bench.collecting.scripted import measure_scripted
from bench.collecting.whole import measure_whole

PARTS: tuple[Callable[[Plan], Part], ...] = (
    measure_containers,
    measure_scripted,
    measure_groups,
    measure_whole,
)


def run(*, results: Path, is_quick: bool) -> None:
    """Measure one part after another: side by side they would take each other's cpu."""
    plan, began, parts = QUICK if is_quick else Plan(), time.monotonic(), []
    for measure in PARTS:
        part_began = time.monotonic()
        part = measure(plan)
        parts.append(part)
        show(part)
        print(f"  ({time.monotonic() - part_began:,.0f} s)", flush=True)
    save(parts, results, is_quick=is_quick)
    print(f"\n{time.monotonic() - began:,.0f} s. Every figure is in {results}.")
