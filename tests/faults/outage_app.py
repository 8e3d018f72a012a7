"""The product's Celery app for tests of outages: `celery -A tests.faults.outage_app`.

Streams are folded every other second, so that a test waits less; all else is as it ships. One
task more ends the process that it runs in, as one that runs out of memory does.
"""

from __future__ import annotations

import os
import signal

from soulbox.celery import app

FOLD_EVERY_S = 2

app.conf.beat_schedule["aggregate"] |= {"schedule": FOLD_EVERY_S}


@app.task(name="tests.end_worker")
def end_worker() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
