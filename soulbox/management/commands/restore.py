from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management import CommandError
from django.core.management.base import BaseCommand, CommandParser

from soulbox import backups


class Command(BaseCommand):
    """Fill an empty database from a dump."""

    help = "Fill the empty database of DATABASE_OWNER_URL from a dump."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the file."""
        parser.add_argument("file", type=Path, help="the dump")

    def handle(self, *_arguments: Any, file: Path, **_options: Any) -> None:
        """Restore the database."""
        try:
            backups.restore(file)
        except backups.BackupError as error:
            raise CommandError(str(error)) from None
