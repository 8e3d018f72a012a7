from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from metering.backlog import Drained, drain
from metering.models import Host
from metering.queries import stream_lag
from metering.stream import StreamUnavailableError, Waiting


class Command(BaseCommand):
    """Fold what waits in the hosts' streams, as fast as it goes."""

    help = "Fold hosts' streams to their end after an outage, several hosts at once."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the hosts and how many at once."""
        parser.add_argument("--host", action="append", default=[], help="by name; all if absent")
        parser.add_argument("--workers", type=int, default=2, help="hosts folded at once (2)")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Fold, and print how each host went. Raises CommandError when one is not at its end."""
        hosts = Host.objects.order_by("name")
        if options["host"]:
            hosts = hosts.filter(name__in=options["host"])
            if missing := set(options["host"]) - {host.name for host in hosts}:
                raise CommandError(f"--host {', '.join(sorted(missing))}: no such host.")
        if options["workers"] < 1:
            raise CommandError("--workers has to be 1 or more.")
        drained = self._drain(list(hosts), options["workers"])
        Console(file=self.stdout, width=120).print(_table(drained))  # type: ignore[arg-type]
        if failed := [one for one in drained if one.problem]:
            raise CommandError("; ".join(f"{one.name}: {one.problem}" for one in failed))

    def _drain(self, hosts: list[Host], workers: int) -> list[Drained]:
        with Progress(console=Console(stderr=True), transient=True) as progress:
            tasks = {
                host.name: progress.add_task(host.name, total=_entries(host)) for host in hosts
            }

            def watch(drained: Drained, left: Waiting) -> None:
                before = drained.before.entries if drained.before else 0
                progress.update(tasks[drained.name], completed=max(before - left.entries, 0))

            return drain(hosts, workers=workers, watch=watch)


def _entries(host: Host) -> int | None:
    try:
        return stream_lag(host.pk).entries
    except StreamUnavailableError:
        return None  # Draining it says so.


def _table(drained: list[Drained]) -> Table:
    table = Table()
    table.add_column("host")
    for name in ("entries before", "oldest", "entries after", "samples", "samples/s"):
        table.add_column(name, justify="right")
    now = datetime.now(UTC)
    for one in drained:
        oldest = one.before.oldest_at if one.before else None
        table.add_row(
            one.name,
            f"{one.before.entries:,}" if one.before else "?",
            f"{(now - oldest).total_seconds():,.0f} s" if oldest else "",
            f"{one.after.entries:,}" if one.after else "?",
            f"{one.samples:,}",
            f"{one.samples / one.seconds:,.0f}" if one.seconds else "",
        )
    return table
