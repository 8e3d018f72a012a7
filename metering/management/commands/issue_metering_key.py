from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from metering.command_line import (
    WrongArgumentError,
    add_dry_run,
    add_json,
    rehearsal,
    row_id,
    write_json,
)
from metering.keys import KeyRefusedError, Scope, issue_metering_key


class Command(BaseCommand):
    """Issue a metering key, so that a runtime can send its samples."""

    help = "Issue a metering key and print it, this once. The host is made if there is none."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the key's name, its host, and what it may be used for."""
        parser.add_argument("name", help="a name people know the key by")
        parser.add_argument("--host", required=True, help="name of the host its samples are of")
        parser.add_argument("--account", type=row_id, help="the only account it may speak of")
        parser.add_argument(
            "--scope",
            action="append",
            choices=Scope.values,
            help="what it may be used for, once for each; samples if absent",
        )
        add_dry_run(parser)
        add_json(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Issue the key. Raises CommandError."""
        try:
            with rehearsal(is_dry=options["dry_run"]):
                issued = issue_metering_key(
                    name=options["name"],
                    host_name=options["host"],
                    scopes=options["scope"] or [Scope.SAMPLES],
                    account_id=options["account"],
                    now=datetime.now(UTC),
                )
        except KeyRefusedError as error:
            raise WrongArgumentError(str(error)) from None
        said = {"name": issued.row.name, "host": issued.row.host.name, "scopes": issued.row.scopes}
        if options["dry_run"]:
            # A key that was taken back opens nothing, so it is not shown.
            if options["json"]:
                write_json(self.stdout, {"dry_run": True, **said})
            else:
                self.stdout.write(f"A key {said['name']} would be made for host {said['host']}.")
            return
        if options["json"]:
            write_json(self.stdout, {"dry_run": False, **said, "key": issued.key})
            return
        self.stderr.write("Copy the key now. It is not kept and cannot be shown again.")
        self.stdout.write(issued.key)
