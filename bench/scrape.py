# ruff: noqa: INP001 -- a script that nobody imports; a package would be one more bench
"""How fast /metrics answers with 100,000 accounts, through gunicorn, and what is taken beforehand.

    make bench-scrape              100,000 accounts, about five minutes
    QUICK=1 make bench-scrape      2,000 accounts

It runs on a PostgreSQL and a Redis of its own, which it removes at the end, prints the figures and
leaves every one in bench/results/scrape.json.
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
        "SOULBOX_HOME": str(ROOT / ".soulbox" / "bench-scrape"),
        "DJANGO_SETTINGS_MODULE": "soulbox.settings",
        "LOG_LEVEL": "WARNING",
    }
    # Python put this file's folder there, in which the module `metering` is another bench.
    sys.path[0] = str(ROOT)
    django.setup()
    import_module("bench.scraping.run").run(
        results=ROOT / "bench" / "results" / "scrape.json", is_quick=bool(os.environ.get("QUICK"))
    )


# The processes it starts import this file too.
if __name__ == "__main__":
    main()
