from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from django.db import connection

from billing import services
from billing.credits import CreditKind
from billing.models import CreditEntry
from billing.reports.credit_liability import credit_rows
from billing.reports.receivables import receivable_rows
from billing.reports.rows import CreditRow, ReceivableRow
from tests.billing.reports.world import bill_a_busy_may, give
from tests.billing.usage import AFTER_MAY, MAY, bill, open_account, record_usage

pytestmark = pytest.mark.django_db

DUE = date(2026, 6, 15)


def receivables(day: date) -> list[ReceivableRow]:
    return list(receivable_rows(day, payment_terms_days=14, seller_zone=ZoneInfo("UTC")))


def because(reason: str = "Told by the bank") -> services.Because:
    return services.Because(reason)


@pytest.mark.parametrize(
    ("days", "column"),
    [
        (-14, "not_due"),
        (0, "not_due"),
        (1, "days_1_to_30"),
        (31, "days_31_to_60"),
        (61, "days_61_to_90"),
        (91, "days_over_90"),
    ],
)
def test_what_is_owed_stands_in_the_column_of_its_age(days: int, column: str) -> None:
    account = open_account()
    record_usage(account.pk, cpu_s=10_000_000)
    invoice = bill(account)
    [row] = receivables(DUE + timedelta(days=days))
    assert getattr(row, column).amount == row.receivable.amount == invoice.amount_due
    ages = ("not_due", "days_1_to_30", "days_31_to_60", "days_61_to_90", "days_over_90")
    assert sum(getattr(row, age).amount for age in ages) == invoice.amount_due


def test_receivables_are_what_sql_says_is_owed() -> None:
    bill_a_busy_may()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT account_id, sum(amount_due) FROM billing_invoice"
            " WHERE status IN ('pending', 'payment_failed', 'pending_retry') GROUP BY 1"
        )
        owed = {account_id: amount for account_id, amount in cursor.fetchall() if amount}
    rows = receivables(date(2026, 6, 15))
    assert {row.account_id: row.receivable.amount for row in rows} == owed
    assert len(owed) >= 5


def test_what_is_owed_follows_the_invoice_from_state_to_state_and_back_in_time() -> None:
    account = open_account()
    record_usage(account.pk, cpu_s=10_000_000)
    invoice = bill(account)

    def on(day: int) -> datetime:
        return datetime(2026, 6, day, 12, tzinfo=UTC)

    services.mark_payment_failed(invoice.pk, because=because(), now=on(3))
    services.retry_payment(invoice.pk, because=because(), now=on(5))
    services.mark_payment_failed(invoice.pk, because=because(), now=on(6))
    services.write_off(invoice.pk, because=because(), now=on(8))
    services.mark_paid(invoice.pk, because=because(), now=on(10))
    found = {}
    for day in range(1, 12):
        for row in receivables(date(2026, 6, day)):
            names = ("pending", "payment_failed", "pending_retry", "uncollectible")
            [found[day]] = [name for name in names if getattr(row, name)]
            assert bool(row.receivable) == (found[day] != "uncollectible")
    assert found == {
        1: "pending",
        2: "pending",
        3: "payment_failed",
        4: "payment_failed",
        5: "pending_retry",
        6: "payment_failed",
        7: "payment_failed",
        8: "uncollectible",
        9: "uncollectible",
    }


def test_a_void_invoice_is_owed_until_it_was_voided() -> None:
    account = open_account()
    record_usage(account.pk, cpu_s=10_000_000)
    invoice = bill(account)
    voided_at = AFTER_MAY + timedelta(days=4)
    services.void_invoice(invoice.pk, because=because(), now=voided_at)
    assert len(receivables(date(2026, 6, 4))) == 1
    assert receivables(date(2026, 6, 5)) == []
    assert receivables(date(2026, 5, 31)) == []


def by_kind(rows: list[CreditRow]) -> dict[tuple[object, str], Decimal]:
    return {(row.account_id, row.kind): row.balance.amount for row in rows}


def test_balances_are_the_ledgers_on_every_day() -> None:
    bill_a_busy_may()
    days = sorted({entry.recorded_at.date() for entry in CreditEntry.objects.all()})
    assert len(days) >= 2
    for day in [days[0] - timedelta(days=1), *days, days[-1] + timedelta(days=400)]:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT g.account_id, g.kind, sum(e.amount) FROM billing_creditentry e"
                " JOIN billing_creditgrant g ON g.id = e.grant_id"
                " WHERE (e.recorded_at AT TIME ZONE 'UTC')::date <= %s GROUP BY 1, 2",
                [day],
            )
            ledger = {(account, kind): amount for account, kind, amount in cursor.fetchall()}
        assert by_kind(list(credit_rows(day))) == ledger


def test_each_row_adds_up_across_and_only_prepaid_credit_is_a_liability() -> None:
    bill_a_busy_may()
    rows = list(credit_rows(date(2026, 6, 30)))
    for row in rows:
        parts = (row.granted, row.used, row.expired, row.revoked, row.refunded, row.other)
        assert sum(part.amount for part in parts) == row.balance.amount
        assert not row.other
    assert {row.kind: row.is_liability for row in rows} == {
        "monthly": "no",
        "promotional": "no",
        "prepaid": "yes",
    }
    assert any(row.used for row in rows)


def test_credit_given_later_is_not_there_yet() -> None:
    account = open_account()
    give(account, CreditKind.PREPAID, "12.34")
    assert [row.balance.text for row in credit_rows(MAY.start.date())] == ["12.34"]
    assert list(credit_rows(MAY.start.date() - timedelta(days=1))) == []
