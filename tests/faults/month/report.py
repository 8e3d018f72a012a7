"""What months of faults came to: a line a seed, a page for readers, and JSON with every figure."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import quantiles

# What a fault is called on the page, in the order of the page.
WORDS = {
    "kill": "workers killed outright, at any statement",
    "twice": "work done by two at once",
    "put_off": "folds put off for a day",
    "passes_left_out": "spells without a pass",
    "readings_lost": "days on which readings were lost",
    "batches_lost": "times that entries were taken out of streams",
    "redis_emptied": "times that Redis lost all streams",
    "redis_killed": "Redis servers killed outright",
    "redis_stands_still": "times that Redis stood still",
    "postgresql_killed": "PostgreSQL servers killed outright",
    "clock_steps": "sweeps by a clock that is an hour off",
    "provider": "calls to the provider that failed, or whose answer was lost",
    "webhook_dropped": "webhooks that never came",
    "webhook_repeated": "webhooks that came twice",
}
PACKAGES = ("django", "celery", "redis", "psycopg", "stripe")


@dataclass
class Outcome:
    """What a seed did, and what is wrong after it: nothing, it is to be hoped."""

    seed: int
    accounts: int
    took_s: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    recoveries_s: list[float] = field(default_factory=list)
    late_customers: int = 0
    expected_cents: int = 0
    found_cents: int = 0
    wrong: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return a line about it, and one about each thing that is wrong."""
        faults = ", ".join(f"{what} {times}" for what, times in self.faults.items() if times)
        head = (
            f"seed {self.seed}: {self.took_s:.0f} s; {faults}; {self.late_customers} of "
            f"{self.accounts} with late usage; {len(self.wrong)} wrong"
        )
        again = f"make faults SEED={self.seed} ACCOUNTS={self.accounts} does it again"
        return [head, *(f"  {line}" for line in [*self.wrong, again] if self.wrong)]


def write(outcomes: Sequence[Outcome], page: Path) -> None:
    """Write the page, and the JSON beside it."""
    page.write_text("\n".join(_page(outcomes)) + "\n")
    every = [vars(one) for one in outcomes]
    page.with_suffix(".json").write_text(json.dumps({"versions": _versions(), "seeds": every}))


def _page(outcomes: Sequence[Outcome]) -> list[str]:
    faults = sum((one.faults for one in outcomes), Counter())
    expected = sum(one.expected_cents for one in outcomes)
    found = sum(one.found_cents for one in outcomes)
    late = sum(one.late_customers for one in outcomes)
    seeds = [one.seed for one in outcomes]
    return [
        "# Faults",
        "",
        f"{len(outcomes)} months of {outcomes[0].accounts} accounts, seeds {_runs(seeds)}:",
        "metered, billed, collected and refunded while all of this went wrong.",
        "",
        "| injected | times |",
        "|---|---|",
        *(f"| {words} | {faults[what]:,} |" for what, words in WORDS.items()),
        "",
        "| | |",
        "|---|---|",
        f"| invoices had to ask for, before tax | {expected / 100:,.2f} |",
        f"| they ask for | {found / 100:,.2f} |",
        f"| difference | {(found - expected) / 100:,.2f} |",
        f"| accounts with usage that came after their invoice | {late:,} |",
        f"| things wrong | {sum(len(one.wrong) for one in outcomes):,} |",
        *_recovery([delay for one in outcomes for delay in one.recoveries_s]),
        "",
        "Compared with an oracle that shares no code: usage of each account, period and meter;",
        "each invoice's figures; credit; payments, refunds, both ledgers; numbers without gaps.",
        "",
        ", ".join(f"{name} {number}" for name, number in _versions().items()) + ".",
        "",
        *(line for one in outcomes if one.wrong for line in one.lines()),
    ]


def _runs(seeds: Sequence[int]) -> str:
    """Return `1 to 3, 7` for 1, 2, 3 and 7: processes that share seeds may end early."""
    runs: list[list[int]] = []
    for seed in sorted(seeds):
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    return ", ".join(f"{one[0]} to {one[-1]}" if len(one) > 1 else f"{one[0]}" for one in runs)


def _recovery(delays: Sequence[float]) -> list[str]:
    """Return how long work that was ended in the middle took to be done after all."""
    if len(delays) < 2:
        return []
    cuts = quantiles(delays, n=100, method="inclusive")
    return [
        f"| done after all after a kill, median | {cuts[49]:.2f} s |",
        f"| of a hundred the slowest | {cuts[98]:.2f} s |",
    ]


def _versions() -> dict[str, str]:
    return {"Python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
