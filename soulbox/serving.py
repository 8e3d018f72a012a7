"""How gunicorn serves: its command names this, `--config python:soulbox.serving`.

It logs as all else does. Requests are logged by the application, which knows route and ids;
gunicorn tells of itself alone. Its workers count together: each counts its own requests in files,
and whichever answers a scrape adds them up.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from soulbox import environment
from soulbox.logs import logging_of

# What prometheus_client reads, once, when it is loaded: by a worker, after the start.
COUNTS = "PROMETHEUS_MULTIPROC_DIR"
_IS_HERE = not (environment.text("DATABASE_URL") or environment.text("REDIS_URL"))
"""As in the settings, which the process that forks the others does not load."""

logconfig_dict = {
    **logging_of(is_for_people=_IS_HERE or environment.flag("DEBUG")),
    "loggers": {
        "gunicorn.error": {"level": environment.text("LOG_LEVEL"), "propagate": True},
        "gunicorn.access": {"level": "CRITICAL", "propagate": False},
    },
}


def on_starting(_server: object) -> None:
    """Have an empty folder for the counts, before any worker loads what counts."""
    if not os.environ.get(COUNTS):
        os.environ[COUNTS] = tempfile.mkdtemp(prefix="soulbox-metrics-")
    folder = Path(os.environ[COUNTS])
    folder.mkdir(parents=True, exist_ok=True)
    # Of processes that are gone: a counter begins at zero with the service.
    for left in folder.glob("*.db"):
        left.unlink()


def on_exit(_server: object) -> None:
    """Leave nothing behind."""
    shutil.rmtree(os.environ[COUNTS], ignore_errors=True)
