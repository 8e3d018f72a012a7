from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from pytest_django.fixtures import Settings

from billing.models import Account, Membership
from payments.models import Customer
from payments.services.customers import ensure_customer, tell_customers
from tests.billing.usage import open_account
from tests.local_stripe import LocalStripe

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 6, 2, tzinfo=UTC)


def told(stripe: LocalStripe) -> list[dict[str, Any]]:
    return [call["given"] for call in stripe.log("PostCustomersCustomer")]


def owner_of(account: Account, name: str) -> User:
    user = User.objects.create_user(name, email=f"{name}@example.com")
    Membership.objects.create(account=account, user=user, role=Membership.Role.OWNER)
    return user


def test_a_customer_says_whose_it_is(stripe: LocalStripe) -> None:
    account = open_account("Ada Ltd")
    owner = owner_of(account, "ada")
    ensure_customer(account.pk, now=NOW)
    ensure_customer(account.pk, now=NOW)
    (call,) = stripe.log("PostCustomers")
    assert call["given"] == {
        "name": "Ada Ltd",
        "email": "ada@example.com",
        "metadata": {
            "account_id": str(account.pk),
            "organisation": "Ada Ltd",
            "user_id": str(owner.pk),
        },
    }


def test_what_has_not_changed_is_not_told(stripe: LocalStripe) -> None:
    ensure_customer(open_account().pk, now=NOW)
    assert tell_customers(NOW) == 1
    assert tell_customers(NOW) == 1
    assert told(stripe) == []


def test_a_new_name_address_and_owner_are_told(stripe: LocalStripe) -> None:
    account = open_account("Ada")
    first = owner_of(account, "ada")
    ensure_customer(account.pk, now=NOW)
    Account.objects.filter(pk=account.pk).update(name="Ada Ltd")
    tell_customers(NOW)
    Account.objects.filter(pk=account.pk).update(billing_email="bills@example.com")
    tell_customers(NOW)
    Membership.objects.filter(user=first).delete()
    second = owner_of(account, "grace")
    tell_customers(NOW)
    names = [(call["name"], call["email"], call["metadata"]["user_id"]) for call in told(stripe)]
    assert names == [
        ("Ada Ltd", "ada@example.com", str(first.pk)),
        ("Ada Ltd", "bills@example.com", str(first.pk)),
        ("Ada Ltd", "bills@example.com", str(second.pk)),
    ]


def test_a_name_that_goes_back_and_forth_is_told_each_time(stripe: LocalStripe) -> None:
    account = open_account("A")
    ensure_customer(account.pk, now=NOW)
    for name in ("B", "A", "B"):
        Account.objects.filter(pk=account.pk).update(name=name)
        tell_customers(NOW)
    assert [call["name"] for call in told(stripe)] == ["B", "A", "B"]
    assert len({call["key"] for call in stripe.log("PostCustomersCustomer")}) == 3


def test_those_looked_at_longest_ago_come_first_and_a_silent_provider_stops_the_sweep(
    stripe: LocalStripe,
) -> None:
    accounts = [open_account(name) for name in ("Ada", "Bob")]
    for days, account in enumerate(accounts):
        ensure_customer(account.pk, now=NOW + timedelta(days=days))
    Account.objects.update(name="Changed")
    stripe.fault("reset_before", "PostCustomersCustomer")
    assert tell_customers(NOW + timedelta(days=9)) == 0
    assert len(told(stripe)) == 1
    assert tell_customers(NOW + timedelta(days=9)) == 2
    assert Customer.objects.get(account=accounts[0]).told_at == NOW + timedelta(days=9)


def test_nobody_is_told_without_a_provider(settings: Settings) -> None:
    settings.STRIPE_API_KEY = ""
    Customer.objects.create(account=open_account(), provider_id="cus_1", standing_since=NOW)
    assert tell_customers(NOW) == 0
