"""All loads at once, small and for a quarter of a minute; `make soak` does it at full size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from bench.webhooking.load import Answers
from tests.processes import ROOT
from tests.soak.figures import Soak, of_run, percentiles, slope_an_hour
from tests.soak.plan import Plan
from tests.soak.report import goals, lines, write
from tests.soak.trees import Taken, taken
from tests.soak.watch import Look, Waiting

SMALL = {
    "--minutes": "0.25",
    "--sandboxes": "40",
    "--subscriptions": "20",
    "--cards": "5",
    "--calls": "4",
    "--webhooks": "1",
    "--drain": "3",
}
PLAN = Plan(
    minutes=1,
    sandboxes=10,
    subscriptions=2,
    cards=1,
    calls_a_second=1,
    webhooks_a_second=1,
    drain_minutes=1,
)
NOTHING = Waiting(
    entries=0,
    stream_s=0.0,
    tasks=0,
    held=0,
    accounts=0,
    billing_s=0.0,
    events=0,
    events_s=0.0,
    unpaid=0,
    collecting_s=0.0,
)


def look(at_s: float, *, final: int = 0, waiting: Waiting = NOTHING, rss_bytes: int = 0) -> Look:
    return Look(
        at_s=at_s,
        waiting=waiting,
        final=final,
        stream_length=1,
        taken={"collector": Taken(rss_bytes, at_s / 4), "web": Taken(rss_bytes, at_s)},
        keys=Counter({"celery": 2}),
        machine_load=1.5,
    )


def soak_of(*looks: Look) -> Soak:
    answers = Answers([10.0, 400.0, 20.0], Counter({"200": 3}), 60.0, [0.0, 25.0, 50.0])
    return of_run(
        PLAN,
        looks,
        answers=(answers, answers),
        passes=(Counter({5: 98, 900: 2}), [0, 2_000, 6_000], 10),
        month_ended_s=20.0,
        loaded_until_s=60.0,
        applied_after_s=[0.5, 1.5],
    )


@pytest.mark.timeout(900)
def test_a_small_soak_invoices_everybody_and_leaves_nothing_waiting(tmp_path: Path) -> None:
    page = tmp_path / "soak-report.md"
    asked = [word for pair in SMALL.items() for word in pair]
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", *asked, "--report", str(page)],
        cwd=ROOT,
        env={**os.environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(page.with_suffix(".json").read_text())
    assert set(found["left"].values()) == {0}
    verdict = found["verdict"]
    assert verdict["wrong"] == found["errors"] == []
    assert verdict["invoices"] == 20
    assert Decimal(verdict["charged"]) == Decimal(verdict["collected"]) > 0
    assert verdict["samples"] >= 40 * found["passes"] > 0
    assert found["fewest_samples"] == 40
    assert found["invoiced_after_s"] is not None
    assert found["collected_after_s"] is not None
    assert found["calls"] == {"200": 60}
    assert found["webhook_answers"] == {"200": 15}
    for measured in (
        "interval_error_ms",
        "calls_ms",
        "webhook_answers_ms",
        "webhooks_applied_after_s",
    ):
        assert set(found[measured]) == {"p50", "p95", "p99"}, measured
    everybody = {"web", "worker-billing", "worker-payments", "collector", "beat", "postgresql"}
    assert everybody < set(found["memory"])
    assert min(memory["first"] for memory in found["memory"].values()) > 1
    assert page.read_text().count("| – |") == 0


def test_times_are_from_the_end_of_the_month() -> None:
    behind = replace(NOTHING, unpaid=2)
    found = soak_of(
        look(0), look(30, final=1), look(45, final=2, waiting=behind), look(58, final=2)
    )
    assert found.invoiced_after_s == 25
    assert found.collected_after_s == 38
    assert found.invoices_a_second == 0.1
    assert found.calls_at_month_end_ms == {}
    assert found.calls_ms["p50"] == 20
    assert found.cores == {"collector": 0.25, "web": 1.0}


def test_interval_errors_count_as_often_as_they_are_there() -> None:
    found = soak_of(look(0), look(60))
    assert found.interval_error_ms == {"p50": 5, "p95": 5, "p99": 900}
    assert found.slots_without_pass == 1


def test_a_slope_is_of_the_second_half_alone() -> None:
    mebibytes = [0, 900, 100, 101, 102]
    found = soak_of(*(look(at * 15, rss_bytes=mebibytes[at] * 2**20) for at in range(5)))
    assert found.memory["web"].slope_an_hour == 240
    name, slope = found.steepest
    assert (name, slope) == ("collector", 240.0)
    assert slope_an_hour([(0, 1.0)]) == 0


def test_percentiles_of_nothing_are_nothing() -> None:
    assert percentiles([]) == {}
    assert percentiles([1.0, 1.0])["p99"] == 1


def test_what_is_not_met_is_said_with_its_number(tmp_path: Path) -> None:
    found = soak_of(look(0), look(60, waiting=replace(NOTHING, events=7)))
    said = {goal.asked: (goal.reached, goal.is_met) for goal in goals(found)}
    assert said["10 sandboxes at 2 s: p99 interval error under 200 ms"] == ("900 ms", False)
    assert said["2 subscriptions all invoiced in under 10 min"] == ("–", False)
    assert said["sampler under 1 core"] == ("0.25 of a core", True)
    write(found, tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    assert "| stream, queues and all lag back to zero | webhooks not applied: 7 | **no** |" in page
    assert "NOT met: stream, queues and all lag back to zero" in "\n".join(lines(found))


def test_slow_is_no_failure_but_waiting_and_wrong_money_are() -> None:
    slow = soak_of(look(0), look(60))
    assert not all(goal.is_met for goal in goals(slow))
    assert slow.failures() == []
    waits = soak_of(look(0), look(60, waiting=replace(NOTHING, unpaid=3)))
    assert waits.failures() == ["3 invoices to be collected are left."]
    slow.verdict.wrong.append("A cent is missing.")
    assert slow.failures() == ["A cent is missing."]


def test_what_a_process_takes_is_seen_and_one_that_ended_takes_nothing() -> None:
    found = taken({"this": os.getpid(), "gone": 2**22 + 1})
    assert found["this"].rss_bytes > 2**20
    assert found["this"].cpu_s > 0
    assert found["gone"] == Taken(0, 0)
