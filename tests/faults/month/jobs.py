"""Shares seeds among processes, each with an installation of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.faults.month.report import Outcome, write


def share(given: Namespace) -> int:
    """Run the seeds that were asked for in `given.jobs` processes; return 1 if one goes wrong."""
    with TemporaryDirectory(prefix="soulbox-months-") as folder:
        pages = [Path(folder, f"{job}.md") for job in range(given.jobs)]
        running = [
            subprocess.Popen(_command(given, first, seeds, page))
            for (first, seeds), page in zip(_shares(given), pages, strict=True)
        ]
        statuses = [process.wait() for process in running]
        outcomes = [outcome for page in pages for outcome in _read(page)]
        if given.report and outcomes:
            write(outcomes, given.report)
    return max(map(abs, statuses))


def _shares(given: Namespace) -> Iterator[tuple[int, int]]:
    """Yield the first seed of each process, and how many; they differ by one at most."""
    least, over = divmod(given.seeds, given.jobs)
    first = given.first
    for job in range(given.jobs):
        seeds = least + (job < over)
        yield first, seeds
        first += seeds


def _command(given: Namespace, first: int, seeds: int, page: Path) -> list[str]:
    asked = ["--first", first, "--seeds", seeds, "--accounts", given.accounts, "--report", page]
    flags = [f"--{flag}" for flag in ("without-faults", "control") if vars(given)[_name(flag)]]
    return [sys.executable, "-m", "tests.faults.month", *map(str, asked), *flags]


def _name(flag: str) -> str:
    return flag.replace("-", "_")


def _read(page: Path) -> Iterator[Outcome]:
    """Yield what a process wrote; nothing, where it ended before it could."""
    file = page.with_suffix(".json")
    if file.exists():
        for one in json.loads(file.read_text())["seeds"]:
            yield Outcome(**one | {"faults": Counter(one["faults"])})
