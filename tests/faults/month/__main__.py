"""Runs months from seeds in an installation of its own: `python -m tests.faults.month --help`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import django

from tests.faults.month.jobs import share


def main() -> int:
    """Run the months; return 1 when one comes to something else than the oracle says."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.month")
    parser.add_argument("--first", type=int, default=int(time.time()), help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many, one after the other")
    parser.add_argument("--accounts", type=int, default=50, help="how many customers a month has")
    parser.add_argument("--without-faults", action="store_true", help="let nothing go wrong")
    parser.add_argument("--control", action="store_true", help="take locks and constraints away")
    parser.add_argument("--report", type=Path, help="the page to write, with JSON beside it")
    parser.add_argument("--jobs", type=int, default=1, help="share them among so many processes")
    given = parser.parse_args()
    jobs = min(given.jobs, given.seeds)
    if jobs > 1:
        return share(argparse.Namespace(**vars(given) | {"jobs": jobs}))
    # Not below this folder, whose path may be too long for a socket.
    with TemporaryDirectory(prefix="soulbox-month-", ignore_cleanup_errors=True) as home:
        os.environ |= {
            "DJANGO_SETTINGS_MODULE": "soulbox.settings",
            "SOULBOX_HOME": home,
            "DATABASE_URL": "",
            "REDIS_URL": "",
            "LOG_LEVEL": "CRITICAL",
        }
        django.setup()
        from tests.faults.month.run import run  # noqa: PLC0415 - the settings have to be there

        return run(given)


if __name__ == "__main__":
    sys.exit(main())
