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
from billing.models import Account, CreditGrant, DiscountRule, Invoice, Plan, Subscription
from tests.billing import admin_pages
from tests.billing.admin_pages import page, text_of
from tests.billing.usage import AFTER_MAY, NOON, OPENED, bill, open_account, record_usage

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


def test_accounts_are_added_up_and_found_by_plan_and_state(finance: Client) -> None:
    ada = open_account("Ada", plan_code="professional")
    open_account("Bob")
    services.open_account(name="Eve", currency="EUR", now=OPENED)
    for kind, amount in ((CreditKind.PREPAID, 10), (CreditKind.PROMOTIONAL, 3)):
        gift = services.Gift(kind=kind, amount=Decimal(amount), reason="Paid", reference=kind)
        services.grant_credit(ada.pk, gift, now=OPENED)
    services.park_account(ada.pk, reason="A price is missing", now=NOON)
    # A month of the plan's own credit is there too.
    of_ada = ["USD", "1", "1", "103.00 USD", "10.00 USD"]
    assert totals_on(finance, "", Account) == [
        ["EUR", "1", "0", "0.00 EUR", "0.00 EUR"],
        ["USD", "2", "1", "103.00 USD", "10.00 USD"],
    ]
    for query in ("?plan=professional", "?parked_at__isempty=0", "?q=Ada"):
        assert totals_on(finance, query, Account) == [of_ada]
    assert [row[:2] for row in totals_on(finance, "?plan=none", Account)] == [
        ["EUR", "1"],
        ["USD", "1"],
    ]
    said = text_of(finance.get(page(Account)))
    for text in ("Professional", "103.00 USD", "10.00 USD", "A price is missing"):
        assert text in said


def test_subscriptions_are_added_up_by_currency_and_interval(finance: Client) -> None:
    for name in ("Ada", "Bob"):
        open_account(name, plan_code="professional")
    fee = Plan.objects.get(code="professional").monthly_fee
    assert fee is not None
    assert totals_on(finance, "", Subscription) == [
        ["USD, monthly", "2", "2", f"{2 * fee:,.2f} USD"]
    ]
    assert totals_on(finance, "?state=active&q=Ada", Subscription) == [
        ["USD, monthly", "1", "1", f"{fee:,.2f} USD"]
    ]
    assert totals_on(finance, "?state=over", Subscription) == []


def test_discount_rules_say_what_they_gave(finance: Client) -> None:
    DiscountRule.objects.update(is_active=False)
    rule = DiscountRule.objects.create(name="Spring", kind="volume", percent=Decimal(10))
    invoices = []
    for name in ("Ada", "Bob"):
        account = open_account(name)
        record_usage(account.pk, NOON, cpu_s=10_000_000)
        invoices.append(bill(account))
    search = f"?q={rule.name}"
    assert totals_on(finance, search, DiscountRule) == [["USD", "1", "1", "24.00 USD"]]
    because = services.Because("By mistake")
    services.void_invoice(invoices[0].pk, because=because, now=AFTER_MAY)
    assert totals_on(finance, search, DiscountRule) == [["USD", "1", "1", "12.00 USD"]]
    assert "12.00 USD" in text_of(finance.get(page(DiscountRule) + search))


@pytest.mark.parametrize("model", [Account, Subscription])
def test_lists_ask_as_often_for_200_rows_as_for_one(model: type[Model], finance: Client) -> None:
    open_account("No. 0", plan_code="professional")
    queries_of(finance, page(model))
    of_one = queries_of(finance, page(model))
    for number in range(1, 200):
        open_account(f"No. {number}", plan_code="professional")
    assert queries_of(finance, page(model)) == of_one


def test_a_hostile_name_is_text_in_the_list(finance: Client) -> None:
    final_invoices(open_account(HOSTILE), ["1"])
    said = text_of(finance.get(page(Invoice)))
    assert HOSTILE.replace("<", "&lt;").replace(">", "&gt;") in said
    assert HOSTILE not in said
