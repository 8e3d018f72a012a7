from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from pytest_django import DjangoAssertNumQueries

from billing import services
from billing.credit_balances import MOST_GRANTS
from billing.credits import CreditKind
from billing.models import Account, CreditEntry
from billing.services.credits import Gift
from tests.api.calling import Api
from tests.billing.usage import MAY, NOON, bill, open_account, record_first_invoice

pytestmark = pytest.mark.django_db

QUERIES_OF_CREDITS = 7
"""The key; and in one snapshot: the currency, the kinds, the expiries and the grants."""
QUERIES_OF_ENTRIES = 2
"""The key and the rows."""
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def _noon(set_clock: Callable[[datetime], None]) -> None:
    set_clock(NOON)


def give(
    account: Account, amount: str, kind: CreditKind = CreditKind.PROMOTIONAL, **more: Any
) -> int:
    reference = f"gift {CreditEntry.objects.count()}"
    gift = Gift(kind, Decimal(amount), "Welcome", reference, **more)
    return services.grant_credit(account.pk, gift, now=MAY.start).pk


def test_credit_is_told_by_kind_grant_and_expiry() -> None:
    account = open_account(plan_code="professional")
    soon, later = NOON + DAY, NOON + 2 * DAY
    give(account, "5", expires_at=later)
    give(account, "2", expires_at=soon)
    give(account, "1", expires_at=soon)
    give(account, "4", expires_at=NOON)
    give(account, "7", CreditKind.PREPAID)
    told = Api.by_key(account.pk).get("credits").json()
    assert (told["currency"], told["balance"], told["is_complete"]) == ("USD", "115.00", True)
    assert told["by_kind"] == {"monthly": "100.00", "promotional": "8.00", "prepaid": "7.00"}
    assert told["expiries"] == [
        {"at": "2026-05-11T12:00:00Z", "amount": "3.00"},
        {"at": "2026-05-12T12:00:00Z", "amount": "5.00"},
        {"at": "2026-06-01T00:00:00Z", "amount": "100.00"},
    ]
    assert [(row["kind"], row["granted"], row["balance"]) for row in told["grants"]] == [
        ("promotional", "2.00", "2.00"),
        ("promotional", "1.00", "1.00"),
        ("promotional", "5.00", "5.00"),
        ("monthly", "100.00", "100.00"),
        ("prepaid", "7.00", "7.00"),
    ]
    assert set(told["grants"][0]) == {
        "id",
        "kind",
        "reason",
        "priority",
        "effective_at",
        "expires_at",
        "granted_at",
        "granted",
        "balance",
    }


def test_what_an_invoice_used_is_no_longer_there() -> None:
    account = open_account()
    give(account, "5")
    record_first_invoice(account.pk)
    invoice = bill(account)
    api = Api.by_key(account.pk)
    told = api.get("credits").json()
    assert (told["balance"], told["grants"][0]["granted"]) == ("4.73", "5.00")
    used, granted = api.get("credits/entries").json()["results"]
    assert used == {
        "id": used["id"],
        "recorded_at": "2026-06-01T00:15:00Z",
        "kind": "use",
        "amount": "-0.27",
        "currency": "USD",
        "grant": granted["grant"],
        "grant_kind": "promotional",
        "invoice": invoice.pk,
        "invoice_number": "2026-000001",
        "reason": "",
    }
    assert (granted["kind"], granted["amount"], granted["invoice_number"]) == (
        "grant",
        "5.00",
        None,
    )


def test_an_account_without_credit_has_none() -> None:
    told = Api.by_key(open_account().pk).get("credits").json()
    assert told["balance"] == "0.00"
    assert told["by_kind"] == {"monthly": "0.00", "promotional": "0.00", "prepaid": "0.00"}
    assert (told["grants"], told["expiries"], told["is_complete"]) == ([], [], True)


def test_of_more_grants_than_are_listed_all_are_counted() -> None:
    account = open_account()
    for _ in range(MOST_GRANTS + 1):
        give(account, "1")
    told = Api.by_key(account.pk).get("credits").json()
    assert (told["balance"], told["is_complete"]) == ("101.00", False)
    assert len(told["grants"]) == MOST_GRANTS


@pytest.mark.parametrize(
    ("query", "amounts"),
    [
        ("", ["-5.00", "3.00", "5.00"]),
        ("kind=grant", ["3.00", "5.00"]),
        ("kind=grant&kind=revoke", ["-5.00", "3.00", "5.00"]),
        ("kind=expire", []),
        ("grant_kind=prepaid", ["3.00"]),
        ("recorded_from=2026-05-10T12:00:00Z", ["-5.00"]),
        ("recorded_to=2026-05-10T12:00:00Z", ["3.00", "5.00"]),
    ],
)
def test_entries_are_found_by_kind_and_time(query: str, amounts: list[str]) -> None:
    account = open_account()
    first = give(account, "5")
    give(account, "3", CreditKind.PREPAID)
    services.revoke_credit(first, by=services.ByHand("Mistake"), now=NOON)
    results = Api.by_key(account.pk).get(f"credits/entries?{query}").json()["results"]
    assert [row["amount"] for row in results] == amounts


@pytest.mark.parametrize("query", ["kind=gift", "grant_kind=gift", "recorded_to=soon"])
def test_what_no_entry_can_have_is_refused(query: str) -> None:
    answer = Api.by_key(open_account().pk).get(f"credits/entries?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")


@pytest.mark.parametrize("count", [1, 30])
def test_queries_are_as_many_for_many_grants(
    count: int, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    account = open_account()
    for number in range(count):
        give(account, "1", expires_at=NOON + (number + 1) * DAY)
    api = Api.by_key(account.pk)
    api.get("credits")
    with django_assert_num_queries(QUERIES_OF_CREDITS):
        assert len(api.get("credits").json()["grants"]) == count
    with django_assert_num_queries(QUERIES_OF_ENTRIES):
        assert len(api.get("credits/entries").json()["results"]) == count


def test_another_accounts_credit_is_not_told() -> None:
    give(open_account("Ada"), "5")
    api = Api.by_key(open_account("Eve").pk)
    assert api.get("credits").json()["balance"] == "0.00"
    assert api.get("credits/entries").json()["results"] == []
