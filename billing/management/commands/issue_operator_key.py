from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from billing.services import OperatorKeyRefusedError, issue_operator_key
from metering.command_line import (
    WrongArgumentError,
    add_dry_run,
    add_json,
    rehearsal,
    write_json,
)


class Command(BaseCommand):
    """Issue an operator's key to the routes under /admin/."""

    help = "Issue an operator's key and print it, this once."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the key's name."""
        parser.add_argument(
            "name", help="a name people know the key by; what it does is told by it"
        )
        add_dry_run(parser)
        add_json(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Issue the key. Raises CommandError."""
        try:
            with rehearsal(is_dry=options["dry_run"]):
                issued = issue_operator_key(name=options["name"], now=datetime.now(UTC))
        except OperatorKeyRefusedError as error:
            raise WrongArgumentError(str(error)) from None
        if options["dry_run"]:
            # A key that was taken back opens nothing, so it is not shown.
            if options["json"]:
                write_json(self.stdout, {"dry_run": True, "name": issued.row.name})
            else:
                self.stdout.write(f"A key {issued.row.name} would be made.")
            return
        if options["json"]:
            said = {"dry_run": False, "name": issued.row.name, "key": issued.key}
            write_json(self.stdout, said)
            return
        self.stderr.write("Copy the key now. It is not kept and cannot be shown again.")
        self.stdout.write(issued.key)
