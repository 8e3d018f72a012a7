"""Months with every fault at random, each from a seed, held to an oracle to the cent.

`make faults SEEDS=100` runs more of them; `make faults SEED=123` runs one again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from uuid import uuid4

import pytest

from tests.faults.month.oracle import Owed, Unmeasured, Usage, cents, owed, usage_in
from tests.faults.month.report import Outcome, write
from tests.faults.month.script import GIGABYTE, Customer, Gift, Load, draw_month
from tests.processes import ROOT

# A month waits for its servers half of the time.
JOBS = 2
MAY = datetime(2026, 5, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def run_months(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m tests.faults.month`."""
    return subprocess.run(
        [sys.executable, "-m", "tests.faults.month", *arguments],
        cwd=ROOT,
        env={**os.environ},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("first", "seeds", "accounts"), [(1, 25, 3), (2000, 2, 50)])
def test_months_of_faults_come_to_what_the_oracle_says(
    capsys: pytest.CaptureFixture[str], first: int, seeds: int, accounts: int
) -> None:
    asked = {"--first": first, "--seeds": seeds, "--accounts": accounts, "--jobs": JOBS}
    done = run_months(*(str(word) for pair in asked.items() for word in pair))
    with capsys.disabled():
        print(f"\n{done.stdout}")  # noqa: T201 - which seeds and faults there were
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("; 0 wrong") == seeds
    # Else nothing was shown.
    for fault in ("kill", "twice", "batches_lost", "provider", "webhook_dropped"):
        assert f"{fault} " in done.stdout


@pytest.mark.timeout(600)
def test_control_without_locks_and_constraints_periods_are_invoiced_twice() -> None:
    done = run_months("--first", "1", "--seeds", "5", "--accounts", "6", "--control")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "has 2 invoices of the period" in done.stdout
    assert "make faults SEED=" in done.stdout


def test_a_seed_draws_the_same_month_again() -> None:
    assert draw_month(7, accounts=3) == draw_month(7, accounts=3)
    assert draw_month(7, accounts=3) != draw_month(8, accounts=3)


def test_the_oracle_takes_gaps_off_once() -> None:
    load = Load("box", "sbx", 0, MAY - HOUR, MAY + 9 * HOUR, 2, 3, 5)
    gaps = [
        Unmeasured("box", "memory", (MAY + HOUR, MAY + 3 * HOUR)),
        Unmeasured("box", "life", (MAY + 2 * HOUR, MAY + 4 * HOUR)),
        Unmeasured("another", "life", (MAY, MAY + 4 * HOUR)),
    ]
    used = usage_in((MAY, MAY + 6 * HOUR), [load], gaps)
    hour_ms = 3_600_000
    assert used == Usage(2 * 4 * hour_ms, 3 * 3 * hour_ms, 5 * 4 * hour_ms)


@pytest.mark.parametrize(
    ("dollars", "gift", "expected"),
    [
        (0, 0, Owed(9900, 0, 0, 0)),
        (120, 0, Owed(9900, 12000, 0, 10000)),
        (500, 30, Owed(9900, 50000, 2500, 13000)),
        (2000, 0, Owed(9900, 200000, 20000, 10000)),
    ],
)
def test_the_oracle_states_a_month_of_the_professional_plan(
    dollars: int, gift: int, expected: Owed
) -> None:
    given = Gift(prepaid=False, dollars=gift, at=MAY)
    customer = Customer(uuid4(), "UTC", 0, "professional", None, given, "", 0, ())
    cpu_ns = int(Fraction(dollars) / Fraction(12, 10**6) * 10**9)
    assert owed(customer, 0, Usage(cpu_ns=-(-cpu_ns // 1))) == expected


def test_the_oracle_shares_a_month_between_two_plans() -> None:
    choice = (MAY + 16 * 24 * HOUR, "team")
    customer = Customer(uuid4(), "UTC", 0, "professional", choice, None, "", 0, ())
    used = Usage(memory_byte_ms=300_000_000 * GIGABYTE * 1000)
    # docs/rating.md: 51.10 and 144.68, with 51.61 and 145.16 of credit.
    assert owed(customer, 0, used) == Owed(19578, 120000, 6000, 19677)
    assert owed(customer, 1, Usage()) == Owed(29900, 0, 0, 0)


@pytest.mark.parametrize(("dollars", "expected"), [("0.004999", 0), ("0.005", 1), ("0.015", 2)])
def test_the_oracle_rounds_half_up(dollars: str, expected: int) -> None:
    assert cents(Fraction(dollars)) == expected


def test_the_page_says_which_seeds_there_were(tmp_path: Path) -> None:
    page = tmp_path / "report.md"
    write([Outcome(seed, 3, faults=Counter(kill=2)) for seed in (1, 2, 3, 7)], page)
    assert "4 months of 3 accounts, seeds 1 to 3, 7:" in page.read_text()
    assert "| workers killed outright, at any statement | 8 |" in page.read_text()
    kept = json.loads(page.with_suffix(".json").read_text())
    assert [(one["seed"], one["faults"]) for one in kept["seeds"]] == [
        (seed, {"kill": 2}) for seed in (1, 2, 3, 7)
    ]
