from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from django.core.management.base import BaseCommand, CommandParser

from metering.command_line import (
    WrongArgumentError,
    add_dry_run,
    add_json,
    rehearsal,
    row_id,
    write_json,
)
from metering.host_queues import queue_of
from metering.services import PUSHED, HostRefusedError, register_host


class Command(BaseCommand):
    """Register a Docker host, so that its sandboxes are metered."""

    help = "Register a host to meter, and print the queue its collecting worker serves."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the host's name, where its engine answers, and a UUID to keep."""
        parser.add_argument("name", help="a name people know the host by")
        parser.add_argument(
            "--endpoint", default="unix:///var/run/docker.sock", help="where its engine answers"
        )
        parser.add_argument(
            "--id", type=row_id, default=None, help="the host's UUID; new if absent"
        )
        add_dry_run(parser)
        add_json(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Register the host. Raises CommandError."""
        try:
            with rehearsal(is_dry=options["dry_run"]):
                host = register_host(
                    host_id=options["id"] or uuid4(),
                    name=options["name"],
                    endpoint=options["endpoint"],
                    now=datetime.now(UTC),
                )
        except HostRefusedError as error:
            raise WrongArgumentError(str(error)) from None
        if options["json"]:
            said = {"id": host.pk, "name": host.name, "endpoint": host.endpoint}
            write_json(self.stdout, {"dry_run": options["dry_run"], **said})
            return
        if options["dry_run"]:
            self.stdout.write(f"{host.name} would be registered at {host.endpoint}.")
            return
        if host.endpoint.startswith(PUSHED):
            self.stdout.write(f"{host.name} is {host.pk}. Give its runtime a key:")
            self.stdout.write(
                f"manage.py issue_metering_key NAME --host {host.name} --scope samples"
            )
            return
        self.stdout.write(f"{host.name} is {host.pk}. Start its collecting worker:")
        self.stdout.write(f"celery -A soulbox worker -Q {queue_of(host.pk)} -n collector@%h -c 2")
