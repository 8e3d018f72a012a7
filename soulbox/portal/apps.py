from __future__ import annotations

from django.apps import AppConfig


class PortalConfig(AppConfig):
    """The customer's page. It shows and asks; what it does, the services of other apps do."""

    name = "soulbox.portal"
    label = "portal"
