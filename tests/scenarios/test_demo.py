from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from billing.models import CreditEntry, Invoice
from metering.models import Gap
from soulbox.demo import run_month

# The month before it has the end of daylight saving time in one of the demo's zones.
NOW = datetime(2026, 12, 3, 12, tzinfo=UTC)


@pytest.mark.django_db
@pytest.mark.timeout(300)
def test_a_month_of_three_customers_comes_to_the_closed_form() -> None:
    said: list[str] = []
    statements = run_month(NOW, say=said.append)
    wrong = [
        figure for statement in statements for figure in statement.figures if not figure.is_right
    ]
    assert wrong == []
    assert [len(statement.figures) for statement in statements] == [11, 11, 11]
    assert sorted(str(invoice.number) for invoice in Invoice.objects.all()) == [
        f"2026-{number:06d}" for number in (1, 2, 3)
    ]
    used = {statement.customer.name: statement.invoice.credits_used for statement in statements}
    assert used["Ada's notebook"] == 0
    assert used["Borealis Labs"] == Decimal(100)
    # What a month's grant did not pay expires with the month.
    assert sum(entry.amount for entry in CreditEntry.objects.all()) == 0
    assert {gap.reason for gap in Gap.objects.all()} == {
        Gap.Reason.BEFORE_FIRST_SAMPLE,
        Gap.Reason.ENDED_BETWEEN_READINGS,
    }
