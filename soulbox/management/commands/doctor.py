from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from soulbox.doctor import examine


class Command(BaseCommand):
    """Look at everything that has to work, and say what does not."""

    help = "Check services, settings, tables and every host; exit 1 where something is wrong."
    requires_system_checks: list[str] = []  # It runs them itself, and says what they found.

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Print a line for each thing looked at. Raises CommandError when one is wrong."""
        findings = examine(now=datetime.now(UTC))
        for finding in findings:
            self.stdout.write(f"{'ok   ' if finding.is_good else 'WRONG'} {finding.text}")
        wrong = sum(not finding.is_good for finding in findings)
        if wrong:
            raise CommandError(f"{wrong} of {len(findings)} are wrong.")
