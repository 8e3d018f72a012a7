# ruff: noqa: INP001 -- a script that nobody imports; a package would be one more bench
"""How fast batches in Redis become usage records in PostgreSQL, with one aggregating process.

    make bench-metering            all cases, some minutes
    QUICK=1 make bench-metering    smaller ones, under a minute

It runs on a PostgreSQL and a Redis of its own, which it removes at the end, prints a table and
leaves every figure in bench/results/metering.json.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path

import django

ROOT = Path(__file__).resolve().parent.parent
SERVICES = ("DATABASE_URL", "DATABASE_OWNER_URL", "REDIS_URL", "STREAM_REDIS_URL")


def main() -> None:
    """Measure on services of its own, never on those the environment names."""
    for name in SERVICES:
        os.environ.pop(name, None)
    os.environ |= {
        "SOULBOX_HOME": str(ROOT / ".soulbox" / "bench-metering"),
        "DJANGO_SETTINGS_MODULE": "soulbox.settings",
        # A line for each commit is not what is measured.
        "LOG_LEVEL": "WARNING",
    }
    # Python put this file's folder there, in which the module `metering` is this file.
    sys.path[0] = str(ROOT)
    django.setup()
    import_module("bench.aggregating.run").run(
        results=ROOT / "bench" / "results" / "metering.json", is_quick=bool(os.environ.get("QUICK"))
    )


# The processes it starts import this file too.
if __name__ == "__main__":
    main()
