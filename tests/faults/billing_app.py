"""The product's Celery app for the faults of a billing run: `celery -A tests.faults.billing_app`.

Batches are small and slow and the beat is quick, so that there is always something to kill in the
middle. Each worker appends to a file which accounts it has claimed. The environment says how:
BILLING_QUEUE, BILLING_BATCH, BILLING_PAUSE_S, BILLING_HELD, BILLING_CLAIMS, BILLING_UNSAFE.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import signals
from django.db import connection
from django.db.backends.signals import connection_created
from django.dispatch import receiver

from soulbox.celery import app

SWEEP_EVERY_S = 1

queue = os.environ["BILLING_QUEUE"]
app.conf.beat_schedule = {
    "sweep billing": {
        "task": "billing.tasks.sweep_billing",
        "schedule": SWEEP_EVERY_S,
        "options": {"queue": queue, "expires": 5 * SWEEP_EVERY_S},
    }
}


@receiver(connection_created)
def _say_whose(**_sender: object) -> None:
    # Over a socket PostgreSQL does not know whom it serves, and the test has to.
    settings = {"application_name": f"worker {os.getpid()}"}
    if held := os.environ["BILLING_HELD"]:
        settings["idle_in_transaction_session_timeout"] = held
    with connection.cursor() as cursor:
        for name, value in settings.items():
            cursor.execute("SELECT set_config(%s, %s, false)", [name, value])


@signals.worker_process_init.connect
def _slow_down(**_sender: object) -> None:
    from billing.services import billing_run  # noqa: PLC0415 - Django has to be set up first

    billing_run.ACCOUNTS_A_BATCH = int(os.environ["BILLING_BATCH"])
    billing_run._claim_accounts = _told("draft", billing_run._claim_accounts)
    billing_run._claim_drafts = _told("finalise", billing_run._claim_drafts)
    if os.environ.get("BILLING_UNSAFE"):
        _take_locks_away()


def _told(what: str, claim: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """Return `claim` so that it tells what it claimed, and takes its time with it."""

    def told(*arguments: object) -> list[Any]:
        claimed = claim(*arguments)
        if claimed:
            keys = ",".join(str(getattr(row, "account", row).pk) for row in claimed)
            with Path(os.environ["BILLING_CLAIMS"]).open("a") as claims:
                claims.write(f"{time.time()} {os.getpid()} {what} {keys}\n")
            time.sleep(float(os.environ["BILLING_PAUSE_S"]))
        return claimed

    return told


def _take_locks_away() -> None:
    """Make it what a billing run is that looks first and writes then."""
    from django.db.models import QuerySet  # noqa: PLC0415 - Django has to be set up first

    def unlocked(rows: QuerySet[Any], **_how: object) -> QuerySet[Any]:
        return rows.all()

    setattr(QuerySet, "select_for_update", unlocked)  # noqa: B010 - the control's point
