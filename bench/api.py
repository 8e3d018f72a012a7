# ruff: noqa: INP001 -- a script that nobody imports; a package would be one more bench
"""How fast the customer's API answers for a year of 2,000 accounts, through two web workers.

    make bench-api                 2,000 accounts, 200,000 sandboxes, about half an hour
    QUICK=1 make bench-api         40 accounts, under a minute

It asks at a fixed rate, whatever becomes of the requests before, and times each from when it was
due. It runs on a PostgreSQL and a Redis of its own, which it removes at the end, prints the figures
and leaves every one in bench/results/api.json.
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
    for name in (*SERVICES, "CACHE_REDIS_URL"):
        os.environ.pop(name, None)
    os.environ |= {
        "SOULBOX_HOME": str(ROOT / ".soulbox" / "bench-api"),
        "DJANGO_SETTINGS_MODULE": "soulbox.settings",
        "LOG_LEVEL": "WARNING",
    }
    # Python put this file's folder there, in which the module `metering` is another bench.
    sys.path[0] = str(ROOT)
    django.setup()
    import_module("bench.asking.run").run(
        results=ROOT / "bench" / "results" / "api.json", is_quick=bool(os.environ.get("QUICK"))
    )


# The processes it starts import this file too.
if __name__ == "__main__":
    main()
