from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from billing.services import OperatorKeyRefusedError, revoke_operator_key
from metering.command_line import (
    WrongArgumentError,
    add_dry_run,
    add_json,
    rehearsal,
    write_json,
)


class Command(BaseCommand):
    """Revoke an operator's key."""

    help = "Refuse the operator's key of this name from now on."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the key's name."""
        parser.add_argument("name", help="the name it was issued under")
        add_dry_run(parser)
        add_json(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Revoke the key. Raises CommandError."""
        try:
            with rehearsal(is_dry=options["dry_run"]):
                revoke_operator_key(options["name"], now=datetime.now(UTC))
        except OperatorKeyRefusedError as error:
            raise WrongArgumentError(str(error)) from None
        if options["json"]:
            write_json(self.stdout, {"dry_run": options["dry_run"], "name": options["name"]})
            return
        becomes = "would be" if options["dry_run"] else "is"
        self.stdout.write(f"{options['name']} {becomes} revoked.")
