# ruff: noqa: INP001 -- a script that nobody imports; a package would be one more bench
"""What it costs to read many containers, by asking the engine and by the kernel's files.

    make bench-collection            all parts, some minutes
    QUICK=1 make bench-collection    smaller ones without the whole collector, under a minute

It starts containers, a look-alike of the engine, control groups, and a PostgreSQL and a Redis of
its own, removes them all at the end, prints a table for each part and leaves every figure in
bench/results/collection.json.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from pathlib import Path

import django

ROOT = Path(__file__).resolve().parent.parent
SERVICES = ("DATABASE_URL", "DATABASE_OWNER_URL", "REDIS_URL", "STREAM_REDIS_URL")
METERING = "METERING_"


def main() -> None:
    """Measure on services of its own and by default settings, not by what the environment says."""
    # A kill runs the same clean-up as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for name in list(os.environ):
        if name in SERVICES or name.startswith(METERING):
            del os.environ[name]
    os.environ |= {
        "SOULBOX_HOME": str(ROOT / ".soulbox" / "bench-collection"),
        "DJANGO_SETTINGS_MODULE": "soulbox.settings",
        "LOG_LEVEL": "WARNING",
    }
    # Python put this file's folder there, in which the module `metering` is another file.
    sys.path[0] = str(ROOT)
    django.setup()
    import_module("bench.collecting.run").run(
        results=ROOT / "bench" / "results" / "collection.json",
        is_quick=os.environ.get("QUICK") == "1",
    )


# The processes it starts import this file too.
if __name__ == "__main__":
    main()
