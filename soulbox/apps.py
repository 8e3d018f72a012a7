from __future__ import annotations

from django.apps import AppConfig


class SoulboxConfig(AppConfig):
    """Settings, start-up and the commands that span apps. Nothing imports it."""

    name = "soulbox"
