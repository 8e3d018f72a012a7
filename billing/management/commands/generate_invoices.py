from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from billing import services
from billing.queries import accounts_with
from metering.command_line import (
    WrongArgumentError,
    add_dry_run,
    add_json,
    month,
    progress,
    row_id,
    write_json,
)

BY_COMMAND = services.Because("Billing run by command")


class Command(BaseCommand):
    """Draft and finalise the invoices that are due, as the sweep does."""

    help = "Draft and finalise the invoices that are due. Safe to repeat."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take which accounts and periods, and whether to write at all."""
        parser.add_argument("--period", type=month, help="YYYY-MM: periods that start in it.")
        parser.add_argument(
            "--account", type=row_id, action="append", default=[], help="An account's id."
        )
        add_dry_run(parser)
        add_json(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Do it until nothing is left, and tell what was done."""
        asked = options["account"]
        if unknown := set(asked) - accounts_with(asked):
            named = ", ".join(sorted(map(str, unknown)))
            raise WrongArgumentError(f"--account: there is no account {named}.")
        scope = services.Scope(tuple(asked), options["period"] or "")
        now = datetime.now(UTC)
        if options["dry_run"]:
            report = services.rehearse_invoices(scope, now=now)
        else:
            with progress("periods", services.count_due(scope, now=now)) as watch:
                report = services.generate_invoices(
                    scope, now=now, because=BY_COMMAND, batches=None, watch=watch
                )
        if options["json"]:
            write_json(self.stdout, {"dry_run": options["dry_run"], **report.as_json()})
        else:
            self.stdout.writelines(_told(report, is_rehearsal=options["dry_run"]))


def _told(report: services.RunReport, *, is_rehearsal: bool) -> Iterator[str]:
    """Yield the report line by line, for people."""
    said = report.as_json()
    sums = ", ".join(f"{amount} {currency}" for currency, amount in said["totals"].items())
    if is_rehearsal:
        yield f"{report.drafted} invoices to draft: {sums or 'nothing'}.\n"
    else:
        yield (
            f"{report.drafted} drafted, {report.finalised} finalised ({sums or 'nothing'}), "
            f"{report.empty} periods closed without an invoice.\n"
        )
    for entry in said["waiting"]:
        yield f"{entry['account']} waits for {entry['for']}\n"
    for entry in said["parked"]:
        yield f"{entry['account']} is parked: {entry['reason']}\n"
