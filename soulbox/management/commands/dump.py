from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management import CommandError
from django.core.management.base import BaseCommand, CommandParser

from soulbox import backups


class Command(BaseCommand):
    """Write the whole database into one file."""

    help = "Write the whole database into one file, with the bundled pg_dump."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the file."""
        parser.add_argument("file", type=Path, help="the dump")

    def handle(self, *_arguments: Any, file: Path, **_options: Any) -> None:
        """Dump the database."""
        try:
            backups.dump(file)
        except backups.BackupError as error:
            raise CommandError(str(error)) from None
