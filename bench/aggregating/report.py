"""What was measured, as a table for people and as JSON for machines."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import asdict
from statistics import median_low
from typing import Any

from bench.aggregating.cases import CatchUp, Measured, Plan
from bench.aggregating.processes import Cost
from bench.aggregating.steady import Steady

MIB = 2**20
SANDBOXES_FOR_MEMORY = 100_000
HEAD = (
    f"{'':<34}{'samples':>10}{'seconds':>9}{'samples/s':>12}{'cpu s':>8}{'redis':>7}"
    f"{'postgres':>10}{'peak MiB':>10}"
)


def as_json(measured: Measured, plan: Plan) -> dict[str, Any]:
    """Return every figure."""
    return {
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "plan": asdict(plan),
        "catching_up": [
            {
                "sandboxes": case.sandboxes,
                "samples_of_a_life": case.samples,
                "us_per_sandbox": _us_per_sandbox(case),
                **_figures(case.costs),
            }
            for case in measured.catch_ups
        ],
        "yardsticks": {
            "straightforward": _figures(measured.straightforward),
            "postgresql": _figures(measured.postgresql),
            "numpy_floor": _figures(measured.floor),
        },
        "steady": [_steady_figures(steady) for steady in measured.steady],
        "parts_s": measured.parts,
        "ratios": _ratios(measured, plan),
    }


def as_table(measured: Measured, plan: Plan) -> str:
    """Return what a person wants to see first."""
    return "\n".join(_lines(measured, plan))


def _lines(measured: Measured, plan: Plan) -> Iterator[str]:
    yield HEAD
    for case in measured.catch_ups:
        yield _row(f"{case.sandboxes:,} × {case.samples}", case.costs)
    yield _row(f"straightforward, {plan.straightforward_size:,}", measured.straightforward)
    yield _row(f"postgresql, {plan.main_size:,}", measured.postgresql)
    yield _row(f"numpy floor, {plan.main_size:,}", measured.floor)
    yield ""
    total = sum(measured.parts.values())
    for part, seconds in measured.parts.items():
        yield f"{part:<34}{seconds:>10.3f} s{seconds / total:>8.1%}"
    yield ""
    for steady in measured.steady:
        yield from _named(_steady_figures(steady))
        yield ""
    yield from _named(_ratios(measured, plan))


def _named(figures: dict[str, float]) -> Iterator[str]:
    for name, value in figures.items():
        yield f"{name:<48}{value:>12,.4g}"


def _row(name: str, costs: list[Cost]) -> str:
    cost = _middle(costs)
    return (
        f"{name:<34}{cost.samples:>10,}{cost.seconds:>9.3f}{cost.samples_per_s:>12,.0f}"
        f"{cost.cpu_s:>8.2f}{cost.redis_cpu_s:>7.2f}{cost.postgresql_cpu_s:>10.2f}"
        f"{cost.rss_peak_bytes / MIB:>10,.0f}"
    )


def _middle(costs: list[Cost]) -> Cost:
    """Return the repetition whose time is the median."""
    seconds = median_low(cost.seconds for cost in costs)
    return next(cost for cost in costs if cost.seconds == seconds)


def _figures(costs: list[Cost]) -> dict[str, Any]:
    cost = _middle(costs)
    return asdict(cost) | {
        "samples_per_s": cost.samples_per_s,
        "all_cpu_s": cost.all_cpu_s,
        "all_seconds": [each.seconds for each in costs],
    }


def _steady_figures(steady: Steady) -> dict[str, float]:
    cost = steady.cost
    return {
        "sandboxes": steady.sandboxes,
        "seconds between folds": steady.every_s,
        "batches folded": steady.batches,
        "samples folded": cost.samples,
        "aggregator, share of a core": cost.cpu_s / cost.seconds,
        "redis, share of a core": cost.redis_cpu_s / cost.seconds,
        "postgresql, share of a core": cost.postgresql_cpu_s / cost.seconds,
        "lag p50, s": steady.lag_p50_s,
        "lag p99, s": steady.lag_p99_s,
        "longest fold, s": steady.longest_fold_s,
    }


def _us_per_sandbox(case: CatchUp) -> float:
    return _middle(case.costs).seconds / case.sandboxes * 1e6


def _ratios(measured: Measured, plan: Plan) -> dict[str, float]:
    """Return how the product compares, on the same batches, and how its cost grows."""
    cases = {(case.sandboxes, case.samples): case for case in measured.catch_ups}
    smallest, largest = min(plan.sizes), max(plan.sizes)

    def product(size: int) -> Cost:
        return _middle(cases[size, plan.samples].costs)

    def rate(costs: list[Cost]) -> float:
        return _middle(costs).samples_per_s

    def cpu(cost: Cost) -> float:
        return cost.all_cpu_s / cost.samples

    few, many = product(smallest), product(largest)
    main = _middle(cases[plan.main_size, plan.yardstick_samples].costs)
    fewest, most = (
        cases[plan.main_size, samples]
        for samples in (f((plan.samples, *plan.other_samples)) for f in (min, max))
    )
    return {
        "vs_straightforward": main.samples_per_s / rate(measured.straightforward),
        "vs_straightforward_same_batches": product(plan.straightforward_size).samples_per_s
        / rate(measured.straightforward),
        "vs_postgresql": main.samples_per_s / rate(measured.postgresql),
        "vs_postgresql_in_cpu": cpu(_middle(measured.postgresql)) / cpu(main),
        "of_numpy_floor": main.samples_per_s / rate(measured.floor),
        f"time_per_sandbox_{smallest}_to_{largest}": (many.seconds / largest)
        / (few.seconds / smallest),
        f"cpu_per_sandbox_{smallest}_to_{largest}": cpu(many) / cpu(few),
        f"time_per_sample_{most.samples}_to_{fewest.samples}_of_a_life": (
            _middle(most.costs).seconds / most.samples
        )
        / (_middle(fewest.costs).seconds / fewest.samples),
        "mib_per_100000_sandboxes": (many.rss_peak_bytes - few.rss_before_bytes)
        / MIB
        / largest
        * SANDBOXES_FOR_MEMORY,
    }
