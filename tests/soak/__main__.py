"""Loads everything at once in an installation of its own: `python -m tests.soak --help`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import django

from tests.local_stripe import API_KEY, SECRET, LocalStripe
from tests.soak.plan import FLEET_ACCOUNTS, Plan


def main() -> int:
    """Run it; return 1 when money is wrong, or something waits that nobody comes for."""
    plan, report = _asked()
    # A kill cleans up as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Not below this folder, whose path may be too long for a socket.
    with (
        LocalStripe() as stripe,
        TemporaryDirectory(prefix="soulbox-soak-", ignore_cleanup_errors=True) as home,
    ):
        os.environ |= {
            "DJANGO_SETTINGS_MODULE": "soulbox.settings",
            "SOULBOX_HOME": home,
            "DATABASE_URL": "",
            "DATABASE_OWNER_URL": "",
            "REDIS_URL": "",
            "STREAM_REDIS_URL": "",
            "CACHE_REDIS_URL": "",
            "STRIPE_API_KEY": API_KEY,
            "STRIPE_API_BASE": stripe.url,
            "STRIPE_WEBHOOK_SECRET": SECRET,
            "LOG_LEVEL": "ERROR",
        }
        django.setup()
        from tests.soak.run import run  # noqa: PLC0415 - the settings have to be there

        return run(plan, stripe, Path(home), report)


def _asked() -> tuple[Plan, Path | None]:
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--minutes", type=float, default=20, help="how long all loads last")
    parser.add_argument("--sandboxes", type=int, default=5_000, help="read every two seconds")
    parser.add_argument("--subscriptions", type=int, default=10_000, help="whose month ends")
    parser.add_argument("--cards", type=int, default=500, help="so many of them pay by card")
    parser.add_argument("--calls", type=int, default=5, help="of the API, a second")
    parser.add_argument("--webhooks", type=int, default=2, help="a second, beside Stripe's own")
    parser.add_argument("--drain", type=float, default=10, help="minutes until nothing may wait")
    parser.add_argument("--report", type=Path, help="the page to write, with JSON beside it")
    given = parser.parse_args()
    if given.sandboxes % FLEET_ACCOUNTS:
        parser.error(f"--sandboxes: a multiple of {FLEET_ACCOUNTS}, so many for each account.")
    plan = Plan(
        minutes=given.minutes,
        sandboxes=given.sandboxes,
        subscriptions=given.subscriptions,
        cards=min(given.cards, given.subscriptions),
        calls_a_second=given.calls,
        webhooks_a_second=given.webhooks,
        drain_minutes=given.drain,
    )
    return plan, given.report


# The processes it starts import this file too.
if __name__ == "__main__":
    sys.exit(main())
