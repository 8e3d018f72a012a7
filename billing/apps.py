from __future__ import annotations

from django.apps import AppConfig


class BillingConfig(AppConfig):
    """Accounts, prices, subscriptions, credits and invoices."""

    name = "billing"
