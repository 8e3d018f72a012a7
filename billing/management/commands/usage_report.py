from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from billing.management.commands.report import add_report_arguments, write_report


class Command(BaseCommand):
    """Write what each account used in a month, and what it costs."""

    help = "Write the usage report of a month as CSV or JSON."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take which month, of whom, in which detail, and where to."""
        add_report_arguments(parser)
        parser.add_argument("--by", choices=["meter", "sandbox"], default="meter")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Write the report. Raises CommandError naming the argument that is no good."""
        write_report("usage_by_sandbox" if options["by"] == "sandbox" else "usage", options)
