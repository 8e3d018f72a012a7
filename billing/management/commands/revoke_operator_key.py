from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from billing.services import OperatorKeyRefusedError, revoke_operator_key


class Command(BaseCommand):
    """Revoke an operator's key."""

    help = "Refuse the operator's key of this name from now on."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the key's name."""
        parser.add_argument("name", help="the name it was issued under")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Revoke the key. Raises CommandError."""
        try:
            revoke_operator_key(options["name"], now=datetime.now(UTC))
        except OperatorKeyRefusedError as error:
            raise CommandError(str(error)) from None
        self.stdout.write(f"{options['name']} is revoked.")
