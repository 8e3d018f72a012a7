"""What each process does first: have the services up, and refuse settings that lose money."""

from __future__ import annotations

from django.conf import settings

from soulbox import embedded


def start_services() -> None:
    """Start the embedded PostgreSQL and Redis, unless the environment names others.

    Safe to repeat. Raises EmbeddedServiceError when they do not start.
    """
    if settings.EMBEDDED is not None:
        embedded.start(settings.EMBEDDED)
