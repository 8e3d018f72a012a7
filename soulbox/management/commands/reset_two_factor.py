from __future__ import annotations

import logging
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management import CommandError
from django.core.management.base import BaseCommand, CommandParser

from soulbox.staff import second_factor

logger = logging.getLogger(__name__)


class Command(BaseCommand):
    """Forget somebody's authenticator app and recovery codes."""

    help = "Forget a user's authenticator app and recovery codes, so that they set it up anew."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the user's name."""
        parser.add_argument("username")

    def handle(self, *_arguments: Any, **options: Any) -> None:
        """Reset, and say whether there was anything."""
        users = get_user_model().objects
        user = users.filter(username=options["username"]).first()
        if user is None:
            raise CommandError(f"There is no user {options['username']}.")
        had = second_factor.reset(user.pk)
        logger.info("second factor reset", extra={"user_id": user.pk})
        self.stdout.write("Reset." if had else "Two-factor sign-in was not set up.")
