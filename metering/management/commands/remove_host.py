from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from metering.command_line import WrongArgumentError, add_dry_run, add_json, write_json
from metering.host_queues import queue_of
from metering.models import Host
from metering.removing import plan_removal, remove_host
from metering.stream import StreamUnavailableError

SHOWN = 20


class Command(BaseCommand):
    """Take a host out of service."""

    help = (
        "Read a host a last time, fold what it has, and meter it no more. Sandboxes that run there "
        "end with that reading; add_host takes it back."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the host, whether to do it, and the form of the answer."""
        parser.add_argument("name", help="the host's name, or its UUID")
        add_dry_run(parser)
        add_json(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Do it, and say what it did. Raises CommandError."""
        named = options["name"]
        host = next((one for one in Host.objects.all() if named in {one.name, str(one.pk)}), None)
        if host is None:
            known = ", ".join(Host.objects.order_by("name").values_list("name", flat=True))
            raise WrongArgumentError(
                f"name: there is no host {named}. There are: {known or 'none'}."
            )
        try:
            done = (
                plan_removal(host.pk)
                if options["dry_run"]
                else remove_host(host.pk, now=datetime.now(UTC))
            )
        except StreamUnavailableError as error:
            raise CommandError(f"{error}. The host is as it was.") from None
        if options["json"]:
            said = {"dry_run": options["dry_run"], "host": host.name, **asdict(done)}
            write_json(self.stdout, said)
            return
        self.stdout.write(f"{len(done.running)} sandboxes run on {host.name}")
        for name in done.running[:SHOWN]:
            self.stdout.write(f"  {name}")
        if done.problem:
            self.stdout.write(f"It was not read once more: {done.problem}")
        if options["dry_run"]:
            self.stdout.write(f"{done.left} batches wait to be folded. Nothing was changed.")
            return
        self.stdout.write(f"{done.folded} samples were folded, {done.left} batches wait")
        self.stdout.write(
            f"It is metered no more. Stop the worker of its queue: {queue_of(host.pk)}"
        )
