"""Prepares, loads everything at once, waits until nothing waits, judges, and reports."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from django.core.management import call_command

from bench.aggregating.processes import Worker
from bench.webhooking.load import Answers
from payments.models import WebhookEvent
from soulbox.services import start_services
from tests.local_stripe import LocalStripe
from tests.soak.crew import Crew, running
from tests.soak.figures import Soak, of_run
from tests.soak.installation import Installation, end_month, prepare
from tests.soak.judging import judge
from tests.soak.loads import ask, tell
from tests.soak.plan import Plan
from tests.soak.report import lines, write
from tests.soak.watch import Passes, Watch, waiting

TICK_S = 1.0
FIRST_PASSES = 3
FIRST_PASSES_LIMIT_S = 120
FOLD_LIMIT_S = 120
LAST_TASKS_LIMIT_S = 60


def run(plan: Plan, stripe: LocalStripe, home: Path, report: Path | None) -> int:
    """Run the loads; return 1 when money is wrong or something is left that waits."""
    load_before = os.getloadavg()[0]
    start_services()
    call_command("migrate", database="owner", verbosity=0)
    _say(f"preparing {plan.subscriptions:,} subscriptions, {plan.cards:,} cards")
    installed = prepare(plan)
    with running(installed.host_id, stripe, home) as crew:
        found = _load(plan, installed, crew)
        found.load_before = load_before
        _say("judging")
        found.verdict = judge(plan, installed, stripe)
        found.errors = crew.errors()
    if report:
        write(found, report)
    sys.stdout.write("\n".join(lines(found)) + "\n")
    return 1 if found.failures() else 0


def _load(plan: Plan, installed: Installation, crew: Crew) -> Soak:
    """Load everything, end the month in the middle of it, and wait until nothing waits."""
    passes = Passes(installed.host_id)
    _until(lambda: len(passes.began_ms) >= FIRST_PASSES, FIRST_PASSES_LIMIT_S, passes.follow)
    passes.forget()
    _say(f"loading for {plan.seconds} s")
    with ExitStack() as stack:
        asking, telling = (stack.enter_context(Worker()) for _ in range(2))
        watch = Watch(crew, installed.host_id, passes)
        loads_began_at = datetime.now(UTC)
        seconds = plan.seconds
        asking.start(
            ask, crew.port, installed.api_keys, a_second=plan.calls_a_second, seconds=seconds
        )
        telling.start(
            tell,
            crew.port,
            installed.customer_ids,
            a_second=plan.webhooks_a_second,
            seconds=seconds,
        )
        _until(lambda: watch.at_s >= plan.month_ends_after_s, seconds, watch.tick)
        watch.look()
        end_month()
        month_ended_s = watch.at_s
        _say("the month has ended")
        _until(lambda: watch.at_s >= seconds, seconds, watch.tick)
        answers: tuple[Answers, Answers] = (asking.result(), telling.result())
    loaded_until_s = watch.at_s
    steady = passes.errors_ms.copy(), list(passes.began_ms), passes.fewest_samples
    _say("the loads have ended")
    _drain(plan, crew, watch)
    return of_run(
        plan,
        watch.looks,
        answers=answers,
        passes=steady,
        month_ended_s=month_ended_s,
        loaded_until_s=loaded_until_s,
        applied_after_s=_applied_after_s(loads_began_at),
    )


def _drain(plan: Plan, crew: Crew, watch: Watch) -> None:
    """Wait until nothing waits; end what makes work before who does it."""

    def nothing_due() -> bool:
        now = watch.looks[-1].waiting
        return not (now.accounts or now.events or now.unpaid)

    def folded() -> bool:
        return not waiting(watch.host_id).entries

    def no_tasks() -> bool:
        now = waiting(watch.host_id)
        return not (now.tasks or now.held)

    watch.look()
    _until(nothing_due, plan.drain_minutes * 60, watch.tick)
    crew.stop("collector")
    _until(folded, FOLD_LIMIT_S, lambda: None)
    crew.stop("beat")
    _until(no_tasks, LAST_TASKS_LIMIT_S, lambda: None)
    if ended := crew.ended():
        raise ChildProcessError(f"{', '.join(ended)} ended by itself.")
    watch.look()


def _until(holds: Callable[[], bool], limit_s: float, work: Callable[[], None]) -> bool:
    """Work each second until it holds; False: it does not after so long."""
    until = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > until:
            return False
        began = time.monotonic()
        work()
        time.sleep(max(0.0, TICK_S - (time.monotonic() - began)))
    return True


def _applied_after_s(since: datetime) -> list[float]:
    """Return how long after it came each webhook was applied."""
    rows = WebhookEvent.objects.filter(received_at__gte=since, applied_at__isnull=False)
    return [
        (applied - received).total_seconds()
        for received, applied in rows.values_list("received_at", "applied_at")
        if applied
    ]


def _say(text: str) -> None:
    sys.stderr.write(f"{datetime.now(UTC):%H:%M:%S} {text}\n")
    sys.stderr.flush()
