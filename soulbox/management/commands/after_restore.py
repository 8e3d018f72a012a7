from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from billing.services.numbering import NumberRefusedError, may_be_ours, skip_numbers
from metering.command_line import WrongArgumentError, add_dry_run, number
from payments.provider import NotSetUpError, ProviderError
from payments.services.forgotten import forgotten_numbers
from soulbox import backups

DAYS_BACK = 30
MOST_DAYS_BACK = 3650


class Command(BaseCommand):
    """Find the invoice numbers that a restored database forgot, and never give them again."""

    help = (
        "After a database was put back to an earlier state, before workers are started: list the "
        "invoice numbers that Stripe was told of and that are not here, and leave them out. What "
        "else happened at Stripe since, reconcile_stripe takes over."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take what Stripe cannot tell."""
        parser.add_argument(
            "--mark",
            action="store_true",
            help="the database was put back in another way than by `restore`: mark it as that does",
        )
        parser.add_argument(
            "--days",
            type=number(1, MOST_DAYS_BACK),
            default=DAYS_BACK,
            help="look so far back at Stripe",
        )
        parser.add_argument(
            "--number",
            action="append",
            default=[],
            help="the last number that was given, as 2026-000123 or CN-2026-000012; where Stripe "
            "does not have it. May be repeated",
        )
        add_dry_run(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Do it. Raises CommandError."""
        if wrong := [one for one in options["number"] if not may_be_ours(one)]:
            raise WrongArgumentError(f"--number: {wrong[0]!r} is no number such as 2026-000123.")
        try:
            if options["mark"] and not options["dry_run"]:
                backups.mark_restored()
                self.stdout.write("The database is marked as put back to an earlier state.")
            given = [*options["number"], *self._told_to_stripe(options["days"])]
            for one in sorted(given):
                self._leave_out(one, is_dry=options["dry_run"])
        except (backups.BackupError, NumberRefusedError, ProviderError) as error:
            raise CommandError(str(error)) from None
        if not given:
            self.stdout.write("No number is known elsewhere that is not here.")

    def _told_to_stripe(self, days: int) -> list[str]:
        numbers = []
        try:
            for name, bill in forgotten_numbers(datetime.now(UTC) - timedelta(days=days)):
                account = bill.metadata.get("account_id", "")
                self.stdout.write(
                    f"{name} was given to account {account}: {bill.total}, "
                    f"{bill.status.value} at Stripe as {bill.number or bill.id}"
                )
                numbers.append(name)
        except NotSetUpError:
            self.stdout.write("STRIPE_API_KEY is not set: say the last numbers with --number.")
        return numbers

    def _leave_out(self, name: str, *, is_dry: bool) -> None:
        if is_dry:
            self.stdout.write(f"{name} would not be given again")
            return
        skipped = skip_numbers(name)
        self.stdout.write(f"{name} is not given again" + (f"; {skipped} left out" * bool(skipped)))
