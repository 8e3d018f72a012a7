from __future__ import annotations

import logging
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandParser

from metering.command_line import (
    WrongArgumentError,
    add_dry_run,
    add_json,
    rehearsal,
    write_json,
)
from soulbox.staff import second_factor

logger = logging.getLogger(__name__)


class Command(BaseCommand):
    """Forget somebody's authenticator app and recovery codes."""

    help = "Forget a user's authenticator app and recovery codes, so that they set it up anew."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the user's name."""
        parser.add_argument("username")
        add_dry_run(parser)
        add_json(parser)

    def handle(self, *_arguments: Any, **options: Any) -> None:
        """Reset, and say whether there was anything."""
        users = get_user_model().objects
        user = users.filter(username=options["username"]).first()
        if user is None:
            raise WrongArgumentError(f"username: there is no user {options['username']}.")
        is_dry = options["dry_run"]
        with rehearsal(is_dry=is_dry):
            had = second_factor.reset(user.pk)
        if not is_dry:
            logger.info("second factor reset", extra={"user_id": user.pk})
        if options["json"]:
            write_json(self.stdout, {"dry_run": is_dry, "was_set_up": had})
        elif had:
            self.stdout.write("It would be reset." if is_dry else "Reset.")
        else:
            self.stdout.write("Two-factor sign-in was not set up.")
