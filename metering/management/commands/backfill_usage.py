from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.table import Table

from metering.backfill.files import FileError, FileReader
from metering.backfill.request import Report, Request
from metering.backfill.run import PeriodRefusedError, aligned, backfill, fill
from metering.backfill.spool import Spool
from metering.backfill.streams import read_stream
from metering.command_line import (
    WrongArgumentError,
    add_dry_run,
    add_json,
    moment,
    progress,
    row_id,
    write_json,
)
from metering.models import Host
from metering.partitions import make_partitions
from metering.samples import Records
from metering.stream import StreamUnavailableError

STREAM = "stream"
REFUSED_ROWS_SHOWN = 100
# The quantities in the table, in order; others are parts of these.
SHOWN = {
    "cpu_ns": "cpu, ns",
    "memory_byte_ms": "memory, byte-ms",
    "tx_bytes": "network egress, bytes",
    "rx_bytes": "network ingress, bytes",
    "storage_byte_ms": "storage, byte-ms",
    "gpu_ms": "gpu, ms",
    "disk_read_bytes": "disk read, bytes",
    "disk_write_bytes": "disk write, bytes",
    "cpu_allocated_ns": "cpu allocated, ns",
    "memory_allocated_byte_ms": "memory allocated, byte-ms",
    "running_ms": "running, ms",
    "measured_ms": "measured, ms",
}


class Command(BaseCommand):
    """Recompute windows of usage from samples that came to light. See docs/backfill.md."""

    help = "Recompute usage from a file of samples or the streams, and show what it changes."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the time, whose usage, and where the samples are."""
        parser.add_argument("--from", dest="start", required=True, type=moment)
        parser.add_argument("--to", dest="end", required=True, type=moment)
        parser.add_argument(
            "--account",
            action="append",
            default=[],
            type=row_id,
            help="only this account's; repeat",
        )
        parser.add_argument(
            "--source", default=STREAM, help="a .csv, .jsonl or .parquet file, or stream (default)"
        )
        add_dry_run(parser)
        add_json(parser)
        parser.add_argument(
            "--fewer-samples",
            action="store_true",
            help="recompute windows whose records count more samples than the source has, too",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Recompute, and print what it changed. Raises CommandError."""
        now = datetime.now(UTC)
        retention = timedelta(days=settings.METERING_USAGE_RETENTION_D)
        try:
            period = aligned(options["start"], options["end"], now=now, retention=retention)
        except PeriodRefusedError as error:
            raise WrongArgumentError(str(error)) from None
        request = Request(
            period,
            frozenset(options["account"]),
            fewer_samples=options["fewer_samples"],
            is_dry=options["dry_run"],
        )
        say = self.stderr if options["json"] else self.stdout
        say.write(
            f"Windows from {period.start:%Y-%m-%dT%H:%MZ} to {period.end:%Y-%m-%dT%H:%MZ}, "
            f"{request.windows()} of 15 minutes."
        )
        if not request.is_dry:
            make_partitions(now=now, since=period.start)
        reader: FileReader | None = None
        if options["source"] != STREAM:
            reader = FileReader(Path(options["source"]), settings.METERING_INTERVAL_S, now)
        try:
            report, spool = self._run(request, reader, now)
        except (FileError, StreamUnavailableError) as error:
            raise CommandError(str(error)) from None
        if options["json"]:
            write_json(self.stdout, _answer(report, spool, request, reader))
        else:
            self._show(report, spool, request)
        if reader is not None and reader.refused:
            self._complain(reader)

    def _run(
        self, request: Request, reader: FileReader | None, now: datetime
    ) -> tuple[Report, Spool]:
        report = Report()
        with TemporaryDirectory(prefix="soulbox-backfill-") as folder:
            spool = Spool(Path(folder))
            if reader is not None:
                spool.unrecorded = reader.unrecorded
            done = 0
            with progress("samples read") as advance:
                for read in fill(spool, reader.read() if reader else _streams(), request):
                    advance(read - done)
                    done = read
            done = 0
            with progress("lives recomputed") as advance:
                for report in backfill(spool, request, now=now):
                    advance(report.lives - done)
                    done = report.lives
        return report, spool

    def _show(self, report: Report, spool: Spool, request: Request) -> None:
        table = Table(title="Dry run: nothing was written" if request.is_dry else None)
        for name in ("account", "meter"):
            table.add_column(name)
        for name in ("before", "after", "difference"):
            table.add_column(name, justify="right")
        total: dict[str, tuple[int, int]] = {}
        for account_id, usage in sorted(report.usage.items()):
            _add_rows(table, str(account_id), usage)
            for name, (before, after) in usage.items():
                was, is_now = total.get(name, (0, 0))
                total[name] = (was + before, is_now + after)
        _add_rows(table, "total", total)
        # Django's wrapper writes as a file does, and is typed as none.
        Console(file=self.stdout, width=120).print(table)  # type: ignore[arg-type]
        self.stdout.write(
            f"{spool.read:,} samples read, {spool.outside:,} outside the windows; "
            f"{report.lives:,} lives recomputed, {report.unknown_lives:,} not recorded."
        )
        if report.kept_windows:
            self.stdout.write(
                f"{report.kept_windows:,} windows kept as they were: the source has fewer samples "
                "of them than were counted (--fewer-samples recomputes these too), or a counter "
                "fell over the edge of the range (a wider range recomputes these too)."
            )

    def _complain(self, reader: FileReader) -> None:
        refused = sorted(reader.refused, key=lambda row: row.line)
        for row in refused[:REFUSED_ROWS_SHOWN]:
            self.stderr.write(f"line {row.line}: {row.complaint}")
        raise CommandError(
            f"{len(refused):,} rows were refused; the others count. Correct them and run it again: "
            "what was counted is not counted twice."
        )


def _streams() -> Iterator[tuple[UUID, dict[str, Records]]]:
    for host in Host.objects.select_related("cursor").order_by("name"):
        yield from read_stream(host)


def _add_rows(table: Table, whose: str, usage: dict[str, tuple[int, int]]) -> None:
    for name, shown in SHOWN.items():
        before, after = usage.get(name, (0, 0))
        if before or after:
            table.add_row(whose, shown, f"{before:,}", f"{after:,}", f"{after - before:+,}")
            whose = ""
    table.add_section()


def _answer(
    report: Report, spool: Spool, request: Request, reader: FileReader | None
) -> dict[str, Any]:
    refused = reader.refused if reader else []
    return {
        "dry_run": request.is_dry,
        "from": request.period.start,
        "to": request.period.end,
        "samples_read": spool.read,
        "samples_outside": spool.outside,
        "lives": report.lives,
        "lives_not_recorded": report.unknown_lives,
        "windows_kept": report.kept_windows,
        "usage": {
            str(account_id): {
                name: {"before": before, "after": after} for name, (before, after) in usage.items()
            }
            for account_id, usage in sorted(report.usage.items())
        },
        "rows_refused": len(refused),
    }
