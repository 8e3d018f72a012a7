from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from metering.command_line import add_dry_run, add_json, progress, write_json
from metering.retention import clean_up, plan_clean_up


class Command(BaseCommand):
    """Drop what retention no longer keeps, and say what holds the rest back."""

    help = "Drop months of usage, and what belonged to them, once their retention is over."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take whether to do it, and the form of the answer."""
        add_dry_run(parser)
        add_json(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Say what goes and what stays, and let it go."""
        now = datetime.now(UTC)
        if options["dry_run"]:
            done = plan_clean_up(now=now)
        else:
            with progress("rows") as watch:
                done = clean_up(now=now, watch=watch)
        if options["json"]:
            write_json(self.stdout, {"dry_run": options["dry_run"], **done.as_json()})
            return
        self.stdout.write("Would go:" if options["dry_run"] else "Went:")
        for line in done.lines() or ["nothing"]:
            self.stdout.write(f"  {line}")
