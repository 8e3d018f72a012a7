from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from metering.command_line import add_json, write_json
from metering.queries import host_states, table_problems


class Command(BaseCommand):
    """Say for each host whether it is metered, and how far behind its stream is."""

    help = "Show each host: last pass, lag of its stream, lost batches, refusals, problems."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the form of the answer."""
        add_json(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Print the states."""
        states = host_states(now=datetime.now(UTC))
        if options["json"]:
            hosts = [asdict(state) | {"state": state.state} for state in states]
            write_json(self.stdout, {"hosts": hosts, "problems": table_problems()})
            return
        for state in states:
            self.stdout.write(state.summary())
        for problem in table_problems():
            self.stdout.write(problem)
