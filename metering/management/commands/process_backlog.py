from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.table import Table

from metering.backlog import Drained, drain, look
from metering.command_line import (
    WrongArgumentError,
    add_dry_run,
    add_json,
    number,
    progress,
    write_json,
)
from metering.models import Host
from metering.queries import stream_lag
from metering.stream import StreamUnavailableError, Waiting

MOST_AT_ONCE = 64


class Command(BaseCommand):
    """Fold what waits in the hosts' streams, as fast as it goes."""

    help = "Fold hosts' streams to their end after an outage, several hosts at once."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the hosts and how many at once."""
        parser.add_argument("--host", action="append", default=[], help="by name; all if absent")
        parser.add_argument(
            "--workers", type=number(1, MOST_AT_ONCE), default=2, help="hosts folded at once (2)"
        )
        add_dry_run(parser)
        add_json(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Fold, and print how each host went. Raises CommandError when one is not at its end."""
        hosts = Host.objects.order_by("name")
        if options["host"]:
            hosts = hosts.filter(name__in=options["host"])
            if missing := set(options["host"]) - {host.name for host in hosts}:
                raise WrongArgumentError(
                    f"--host {', '.join(sorted(missing))}: no such host. manage.py metering_status "
                    "names them."
                )
        is_dry = options["dry_run"]
        drained = (
            [look(host) for host in hosts] if is_dry else _drain(list(hosts), options["workers"])
        )
        if options["json"]:
            answer = {"dry_run": is_dry, "hosts": [_fields(one) for one in drained]}
            write_json(self.stdout, answer)
        else:
            # Django's wrapper writes as a file does, and is typed as none.
            Console(file=self.stdout, width=120).print(_table(drained))  # type: ignore[arg-type]
        if failed := [one for one in drained if one.problem]:
            raise CommandError("; ".join(f"{one.name}: {one.problem}" for one in failed))


def _drain(hosts: list[Host], workers: int) -> list[Drained]:
    waiting = {host.name: _entries(host) for host in hosts}
    with progress("batches", sum(waiting.values())) as advance:

        def watch(drained: Drained, left: Waiting) -> None:
            # More may have come meanwhile.
            done = max(waiting[drained.name] - left.entries, 0)
            waiting[drained.name] -= done
            advance(done)

        return drain(hosts, workers=workers, watch=watch)


def _entries(host: Host) -> int:
    try:
        return stream_lag(host.pk).entries
    except StreamUnavailableError:
        return 0  # Draining it says so.


def _fields(one: Drained) -> dict[str, Any]:
    return {
        "host": one.name,
        "entries_before": one.before.entries if one.before else None,
        "oldest_at": one.before.oldest_at if one.before else None,
        "entries_after": one.after.entries if one.after else None,
        "samples": one.samples,
        "seconds": round(one.seconds, 3),
        "problem": one.problem,
    }


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
