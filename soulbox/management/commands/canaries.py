from __future__ import annotations

from argparse import ArgumentParser
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from metering.command_line import add_json, write_json
from soulbox.canaries import ages, missing


class Command(BaseCommand):
    """Say whether beat and the workers of each queue are at work, as containers' checks ask."""

    help = "Tell when each queue's canary last sang; exit 1 where one is missing."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add what the command takes."""
        add_json(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Print each queue's age. Raises CommandError when one is missing."""
        now = datetime.now(UTC)
        seconds = {
            queue: None if age is None else round(age.total_seconds(), 1)
            for queue, age in ages(now=now).items()
        }
        if options["json"]:
            write_json(self.stdout, seconds)
        else:
            for queue, age_s in seconds.items():
                self.stdout.write(f"{queue}: {'never' if age_s is None else f'{age_s} s ago'}")
        if silent := missing(now=now):
            raise CommandError(
                f"No worker took a task of {', '.join(silent)} lately. Look at beat and workers."
            )
