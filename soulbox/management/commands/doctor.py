from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from metering.command_line import add_json, write_json
from soulbox.doctor import examine


class Command(BaseCommand):
    """Look at everything that has to work, and say what does not."""

    help = "Check services, settings, tables and every host; exit 1 where something is wrong."
    requires_system_checks: list[str] = []  # It runs them itself, and says what they found.

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the form of the answer."""
        add_json(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Print a line for each thing looked at. Raises CommandError when one is wrong."""
        findings = examine(now=datetime.now(UTC))
        wrong = sum(not finding.is_good for finding in findings)
        if options["json"]:
            told = [finding.as_json() for finding in findings]
            write_json(self.stdout, {"findings": told, "wrong": wrong})
        else:
            for finding in findings:
                self.stdout.write(f"{finding.level:5} {finding.text}")
        if wrong:
            raise CommandError(f"{wrong} of {len(findings)} are wrong.")
