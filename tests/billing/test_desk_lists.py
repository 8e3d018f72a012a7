"""Lists find and add up what they should, in as many queries for many rows as for one."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext

from billing import services
from billing.credits import CreditKind
from billing.models import Account, CreditGrant, Invoice
from tests.billing import admin_pages
from tests.billing.admin_pages import page, text_of
from tests.billing.usage import NOON, OPENED, open_account

pytestmark = pytest.mark.django_db

HOSTILE = "<script>alert('desk')</script>"


@pytest.fixture
def finance() -> Client:
    return admin_pages.finance()


def final_invoices(
    account: Account,
    amounts: Iterable[str],
    *,
    status: str = "pending",
    currency: str = "USD",
    first_month: int = 1,
) -> list[Invoice]:
    """Leave a final invoice of a month each, as rows, from a month of 2010 on."""
    made = []
    for at, amount in enumerate(amounts):
        month = first_month - 1 + at
        start = datetime(2010 + month // 12, month % 12 + 1, 1, tzinfo=UTC)
        end = datetime(2010 + (month + 1) // 12, (month + 1) % 12 + 1, 1, tzinfo=UTC)
        made.append(
            Invoice(
                account=account,
                number=f"T-{account.pk.hex[:12]}-{month}",
                status=status,
                currency=currency,
                period_start=start,
                period_end=end,
                usage_fee=Decimal(amount),
                total_amount=Decimal(amount),
                amount_due=Decimal(amount),
                drafted_at=end,
                computed_at=end,
                finalise_after=end,
                finalised_at=end + timedelta(hours=1),
                paid_at=end + timedelta(days=1) if status == "paid" else None,
            )
        )
    return Invoice.objects.bulk_create(made)


def queries_of(client: Client, address: str) -> int:
    with CaptureQueriesContext(
        connection,
    ) as captured:
        assert client.get(address).status_code == 200
    return len(captured)


def totals_on(client: Client, query: str = "", model: type[Model] = Invoice) -> list[list[str]]:
    context = client.get(page(model) + query).context_data
    assert context is not None
    rows = context["totals"].rows
    return [[cell.replace("\N{NO-BREAK SPACE}", " ") for cell in row] for row in rows]


def test_invoices_are_added_up_by_currency_over_all_pages(finance: Client) -> None:
    ada, bob = open_account("Ada"), open_account("Bob")
    final_invoices(ada, ["10.10"] * 60)
    final_invoices(ada, ["1000"], status="paid", first_month=61)
    final_invoices(ada, ["7"], status="payment_failed", first_month=62)
    final_invoices(ada, ["9999"], status="void", first_month=63)
    final_invoices(bob, ["300", "40"], currency="JPY")
    assert totals_on(finance) == [
        ["JPY", "2", "340 JPY", "340 JPY", "340 JPY"],
        ["USD", "63", "1,613.00 USD", "1,613.00 USD", "613.00 USD"],
    ]


@pytest.mark.parametrize(
    ("query", "count", "total"),
    [
        ("?status__exact=paid", "1", "5.00 USD"),
        ("?month=2010-02", "2", "25.00 USD"),
        ("?month=nonsense", "4", "65.00 USD"),
        ("?total_amount_from=15&total_amount_to=30", "2", "50.00 USD"),
        ("?q=Bob", "1", "5.00 USD"),
        ("?currency=USD&status__exact=pending", "3", "60.00 USD"),
    ],
)
def test_totals_are_of_what_the_filters_leave(
    query: str, count: str, total: str, finance: Client
) -> None:
    final_invoices(open_account("Ada"), ["10", "20", "30"])
    final_invoices(open_account("Bob"), ["5"], status="paid", first_month=2)
    [row] = totals_on(finance, query)
    assert row[1:3] == [count, total]


def test_an_invoice_is_found_by_its_number_and_its_account(finance: Client) -> None:
    ada = open_account("Ada")
    [invoice] = final_invoices(ada, ["10"])
    final_invoices(open_account("Bob"), ["5"])
    for search in (invoice.number, str(ada.pk)):
        [row] = totals_on(finance, f"?q={search}")
        assert row[1:3] == ["1", "10.00 USD"]


def test_the_list_of_invoices_asks_as_often_for_200_rows_as_for_one(finance: Client) -> None:
    account = open_account(HOSTILE)
    final_invoices(account, ["1"])
    queries_of(finance, page(Invoice))
    of_one = queries_of(finance, page(Invoice))
    final_invoices(account, ["1"] * 199, first_month=2)
    assert queries_of(finance, page(Invoice)) == of_one


def test_credit_is_added_up_by_currency_and_kind(finance: Client) -> None:
    ada = open_account("Ada")
    bob = services.open_account(name="Bob", currency="EUR", now=OPENED)
    for account, amount in ((ada, 10), (ada, 1000), (bob, 7)):
        gift = services.Gift(
            kind=CreditKind.PREPAID,
            amount=Decimal(amount),
            reason="Paid",
            reference=f"{amount}",
        )
        services.grant_credit(account.pk, gift, now=OPENED)
    by = services.ByHand(reason="Support", reference="x")
    services.use_credit(ada.pk, Decimal(10), by=by, now=NOON)
    assert totals_on(finance, "", CreditGrant) == [
        ["EUR, prepaid", "1", "7.00 EUR", "7.00 EUR"],
        ["USD, prepaid", "2", "1,010.00 USD", "1,000.00 USD"],
    ]
    assert totals_on(finance, "?left=no", CreditGrant) == [
        ["USD, prepaid", "1", "10.00 USD", "0.00 USD"]
    ]
    assert totals_on(finance, "?left=yes&q=Ada", CreditGrant) == [
        ["USD, prepaid", "1", "1,000.00 USD", "1,000.00 USD"]
    ]


def test_the_list_of_credit_asks_as_often_for_200_rows_as_for_one(finance: Client) -> None:
    account = open_account()

    def grant(number: int) -> None:
        gift = services.Gift(
            kind=CreditKind.PREPAID, amount=Decimal(1), reason="Paid", reference=f"{number}"
        )
        services.grant_credit(account.pk, gift, now=OPENED)

    grant(0)
    queries_of(finance, page(CreditGrant))
    of_one = queries_of(finance, page(CreditGrant))
    for number in range(1, 200):
        grant(number)
    assert queries_of(finance, page(CreditGrant)) == of_one


def test_a_hostile_name_is_text_in_the_list(finance: Client) -> None:
    final_invoices(open_account(HOSTILE), ["1"])
    said = text_of(finance.get(page(Invoice)))
    assert HOSTILE.replace("<", "&lt;").replace(">", "&gt;") in said
    assert HOSTILE not in said
