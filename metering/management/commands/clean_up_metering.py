from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from metering.retention import clean_up, plan_clean_up


class Command(BaseCommand):
    """Drop what retention no longer keeps, and say what holds the rest back."""

    help = "Drop months of usage, and what belonged to them, once their retention is over."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take whether to do it."""
        parser.add_argument("--dry-run", action="store_true", help="only say what would go")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Say what goes and what stays, and let it go."""
        now = datetime.now(UTC)
        done = plan_clean_up(now=now) if options["dry_run"] else clean_up(now=now)
        self.stdout.write("Would go:" if options["dry_run"] else "Went:")
        for line in done.lines() or ["nothing"]:
            self.stdout.write(f"  {line}")
