# ruff: noqa: INP001 -- a script that nobody imports; a package would be one more bench
"""How fast the admin's home page answers with a year of data, signed in, through gunicorn.

    make bench-desk                2,000 accounts, about three minutes
    QUICK=1 make bench-desk        200 accounts

It runs on a PostgreSQL and a Redis of its own, which it removes at the end, prints the figures and
leaves every one in bench/results/desk.json.
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
        "SOULBOX_HOME": str(ROOT / ".soulbox" / "bench-desk"),
        "DJANGO_SETTINGS_MODULE": "soulbox.settings",
        "LOG_LEVEL": "WARNING",
    }
    # Python put this file's folder there, in which the module `metering` is another bench.
    sys.path[0] = str(ROOT)
    django.setup()
    import_module("bench.desking.run").run(
        results=ROOT / "bench" / "results" / "desk.json", is_quick=bool(os.environ.get("QUICK"))
    )


# The processes it starts import this file too.
if __name__ == "__main__":
    main()
