"""The page that tells what a run came to, with JSON beside it."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from tests.soak.figures import COLLECTOR, Percentiles, Soak

PACKAGES = ("django", "celery", "redis", "psycopg", "stripe")
ERRORS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Goal:
    """What is asked for, what was reached, and whether that meets it."""

    asked: str
    reached: str
    is_met: bool


def goals(found: Soak) -> list[Goal]:
    """Return each thing that was asked for, with what came of it."""
    error_ms = found.interval_error_ms.get("p99")
    cores = found.cores[COLLECTOR]
    call_ms = found.calls_at_month_end_ms.get("p95")
    invoiced_s = found.invoiced_after_s
    name, slope = found.steepest
    waits = {what: count for what, count in found.left.items() if count}
    plan = found.plan
    return [
        Goal(
            f"{plan.sandboxes:,} sandboxes at 2 s: p99 interval error under 200 ms",
            _told(error_ms, "ms"),
            error_ms is not None and error_ms < 200,
        ),
        Goal("sampler under 1 core", f"{cores:.2f} of a core", cores < 1),
        Goal(
            f"{plan.subscriptions:,} subscriptions all invoiced in under 10 min",
            _told(invoiced_s, "s"),
            invoiced_s is not None and invoiced_s < 600,
        ),
        Goal(
            "API p95 under 300 ms meanwhile",
            _told(call_ms, "ms"),
            call_ms is not None and call_ms < 300,
        ),
        Goal(
            "memory of each process grows by less than 1 MB/h",
            f"{slope:+,.1f} MiB/h, {name}",
            slope < 1,
        ),
        Goal(
            "keys without expiry constant in the second half",
            f"{found.keys['at half-time']}, then {found.keys['at the end']}",
            not found.keys_that_grew,
        ),
        Goal(
            "stream, queues and all lag back to zero",
            "; ".join(f"{what}: {count:,}" for what, count in waits.items()) or "all zero",
            not waits,
        ),
        Goal(
            "no cent and no nanosecond wrong",
            "; ".join(found.verdict.wrong) or "nothing wrong",
            not found.verdict.wrong,
        ),
    ]


def lines(found: Soak) -> list[str]:
    """Return the goals, a line each, and what makes the run fail."""
    told = [
        f"{'met' if goal.is_met else 'NOT met'}: {goal.asked}: {goal.reached}"
        for goal in goals(found)
    ]
    return [*told, *found.failures()]


def write(found: Soak, page: Path) -> None:
    """Write the page, and the JSON beside it."""
    page.write_text("\n".join(_page(found)) + "\n")
    kept = {
        **asdict(found),
        "goals": [asdict(goal) for goal in goals(found)],
        "versions": _versions(),
        "cpus": os.cpu_count(),
    }
    page.with_suffix(".json").write_text(json.dumps(kept, indent=2, default=str) + "\n")


def _page(found: Soak) -> Iterator[str]:
    plan = found.plan
    yield from (
        "# Soak",
        "",
        f"{plan.minutes:g} minutes of {plan.sandboxes:,} simulated sandboxes, each read every 2 s,",
        f"with {plan.calls_a_second} calls of the API a second",
        f"and {plan.webhooks_a_second} webhooks beside those of the local Stripe.",
        f"After {plan.month_ends_after_s} s {plan.subscriptions:,} subscriptions have a month end;",
        f"{plan.cards:,} pay by card through the local Stripe, the others have paid ahead.",
        f"All of it on {os.cpu_count()} cores: PostgreSQL, Redis, the local Stripe",
        "and what makes the load, too.",
        f"Load average before: {found.load_before:.1f}, meanwhile: {found.machine_load:.1f}.",
        "",
        "| asked | reached | met |",
        "|---|---|---|",
    )
    for goal in goals(found):
        yield f"| {goal.asked} | {goal.reached} | {'yes' if goal.is_met else '**no**'} |"
    yield from _loads(found)
    yield from _memory(found)
    yield from _queues(found)
    yield from _money(found)
    yield from ("", ", ".join(f"{name} {number}" for name, number in _versions().items()) + ".")


def _loads(found: Soak) -> Iterator[str]:
    yield from ("", "## Times", "", "| | p50 | p95 | p99 |", "|---|---|---|---|")
    for name, values, unit in (
        ("interval of a sandbox, from 2 s", found.interval_error_ms, "ms"),
        ("API, all the time", found.calls_ms, "ms"),
        ("API, from the month's end until all was invoiced", found.calls_at_month_end_ms, "ms"),
        ("webhook until it was answered", found.webhook_answers_ms, "ms"),
        ("webhook until it was applied", found.webhooks_applied_after_s, "s"),
    ):
        yield _row(name, values, unit)
    yield from (
        "",
        "| | |",
        "|---|---|",
        f"| passes; slots of 2 s without one | {found.passes:,}; {found.slots_without_pass:,} |",
        f"| sandboxes in the smallest pass | {found.fewest_samples:,} |",
        f"| all invoiced after the month's end | {_told(found.invoiced_after_s, 's')} |",
        f"| invoices a second, drafted and final | {found.invoices_a_second:,} |",
        f"| all collected after the month's end | {_told(found.collected_after_s, 's')} |",
        f"| calls of the API, by answer | {_counts(found.calls)} |",
        f"| webhooks sent, by answer | {_counts(found.webhook_answers)} |",
        f"| webhooks applied, those of the local Stripe too | {found.webhooks_applied:,} |",
    )


def _memory(found: Soak) -> Iterator[str]:
    yield from (
        "",
        "## Processes",
        "",
        "Resident memory of each with its children, MiB; PostgreSQL's without shared buffers.",
        "The slope is by least squares over the second half: of a short run it says little.",
        "",
        "| process | cores | at first | at last | MiB/h |",
        "|---|---|---|---|---|",
    )
    for name, memory in found.memory.items():
        yield (
            f"| {name} | {found.cores.get(name, 0):.2f} | {memory.first:,.0f} | "
            f"{memory.last:,.0f} | {memory.slope_an_hour:+,.1f} |"
        )


def _queues(found: Soak) -> Iterator[str]:
    yield from ("", "## What waited", "", "| | longest |", "|---|---|")
    yield from (f"| {what} | {value:,} |" for what, value in found.longest.items())
    yield from ("", "| left at the end | |", "|---|---|")
    yield from (f"| {what} | {count:,} |" for what, count in found.left.items())
    yield from ("", "| keys without expiry | |", "|---|---|")
    yield from (f"| {when} | {count:,} |" for when, count in found.keys.items())
    yield from (f"| new: `{kind}` | {count:,} |" for kind, count in found.keys_that_grew.items())


def _money(found: Soak) -> Iterator[str]:
    verdict = found.verdict
    yield from (
        "",
        "## Money",
        "",
        "| | |",
        "|---|---|",
        f"| invoices of the month, one for each subscription | {verdict.invoices:,} |",
        f"| they come to | {verdict.invoiced:,.2f} |",
        f"| cards charged, says the local Stripe | {verdict.charged:,.2f} |",
        f"| received, say our books | {verdict.collected:,.2f} |",
        f"| difference | {verdict.charged - verdict.collected:,.2f} |",
        f"| samples of the fleet folded | {verdict.samples:,} |",
        f"| its cpu, from rate × time | {verdict.cpu_difference_ns:,} ns |",
        f"| its egress, from rate × time | {verdict.egress_difference_bytes:,} bytes |",
        "",
        "`conservation` of every invoice of the month and `audit_usage` of the fleet "
        + ("hold." if not verdict.wrong else "were asked too:"),
        *(f"\n- {line}" for line in verdict.wrong),
        "",
        f"Lines in logs that are errors: {len(found.errors):,}.",
        *(f"\n    {line[:300]}" for line in found.errors[:ERRORS_SHOWN]),
    )


def _row(name: str, values: Percentiles, unit: str) -> str:
    cells = (_told(values.get(percent), unit) for percent in ("p50", "p95", "p99"))
    return f"| {name} | {' | '.join(cells)} |"


def _told(value: float | None, unit: str) -> str:
    return "–" if value is None else f"{value:,.10g} {unit}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{what}: {count:,}" for what, count in sorted(counts.items())) or "none"


def _versions() -> dict[str, str]:
    return {"Python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
