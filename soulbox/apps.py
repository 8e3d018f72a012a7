from __future__ import annotations

from django.apps import AppConfig


class SoulboxConfig(AppConfig):
    """Settings, start-up and the commands that span apps. Nothing imports it."""

    name = "soulbox"

    def ready(self) -> None:
        """Register the system checks, which need the settings, and where tasks are sent to."""
        from soulbox import (  # noqa: PLC0415 - importing them registers them
            celery,  # noqa: F401 - as above
            checks,  # noqa: F401 - as above
            sign_in_log,  # noqa: F401 - as above
        )
