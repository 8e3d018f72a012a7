from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management import CommandError
from django.core.management.base import BaseCommand

from soulbox.reset import InUseError, remove_home


class Command(BaseCommand):
    """Throw the embedded services' data away."""

    help = "Start afresh: remove the embedded services' data."

    def handle(self, *_arguments: Any, **_options: Any) -> None:
        """Remove the data, unless it is in use or lies elsewhere."""
        if settings.EMBEDDED is None:
            raise CommandError(
                "The services are your own (DATABASE_URL, REDIS_URL); only embedded ones are reset."
            )
        try:
            removed = remove_home(settings.EMBEDDED)
        except InUseError as error:
            raise CommandError(str(error)) from None
        home = settings.EMBEDDED.home
        self.stdout.write(f"{home} is fresh." if removed else f"{home} was fresh already.")
