"""What a run came to, from all that was seen of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, linear_regression, quantiles

from bench.webhooking.load import Answers
from tests.soak.crew import LOCAL_STRIPE
from tests.soak.judging import Verdict
from tests.soak.plan import Plan
from tests.soak.watch import INTERVAL_MS, Look

MEBIBYTE = 2**20
HOUR_S = 3_600
PERCENTS = (50, 95, 99)
COLLECTOR = "collector"
Percentiles = dict[str, float]


@dataclass(frozen=True, slots=True)
class Memory:
    """Of a tree of processes, in MiB: at first and at last, and its slope in the second half."""

    first: float
    last: float
    slope_an_hour: float


@dataclass
class Soak:
    """The figures. What never happened is None, or empty."""

    plan: Plan
    interval_error_ms: Percentiles
    passes: int
    slots_without_pass: int
    fewest_samples: int
    cores: dict[str, float]
    invoiced_after_s: float | None
    collected_after_s: float | None
    calls_ms: Percentiles
    calls_at_month_end_ms: Percentiles
    calls: dict[str, int]
    webhook_answers_ms: Percentiles
    webhook_answers: dict[str, int]
    webhooks_applied: int
    webhooks_applied_after_s: Percentiles
    memory: dict[str, Memory]
    keys: dict[str, int]
    keys_that_grew: dict[str, int]
    longest: dict[str, float]
    left: dict[str, int]
    machine_load: float
    verdict: Verdict = field(default_factory=Verdict)
    errors: list[str] = field(default_factory=list)
    load_before: float = 0.0

    @property
    def invoices_a_second(self) -> float:
        """How many were made final in a second, up to the last one."""
        if not self.invoiced_after_s:
            return 0.0
        return round(self.plan.subscriptions / self.invoiced_after_s, 1)

    @property
    def steepest(self) -> tuple[str, float]:
        """The process of ours whose memory grows most, and by how many MiB an hour."""
        ours = (name for name in self.memory if name != LOCAL_STRIPE)
        name = max(ours, key=lambda one: self.memory[one].slope_an_hour)
        return name, self.memory[name].slope_an_hour

    def failures(self) -> list[str]:
        """Return what makes the run fail: wrong money, and what still waits."""
        left = [f"{count} {what} are left." for what, count in self.left.items() if count]
        return [*self.verdict.wrong, *left]


def of_run(  # one argument for each thing that was measured
    plan: Plan,
    looks: Sequence[Look],
    *,
    answers: tuple[Answers, Answers],
    passes: tuple[Counter[int], list[int], int],
    month_ended_s: float,
    loaded_until_s: float,
    applied_after_s: Sequence[float],
) -> Soak:
    """Return the figures of a run: of its loads, of what came after, and of how it ended."""
    loaded = [look for look in looks if look.at_s <= loaded_until_s]
    errors_ms, began_ms, fewest = passes
    calls, webhooks = answers
    invoiced_s = _first(looks, lambda look: look.final >= plan.subscriptions)
    collected_s = _first(
        looks, lambda look: look.final >= plan.subscriptions and not look.waiting.unpaid
    )
    at_month_end = [
        taken_ms
        for taken_ms, due_s in zip(calls.times_ms, calls.dues_s, strict=True)
        if month_ended_s <= due_s <= (invoiced_s or loaded_until_s)
    ]
    return Soak(
        plan=plan,
        interval_error_ms=_of_counts(errors_ms),
        passes=len(began_ms),
        slots_without_pass=_slots_left_out(began_ms),
        fewest_samples=fewest,
        cores=_cores(loaded),
        invoiced_after_s=None if invoiced_s is None else round(invoiced_s - month_ended_s, 1),
        collected_after_s=None if collected_s is None else round(collected_s - month_ended_s, 1),
        calls_ms=percentiles(calls.times_ms),
        calls_at_month_end_ms=percentiles(at_month_end),
        calls=dict(calls.statuses),
        webhook_answers_ms=percentiles(webhooks.times_ms),
        webhook_answers=dict(webhooks.statuses),
        webhooks_applied=len(applied_after_s),
        webhooks_applied_after_s=percentiles(applied_after_s),
        memory=_memory(loaded),
        keys={"at half-time": _half(loaded).keys.total(), "at the end": loaded[-1].keys.total()},
        keys_that_grew=dict(loaded[-1].keys - _half(loaded).keys),
        longest=_longest(looks),
        left=looks[-1].waiting.left(),
        machine_load=round(fmean(look.machine_load for look in loaded), 1),
    )


def percentiles(values: Sequence[float]) -> Percentiles:
    """Return p50, p95 and p99; nothing of fewer than two values."""
    if len(values) < 2:
        return {}
    cuts = quantiles(values, n=100, method="inclusive")
    return {f"p{percent}": round(cuts[percent - 1], 2) for percent in PERCENTS}


def slope_an_hour(points: Sequence[tuple[float, float]]) -> float:
    """Return by how much a value grows in an hour, by least squares over (seconds, value)."""
    if len({at_s for at_s, _ in points}) < 2:
        return 0.0
    seconds, values = zip(*points, strict=True)
    return linear_regression(seconds, values).slope * HOUR_S


def _of_counts(counts: Counter[int]) -> Percentiles:
    """Return percentiles of values of which each is there so many times."""
    found: Percentiles = {}
    for percent in PERCENTS:
        so_far = 0
        for value in sorted(counts):
            so_far += counts[value]
            if so_far * 100 >= percent * counts.total():
                found[f"p{percent}"] = float(value)
                break
    return found


def _slots_left_out(began_ms: Sequence[int]) -> int:
    """Return how many passes there would have been besides, one every two seconds."""
    if not began_ms:
        return 0
    slots = round((began_ms[-1] - began_ms[0]) / INTERVAL_MS) + 1
    return max(slots - len(began_ms), 0)


def _cores(looks: Sequence[Look]) -> dict[str, float]:
    first, last = looks[0], looks[-1]
    elapsed_s = last.at_s - first.at_s
    return {
        name: round((last.taken[name].cpu_s - before.cpu_s) / elapsed_s, 3)
        for name, before in first.taken.items()
        if name in last.taken and elapsed_s
    }


def _memory(looks: Sequence[Look]) -> dict[str, Memory]:
    half_s = (looks[0].at_s + looks[-1].at_s) / 2
    found = {}
    for name in looks[0].taken:
        points = [(look.at_s, look.taken[name].rss_bytes / MEBIBYTE) for look in looks]
        later = [point for point in points if point[0] >= half_s]
        found[name] = Memory(
            round(points[0][1], 1), round(points[-1][1], 1), round(slope_an_hour(later), 1)
        )
    return found


def _half(looks: Sequence[Look]) -> Look:
    return looks[len(looks) // 2]


def _first(looks: Sequence[Look], holds: Callable[[Look], bool]) -> float | None:
    """Return when it was first seen to hold."""
    return next((look.at_s for look in looks if holds(look)), None)


def _longest(looks: Sequence[Look]) -> dict[str, float]:
    every = [look.waiting for look in looks]
    return {
        "batches in the stream": max(look.stream_length for look in looks),
        "batches not folded": max(one.entries for one in every),
        "s until a batch is folded": round(max(one.stream_s for one in every), 1),
        "tasks in queues": max(one.tasks for one in every),
        "tasks with workers": max(one.held for one in every),
        "webhooks not applied": max(one.events for one in every),
        "s that a webhook waits": round(max(one.events_s for one in every), 1),
        "invoices to be collected": max(one.unpaid for one in every),
        "s that a collection's step is due": round(max(one.collecting_s for one in every), 1),
    }
