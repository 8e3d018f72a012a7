from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser

from metering.models import AccountRegistration
from metering.summaries import summarise_usage


class Command(BaseCommand):
    """Recompute the day summaries of an account, as an audit asks for."""

    help = "Recompute an account's day summaries from its usage records. Safe to repeat."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the account, and its first and last local day."""
        parser.add_argument("account", type=UUID, help="the account's id")
        parser.add_argument("first", type=date.fromisoformat, help="the first day, YYYY-MM-DD")
        parser.add_argument("last", type=date.fromisoformat, help="the last day, YYYY-MM-DD")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Recompute the days. Raises CommandError."""
        first, last = options["first"], options["last"]
        days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
        try:
            changed = summarise_usage(options["account"], days, now=datetime.now(UTC))
        except AccountRegistration.DoesNotExist:
            raise CommandError(f"Account {options['account']} is not registered.") from None
        self.stdout.write(f"{changed} rows changed.")
