from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management import CommandError
from django.core.management.base import BaseCommand, CommandParser

from soulbox import settings_reference


class Command(BaseCommand):
    """Write the settings reference, or say that it is out of date."""

    help = "Write docs/settings.md and .env.example from soulbox/environment.py."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take --check."""
        parser.add_argument("--check", action="store_true", help="change nothing, only compare")

    def handle(self, *_arguments: Any, **options: Any) -> None:
        """Write the pages, or compare them."""
        if options["check"]:
            if stale := settings_reference.out_of_date(settings.BASE_DIR):
                raise CommandError(
                    f"Out of date: {', '.join(stale)}. Run manage.py settings_reference."
                )
            return
        for name, text in settings_reference.pages().items():
            (settings.BASE_DIR / name).write_text(text)
