from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from billing.models import Account
from billing.services.erasing import ErasureRefusedError, erase_account
from metering.command_line import (
    WrongArgumentError,
    add_dry_run,
    add_json,
    rehearsal,
    row_id,
    write_json,
)


class Command(BaseCommand):
    """Erase what is known of the people of a closed account."""

    help = (
        "Erase names, addresses and texts of a closed account and its people, and say what is kept "
        "and why: final invoices stay as they were sent."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the account, whether to do it, and the form of the answer."""
        parser.add_argument("account", type=row_id, help="the account's id")
        add_dry_run(parser)
        add_json(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Do it, and say what became of each part. Raises CommandError."""
        try:
            with rehearsal(is_dry=options["dry_run"]):
                parts = erase_account(options["account"], now=datetime.now(UTC))
        except Account.DoesNotExist:
            raise WrongArgumentError(f"account: there is no {options['account']}.") from None
        except ErasureRefusedError as error:
            raise CommandError(str(error)) from None
        if options["json"]:
            said = [asdict(part) for part in parts]
            write_json(self.stdout, {"dry_run": options["dry_run"], "parts": said})
            return
        done = "to erase" if options["dry_run"] else "erased"
        for part in parts:
            became = f"kept: {part.why}" if part.why else done
            self.stdout.write(f"{part.rows:>7}  {part.what}, {became}")
