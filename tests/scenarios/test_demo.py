from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from pypdf import PdfReader
from pytest_django.fixtures import Settings

from billing.models import CreditEntry, Invoice
from metering.models import Gap
from payments.models import PaymentAttempt
from soulbox.demo import run_month
from soulbox.demo_payday import collect_month

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


@pytest.mark.django_db(transaction=True)
@pytest.mark.timeout(300)
def test_the_month_is_collected_to_the_end(settings: Settings, tmp_path: Path) -> None:
    settings.HOME = tmp_path
    said: list[str] = []
    statements = run_month(NOW, say=said.append)
    figures = collect_month(statements, say=said.append)
    assert [figure for figure in figures if not figure.is_right] == []
    assert len(figures) == 12
    attempts = PaymentAttempt.objects.order_by("pk").values_list("status", flat=True)
    assert sorted(attempts) == ["action_required", "failed", "succeeded", "succeeded"]
    for statement in statements:
        pdf = PdfReader(tmp_path / f"invoice-{statement.invoice.number}.pdf")
        assert "Paid on" in pdf.pages[0].extract_text()
