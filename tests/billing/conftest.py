from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pytest

READERS_OF_THE_CLOCK = (
    "billing.admin.accounts",
    "billing.admin.api_keys",
    "billing.admin.corrections",
    "billing.admin.credits",
    "billing.admin.invoices",
    "billing.admin.bulk_grants",
    "billing.admin.import_tables",
    "billing.admin.filters",
    "billing.admin.member_rows",
    "billing.admin.members",
    "billing.admin.messages",
    "billing.admin.outgoing_events",
    "billing.admin.price_books",
    "billing.admin.prices",
    "billing.admin.subscriptions",
    "billing.admin.top_ups",
    "billing.admin.operator_keys",
    "billing.admin.webhook_endpoints",
    "billing.admin.reports",
    "billing.api.account",
    "billing.api.api_keys",
    "billing.api.authentication",
    "billing.api.budgets",
    "billing.api.callers",
    "billing.api.credit",
    "billing.api.events",
    "billing.api.idempotency",
    "billing.api.invoices",
    "billing.api.members",
    "billing.api.plans",
    "billing.api.subscription",
    "billing.api.sandboxes",
    "billing.api.usage",
    "billing.api.webhook_endpoints",
    "billing.operator_access",
    "billing.operator_views",
    "billing.tasks",
)


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[datetime], None]:
    """Stop the clock of billing's entry points at a moment of the test's choice."""

    def set_to(moment: datetime) -> None:
        class Clock(datetime):
            @classmethod
            def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
                del tz
                return moment

        for module in READERS_OF_THE_CLOCK:
            monkeypatch.setattr(f"{module}.datetime", Clock)

    return set_to
