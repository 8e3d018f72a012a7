from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from billing.services import OperatorKeyRefusedError, issue_operator_key


class Command(BaseCommand):
    """Issue an operator's key to the routes under /admin/."""

    help = "Issue an operator's key and print it, this once."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the key's name."""
        parser.add_argument(
            "name", help="a name people know the key by; what it does is told by it"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Issue the key. Raises CommandError."""
        try:
            issued = issue_operator_key(name=options["name"], now=datetime.now(UTC))
        except OperatorKeyRefusedError as error:
            raise CommandError(str(error)) from None
        self.stderr.write("Copy the key now. It is not kept and cannot be shown again.")
        self.stdout.write(issued.key)
