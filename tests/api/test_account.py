from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from pytest_django import DjangoAssertNumQueries

from billing import services
from billing.models import Account, AccountClosing, Membership
from metering.models import Life
from tests.api.calling import Api
from tests.billing.usage import NOON, bill, open_account, record_usage

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _noon(set_clock: Callable[[datetime], None]) -> None:
    set_clock(NOON)


@pytest.fixture
def account() -> Account:
    return open_account()


@pytest.fixture
def api(account: Account) -> Api:
    return Api.by_key(account.pk)


def test_it_says_what_the_account_is(
    api: Api, account: Account, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    api.get("account")
    with django_assert_num_queries(2):
        told = api.get("account").json()
    assert told == {
        "id": str(account.pk),
        "name": "Ada",
        "address": "",
        "tax_id": "",
        "billing_email": "",
        "currency": "USD",
        "tax_rate": "0",
        "tax_is_inclusive": False,
        "time_zone": "UTC",
        "anchor_day": 1,
        "next_cycle": None,
        "automatic_top_up": None,
        "opened_at": "2026-05-01T00:00:00Z",
        "closing": None,
    }


def test_what_is_given_is_changed_and_nothing_else(api: Api) -> None:
    first = api.send("PATCH", "account", {"name": "Ada Ltd", "tax_id": "GB1"}).json()
    change = {
        "address": "1 Row\nLondon",
        "billing_email": "books@example.com",
        "time_zone": "Europe/London",
        "automatic_top_up": {"threshold": "0", "amount": "100.00"},
    }
    for _ in range(2):
        told = api.send("PATCH", "account", change).json()
        assert told == first | {
            "address": "1 Row\nLondon",
            "billing_email": "books@example.com",
            "next_cycle": {
                "time_zone": "Europe/London",
                "anchor_day": 1,
                "starts_at": "2026-06-01T00:00:00Z",
            },
            "automatic_top_up": {"threshold": "0.00", "amount": "100.00"},
        }
    assert (told["name"], told["time_zone"]) == ("Ada Ltd", "UTC")
    undone = {"time_zone": "UTC", "automatic_top_up": None, "address": "", "billing_email": ""}
    told = api.send("PATCH", "account", undone).json()
    assert told == first


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "  "}, "name"),
        ({"name": None}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a\x00"}, "name"),
        ({"address": "x" * 501}, "address"),
        ({"address": "\n".join("x" * 11)}, "address"),
        ({"tax_id": "x" * 65}, "tax_id"),
        ({"billing_email": "nobody"}, "billing_email"),
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"time_zone": ""}, "time_zone"),
        ({"automatic_top_up": {"threshold": "5"}}, "automatic_top_up.amount"),
        ({"automatic_top_up": {"threshold": "-5", "amount": "1"}}, "automatic_top_up"),
        ({"automatic_top_up": {"threshold": "5", "amount": "0"}}, "automatic_top_up"),
        ({"automatic_top_up": {"threshold": "5", "amount": "1.001"}}, "automatic_top_up"),
        ({"automatic_top_up": {"threshold": "5", "amount": 1}}, "automatic_top_up.amount"),
        (
            {"automatic_top_up": {"threshold": "5", "amount": "1", "is_paid": True}},
            "automatic_top_up.is_paid",
        ),
        # What is read-only, or staff's to say.
        ({"id": "x"}, "id"),
        ({"currency": "EUR"}, "currency"),
        ({"tax_rate": "0"}, "tax_rate"),
        ({"tax_is_inclusive": True}, "tax_is_inclusive"),
        ({"anchor_day": 5}, "anchor_day"),
        ({"opened_at": "2020-01-01T00:00:00Z"}, "opened_at"),
        ({"closing": None}, "closing"),
        ({"closed_at": None}, "closed_at"),
        ({"parked_reason": ""}, "parked_reason"),
        ({"open_period_end": "2030-01-01T00:00:00Z"}, "open_period_end"),
        ({"top_up_amount": "1"}, "top_up_amount"),
    ],
)
def test_what_is_no_good_is_named_and_nothing_is_changed(
    api: Api, said: dict[str, Any], field: str
) -> None:
    before = Account.objects.values().get()
    answer = api.send("PATCH", "account", {"tax_id": "GB1"} | said)
    assert answer.status_code == 400, answer.content
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert Account.objects.values().get() == before


def test_an_account_is_closed_and_says_how_far_it_is(account: Account) -> None:
    owner = Api.by_member(account, Membership.Role.OWNER, "ada")
    body = {"reason": "We are done"}
    first, again = (owner.post("account/close", body) for _ in range(2))
    assert (first.status_code, again.json()) == (202, first.json())
    assert first.json()["closing"] == {
        "asked_at": "2026-05-10T12:00:00Z",
        "reason": "We are done",
        "ends_at": "2026-05-10T12:15:00Z",
        "closed_at": None,
        "waiting_for": "",
    }
    assert AccountClosing.objects.get().asked_by == User.objects.get(username="ada")
    # What invoices print may be put right; nothing begins.
    assert owner.send("PATCH", "account", {"address": "1 Row"}).status_code == 200
    for change in (
        {"time_zone": "Europe/London"},
        {"automatic_top_up": {"threshold": "5", "amount": "1"}, "address": "2 Row"},
    ):
        answer = owner.send("PATCH", "account", change)
        assert (answer.status_code, answer.json()["code"]) == (409, "account_closed")
    assert owner.get("account").json()["address"] == "1 Row"


def test_what_is_in_the_way_of_closing_has_a_code_of_its_own(api: Api, account: Account) -> None:
    record_usage(account.pk, NOON, cpu_s=3_000_000)
    answer = api.post("account/close")
    assert (answer.status_code, answer.json()["code"]) == (409, "sandboxes_run")
    Life.objects.update(ended_at=NOON + timedelta(minutes=15))
    bill(account)
    answer = api.post("account/close", {"stop_sandboxes": True})
    assert (answer.status_code, answer.json()["code"]) == (409, "invoice_unpaid")
    assert not AccountClosing.objects.exists()
    paid = services.Because("Paid")
    services.mark_paid(account.invoices.get().pk, because=paid, now=NOON + timedelta(days=31))
    assert api.post("account/close").status_code == 202
    # A program asked.
    assert AccountClosing.objects.get().asked_by is None


def test_a_committed_account_is_not_closed(account: Account) -> None:
    agreed = services.AgreedTerms(commitment_minimum=Decimal(50), commitment_months=12)
    services.subscribe(account.pk, plan_code="team", now=NOON, agreed=agreed)
    answer = Api.by_key(account.pk).post("account/close")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    "body", [{"reason": "x" * 201}, {"stop_sandboxes": "perhaps"}, {"closed_at": "now"}]
)
def test_a_closing_that_says_what_is_not_read_is_refused(api: Api, body: dict[str, Any]) -> None:
    answer = api.post("account/close", body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
    assert not AccountClosing.objects.exists()
