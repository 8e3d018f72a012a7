"""What programs and members change stands in the audit trail under who did it."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client

from billing.models import Account, ApiKey, AuditEntry, AuditTrail, Membership
from tests.api.calling import Api
from tests.billing import admin_pages
from tests.billing.usage import open_account

pytestmark = pytest.mark.django_db

BUDGET = {"name": "Month", "amount": "5"}


@pytest.fixture
def account() -> Account:
    return open_account()


def newest() -> tuple[str, User | None, ApiKey | None]:
    entry = AuditTrail.objects.select_related("actor", "api_key").latest("at")
    return entry.table_name, entry.actor, entry.api_key


def test_what_a_key_does_is_done_by_the_key(account: Account) -> None:
    api = Api.by_key(account.pk)
    key = account.api_keys.get()
    made = api.post("budgets", BUDGET, **{"Idempotency-Key": "k"}).json()
    assert newest() == ("billing_budget", None, key)
    api.send("PATCH", f"budgets/{made['id']}", {"hard_cap": True})
    assert newest() == ("billing_budget", None, key)
    api.send("PATCH", "account", {"name": "Ada Ltd"})
    assert newest() == ("billing_account", None, key)
    api.send("DELETE", f"budgets/{made['id']}")
    assert AuditEntry.objects.filter(api_key=key).count() == 4
    issued = api.post("api-keys", {"name": "Books", "scopes": ["read"]}).json()
    assert newest() == ("billing_apikey", None, key)
    api.send("DELETE", f"api-keys/{issued['id']}")
    entry = AuditEntry.objects.latest("id")
    assert (entry.row_id, entry.api_key) == (str(issued["id"]), key)
    assert set(entry.after or {}) == {"revoked_at"}


def test_what_a_member_does_is_done_by_the_member(account: Account) -> None:
    Api.by_member(account, Membership.Role.OWNER, "ada").post("budgets", BUDGET)
    assert newest() == ("billing_budget", User.objects.get(username="ada"), None)


def test_a_key_acts_by_itself_whoever_else_the_browser_has_signed_in(account: Account) -> None:
    other = Api.by_member(open_account("Eve"), Membership.Role.OWNER, "eve")
    key = Api.by_key(account.pk)
    Api(other.client, key.headers).post("budgets", BUDGET)
    assert newest() == ("billing_budget", None, account.api_keys.get())


def test_nothing_of_a_call_sticks_to_the_next(account: Account) -> None:
    client = Client()
    Api(client, Api.by_key(account.pk).headers).post("budgets", BUDGET)
    other = Api.by_member(account, Membership.Role.OWNER, "ada")
    other.send("PATCH", "account", {"name": "By Ada"})
    assert newest()[1:] == (User.objects.get(username="ada"), None)


def test_staff_see_which_key_it_was(account: Account) -> None:
    Api.by_key(account.pk).post("budgets", BUDGET)
    page = admin_pages.finance().get("/admin/billing/audittrail/?actor=api-keys")
    told = admin_pages.text_of(page)
    assert f"API key {account.api_keys.get()}" in told
    assert "billing account" not in told
