# ruff: noqa: INP001 -- a script that nobody imports; a package would be one more bench
"""How soon one web worker answers 200 webhooks a second, with Redis there and without.

    make bench-webhooks            half a minute of each
    QUICK=1 make bench-webhooks    five seconds of each

Beside it, in the same run: the same worker applying each event before it answers. It runs on a
PostgreSQL, a Redis and a local Stripe of its own, which it removes at the end, prints the figures
and leaves every one in bench/results/webhooks.json.
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
        "SOULBOX_HOME": str(ROOT / ".soulbox" / "bench-webhooks"),
        "DJANGO_SETTINGS_MODULE": "soulbox.settings",
        "LOG_LEVEL": "WARNING",
        "STRIPE_API_KEY": "sk_test_local",
        "STRIPE_WEBHOOK_SECRET": "whsec_bench",
    }
    # Python put this file's folder there, in which the module `metering` is another bench.
    sys.path[0] = str(ROOT)
    django.setup()
    import_module("bench.webhooking.run").run(
        results=ROOT / "bench" / "results" / "webhooks.json",
        is_quick=bool(os.environ.get("QUICK")),
    )


# The processes it starts import this file too.
if __name__ == "__main__":
    main()
