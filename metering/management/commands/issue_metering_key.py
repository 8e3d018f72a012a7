from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser

from metering.keys import KeyRefusedError, Scope, issue_metering_key


class Command(BaseCommand):
    """Issue a metering key, so that a runtime can send its samples."""

    help = "Issue a metering key and print it, this once. The host is made if there is none."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the key's name, its host, and what it may be used for."""
        parser.add_argument("name", help="a name people know the key by")
        parser.add_argument("--host", required=True, help="name of the host its samples are of")
        parser.add_argument("--account", type=UUID, help="the only account it may speak of")
        parser.add_argument(
            "--scope",
            action="append",
            choices=Scope.values,
            help="what it may be used for, once for each; samples if absent",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Issue the key. Raises CommandError."""
        try:
            issued = issue_metering_key(
                name=options["name"],
                host_name=options["host"],
                scopes=options["scope"] or [Scope.SAMPLES],
                account_id=options["account"],
                now=datetime.now(UTC),
            )
        except KeyRefusedError as error:
            raise CommandError(str(error)) from None
        self.stderr.write("Copy the key now. It is not kept and cannot be shown again.")
        self.stdout.write(issued.key)
