"""The product's Celery app with kill points: `celery -A tests.faults.rounds.app`.

The environment says what it is run for: ROUNDS_OF (what the beat sends), ROUNDS_TICK_S (how often),
FAULT (points.py). The points stand around the product's functions; of its settings none is changed
but what the beat sends, and that a fold is committed after few samples.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from uuid import UUID

from celery import Task, signals
from django.db.backends.base.base import BaseDatabaseWrapper

from soulbox.celery import app
from tests.faults.month.control import take_row_locks_away
from tests.faults.rounds import plain
from tests.faults.rounds.points import ANOTHERS, note, reach

TICK_S = float(os.environ["ROUNDS_TICK_S"])
SAMPLES_PER_COMMIT = 20

_TICKS = {
    "billing": ("billing.tasks.sweep_billing", "billing"),
    "aggregation": ("metering.tasks.aggregate_all", "aggregate"),
    "plain aggregation": (plain.FOLD, "aggregate"),
}


def _tick(task: str, queue: str) -> dict[str, object]:
    return {
        "task": task,
        "schedule": TICK_S,
        "options": {"queue": queue, "expires": max(TICK_S, 5)},
    }


if os.environ["ROUNDS_OF"] in _TICKS:
    task, queue = _TICKS[os.environ["ROUNDS_OF"]]
    # Twice, as two beats would: two workers are after the same work at once.
    app.conf.beat_schedule = {f"beat {number}": _tick(task, queue) for number in (1, 2)}


class _Doing:
    """What this process is about to commit, and whether its task has committed anything."""

    commits = ""
    has_committed = False


@signals.task_prerun.connect
def _begin(**_sender: object) -> None:
    _Doing.commits, _Doing.has_committed = "", False


@signals.task_postrun.connect
def _end(task: Task[Any, Any], **_sender: object) -> None:
    # Its node acknowledges the message when it hears that the task has ended.
    if _Doing.has_committed and task.name != "metering.tasks.aggregate_all":
        reach("before the acknowledgement")


@signals.worker_process_init.connect
def _set_points(**_sender: object) -> None:
    _stand_around_commits()
    _stand_in_billing()
    _stand_in_aggregation()
    if os.environ["ROUNDS_OF"] == "plain billing":
        take_row_locks_away()


def _stand_around_commits() -> None:
    commit = BaseDatabaseWrapper._commit  # type: ignore[attr-defined]

    def told(connection: BaseDatabaseWrapper) -> None:
        what, _Doing.commits = _Doing.commits, ""
        if what:
            reach(f"before the commit of {what}")
        commit(connection)
        if what:
            _Doing.has_committed = True
            reach(f"after the commit of {what}")

    BaseDatabaseWrapper._commit = told  # type: ignore[attr-defined]


def _stand_in_billing() -> None:
    # Django has to be set up first.
    import metering.services  # noqa: PLC0415
    from billing.services import billing_run, finalising, issuing  # noqa: PLC0415

    _after(billing_run, "_claim_accounts", "accounts claimed", unless_empty=True)
    _after(billing_run, "write_new_statements", "drafts inserted", commits="drafts")
    _after(billing_run, "_claim_drafts", "drafts claimed", unless_empty=True)
    _after(metering.services, "freeze_accounts", "usage frozen")
    _after(finalising, "_open_next_periods", "invoices written")
    _after(issuing, "take_numbers", "numbers taken", commits="invoices")


def _stand_in_aggregation() -> None:
    # Django has to be set up first.
    from metering import aggregator, ledger, stream  # noqa: PLC0415

    aggregator.SAMPLES_PER_COMMIT = SAMPLES_PER_COMMIT
    lock = aggregator._lock_cursor

    def lock_and_tell(host_id: UUID) -> Any:
        cursor = lock(host_id)
        if cursor is None:
            note(ANOTHERS)
        elif any(stream.read_after(host_id, cursor.entry_id, limit=1)):
            reach("cursor locked")
        return cursor

    aggregator._lock_cursor = lock_and_tell
    _after(aggregator, "_fold", "entries read and folded")
    _after(ledger, "save", "usage inserted")
    _after(aggregator, "_move", "cursor moved", commits="usage")
    _after(stream, "trim", "stream trimmed")


def _after(
    module: object, name: str, point: str, *, commits: str = "", unless_empty: bool = False
) -> None:
    """Set a point behind a function; `commits` is what the next commit is of.

    A function that is called with nothing to do, or finds nothing, has no point behind it.
    """
    inner: Callable[..., Any] = getattr(module, name)

    def told(*arguments: Any, **named: Any) -> Any:
        answer = inner(*arguments, **named)
        nothing = answer == [] if unless_empty else bool(arguments) and arguments[0] == []
        if not nothing:
            _Doing.commits = commits
            reach(point)
        return answer

    setattr(module, name, told)
