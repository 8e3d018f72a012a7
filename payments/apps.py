from __future__ import annotations

from django.apps import AppConfig


class PaymentsConfig(AppConfig):
    """Collecting what invoices ask for. It rests on billing; billing knows nothing of it."""

    name = "payments"
