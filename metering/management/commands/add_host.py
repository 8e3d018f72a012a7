from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from django.core.management.base import BaseCommand, CommandError, CommandParser

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
        parser.add_argument("--id", type=UUID, default=None, help="the host's UUID; new if absent")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Register the host. Raises CommandError."""
        try:
            host = register_host(
                host_id=options["id"] or uuid4(),
                name=options["name"],
                endpoint=options["endpoint"],
                now=datetime.now(UTC),
            )
        except HostRefusedError as error:
            raise CommandError(str(error)) from None
        if host.endpoint.startswith(PUSHED):
            self.stdout.write(f"{host.name} is {host.pk}. Give its runtime a key:")
            self.stdout.write(
                f"manage.py issue_metering_key NAME --host {host.name} --scope samples"
            )
            return
        self.stdout.write(f"{host.name} is {host.pk}. Start its collecting worker:")
        self.stdout.write(f"celery -A soulbox worker -Q collect.{host.pk} -n collector@%h -c 2")
