from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from billing import services
from billing.bulk_credits import GRANTS
from billing.documents.text import one_line
from billing.sheets import SheetRefusedError
from metering.command_line import WrongArgumentError, add_dry_run, add_json, write_json


class Command(BaseCommand):
    """Grant the credit that a file names."""

    help = "Grant promotional or prepaid credit to many accounts out of a CSV; safe to repeat."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the file, and whether to show only."""
        parser.add_argument("file", type=Path, help=f"CSV with {', '.join(GRANTS.columns)}")
        add_dry_run(parser)
        add_json(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Show what the file does, then do it. Raises CommandError when a row is no good."""
        now = datetime.now(UTC)
        try:
            content = _content(options["file"])
            plan = services.plan_grants(content, now=now)
            if options["json"]:
                write_json(self.stdout, {"dry_run": options["dry_run"], **_fields(plan)})
            else:
                self._show(plan)
            if not plan.is_clean:
                raise CommandError(f"{plan.refused_count:,} rows are refused; nothing is granted.")
            if options["dry_run"]:
                if not options["json"]:
                    self.stdout.write("Nothing is written: this was a dry run.")
                return
            services.grant_in_bulk(content, shown=plan.digest, now=now)
        except (SheetRefusedError, services.BulkRefusedError) as refused:
            raise CommandError(str(refused)) from None
        if not options["json"]:
            self.stdout.write(f"Granted: {plan.new_count:,}.")

    def _show(self, plan: services.GrantPlan) -> None:
        for row in plan.rows:
            said = "; ".join(
                f"{fault.column}: {fault.message}" if fault.column else fault.message
                for fault in row.faults
            )
            whose = row.account.name if row.account else row.cells.get("account", "")
            what = [str(row.amount or row.cells.get("amount", "")), row.cells.get("reference", "")]
            self.stdout.write(
                f"row {row.number}: {said or row.outcome}: {one_line(', '.join([whose, *what]))}"
            )
        for total in plan.totals():
            self.stdout.write(
                f"{total.currency}: new {total.new_count:,}, {total.new}; granted already "
                f"{total.granted_count:,}, {total.granted}"
            )
        self.stdout.write(f"SHA-256 {plan.sha256}")


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            # One byte more than there may be is enough to see that it is too large.
            return file.read(GRANTS.most_bytes + 1)
    except OSError as error:
        raise WrongArgumentError(f"file: {error}") from None


def _fields(plan: services.GrantPlan) -> dict[str, Any]:
    return {
        "sha256": plan.sha256,
        "new": plan.new_count,
        "refused": plan.refused_count,
        "rows": [
            {
                "row": row.number,
                "account": row.account.pk if row.account else None,
                "amount": row.amount,
                "outcome": row.outcome,
                "faults": [
                    {"column": fault.column, "message": fault.message} for fault in row.faults
                ],
            }
            for row in plan.rows
        ],
    }
