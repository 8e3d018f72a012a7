from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from metering.command_line import (
    WrongArgumentError,
    add_dry_run,
    add_json,
    day,
    progress,
    rehearsal,
    row_id,
    write_json,
)
from metering.models import AccountRegistration
from metering.summaries import summarise_usage

MOST_DAYS = 1_200
"""All that are kept, and some."""
DAYS_AT_ONCE = 7


class Command(BaseCommand):
    """Recompute the day summaries of an account, as an audit asks for."""

    help = "Recompute an account's day summaries from its usage records. Safe to repeat."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the account, and its first and last local day."""
        parser.add_argument("account", type=row_id, help="the account's id")
        parser.add_argument("first", type=day, help="the first day, YYYY-MM-DD")
        parser.add_argument("last", type=day, help="the last day, YYYY-MM-DD")
        add_dry_run(parser)
        add_json(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Recompute the days. Raises CommandError."""
        first, last = options["first"], options["last"]
        if last < first:
            raise WrongArgumentError(f"last: {last} is before {first}. Give the first day first.")
        days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
        if len(days) > MOST_DAYS:
            raise WrongArgumentError(f"last: give at most {MOST_DAYS} days at once.")
        is_dry, changed = options["dry_run"], 0
        try:
            with progress("days", len(days)) as watch, rehearsal(is_dry=is_dry):
                for start in range(0, len(days), DAYS_AT_ONCE):
                    some = days[start : start + DAYS_AT_ONCE]
                    changed += summarise_usage(options["account"], some, now=datetime.now(UTC))
                    watch(len(some))
        except AccountRegistration.DoesNotExist:
            raise WrongArgumentError(
                f"account: {options['account']} is not registered. Look at its id."
            ) from None
        if options["json"]:
            write_json(self.stdout, {"dry_run": is_dry, "days": len(days), "rows_changed": changed})
        else:
            self.stdout.write(f"{changed} rows {'would change' if is_dry else 'changed'}.")
