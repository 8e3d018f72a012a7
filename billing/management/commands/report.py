from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from billing.reports.catalogue import REPORTS, ReportRefusedError, ask
from billing.reports.saving import save_report, send_report
from billing.reports.writing import Format
from metering.command_line import WrongArgumentError, progress


class Command(BaseCommand):
    """Write one of the reports."""

    help = "Write a report as CSV or JSON, to a file or the standard output."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take which report, what of, and where to."""
        parser.add_argument("name", choices=REPORTS, help="which report")
        add_report_arguments(parser)
        parser.add_argument("--as-of", help="a day, as in 2026-05-31; today in UTC if absent")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Write the report. Raises CommandError naming the argument that is no good."""
        write_report(options["name"], options)


def add_report_arguments(parser: CommandParser) -> None:
    """Take what every report takes."""
    parser.add_argument("--month", help="a month, as in 2026-05")
    parser.add_argument("--account", help="id of an account, of reports of usage: only this one")
    parser.add_argument("--format", choices=[form.value for form in Format], default="csv")
    parser.add_argument(
        "--json",
        dest="format",
        action="store_const",
        const=Format.JSON.value,
        help="as --format json",
    )
    parser.add_argument("--output", type=Path, help="a file; the standard output if absent")


def write_report(name: str, options: dict[str, Any]) -> None:
    """Write the report of that name. Raises CommandError naming the argument that is no good."""
    report, form = REPORTS[name], Format(options["format"])
    try:
        asked = ask(
            report,
            now=datetime.now(UTC),
            month=options["month"],
            as_of=options.get("as_of"),
            account=options["account"],
        )
    except ReportRefusedError as error:
        argument = error.field.replace("_", "-")
        raise WrongArgumentError(f"--{argument}: {error.message}") from None
    path: Path | None = options["output"]
    if path is None:
        send_report(report, asked, form, sys.stdout.buffer)
        return
    try:
        with progress("rows") as watch:
            save_report(report, asked, form, path, watch=watch)
    except OSError as error:
        raise WrongArgumentError(f"--output: {error}") from None
