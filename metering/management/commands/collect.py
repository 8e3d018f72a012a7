from __future__ import annotations

import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from metering.command_line import WrongArgumentError
from metering.models import Host
from metering.resident import collect_until
from metering.services import PUSHED


class Command(BaseCommand):
    """Collect one host's sandboxes, without a task queue, until a signal comes."""

    help = "Collect a host's sandboxes until SIGTERM or SIGINT. Run it on that host."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the host."""
        parser.add_argument("--host", required=True, help="the name of the host")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Collect. Raises WrongArgumentError."""
        try:
            host = Host.objects.get(name=options["host"])
        except Host.DoesNotExist:
            known = ", ".join(Host.objects.order_by("name").values_list("name", flat=True))
            raise WrongArgumentError(
                f"--host {options['host']!r}: there is no such host. There are: {known or 'none'}. "
                "manage.py add_host registers one."
            ) from None
        if host.endpoint.startswith(PUSHED):
            raise WrongArgumentError(
                f"--host {host.name!r}: its samples are sent; nothing is collected."
            )
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        self.stdout.write(f"Collecting {host.name} at {host.endpoint}.")
        collect_until(stop, host.pk)
