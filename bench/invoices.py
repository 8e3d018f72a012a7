# ruff: noqa: INP001 -- a script that nobody imports; a package would be one more bench
"""How many invoices a billing run drafts and finalises in a second, by one worker and by two.

    make bench-invoices            10,000 accounts with six meters each, and up to 100,000
    QUICK=1 make bench-invoices    300 accounts, and up to 1,500

Beside it, in the same run: the same work account by account, each row created by the ORM, and a
bare COPY of the rows that the run has left. It runs on a PostgreSQL and a Redis of its own, which
it removes at the end, and leaves every figure in bench/results/invoices.json.
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
        "SOULBOX_HOME": str(ROOT / ".soulbox" / "bench-invoices"),
        "DJANGO_SETTINGS_MODULE": "soulbox.settings",
        "LOG_LEVEL": "WARNING",
    }
    # Python put this file's folder there, in which the module `metering` is another bench.
    sys.path[0] = str(ROOT)
    django.setup()
    import_module("bench.invoicing.run").run(
        results=ROOT / "bench" / "results" / "invoices.json",
        is_quick=bool(os.environ.get("QUICK")),
    )


# The processes it starts import this file too.
if __name__ == "__main__":
    main()
