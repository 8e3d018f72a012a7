from __future__ import annotations

from django.apps import AppConfig


class MeteringConfig(AppConfig):
    """Measured facts: sandboxes, lives, samples, usage and gaps. It imports no other app."""

    name = "metering"
