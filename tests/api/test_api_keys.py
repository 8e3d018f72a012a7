from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from billing import services
from billing.models import ApiKey, Membership
from tests.api.calling import Api
from tests.billing.usage import NOON, open_account

pytestmark = pytest.mark.django_db

BODY = {"name": "Accounting", "scopes": ["read"], "expires_at": "2999-01-01T00:00:00Z"}


def with_key(key: str) -> Api:
    return Api(Client(), {"Authorization": f"Bearer {key}"})


def test_a_key_is_shown_once_works_and_is_revoked_at_once() -> None:
    api = Api.by_key(open_account().pk)
    answer = api.post("api-keys", BODY)
    made = answer.json()
    assert answer.status_code == 201, made
    assert answer["Cache-Control"] == "no-store"
    assert (made["scopes"], made["expires_at"]) == (["read"], BODY["expires_at"])
    assert made["key"].startswith(made["prefix"])
    holder = with_key(made["key"])
    assert holder.get("invoices").status_code == 200
    for _ in range(2):
        assert api.send("DELETE", f"api-keys/{made['id']}").status_code == 204
    assert holder.get("invoices").json()["code"] == "key_unknown"
    listed = api.get("api-keys")
    assert made["key"] not in listed.content.decode()
    assert set(listed.json()["results"][0]) == set(made) - {"key"}


def test_a_replay_leaves_the_key_out() -> None:
    account = open_account()
    api = Api.by_key(account.pk)
    first, again = (api.post("api-keys", BODY, **{"Idempotency-Key": "k"}) for _ in range(2))
    assert first.json()["key"]
    assert again["Idempotency-Replayed"] == "true"
    assert again.json() == {**first.json(), "key": None}
    assert ApiKey.objects.filter(account=account, name="Accounting").count() == 1


def test_a_rotated_key_works_as_long_as_is_said() -> None:
    api = Api.by_key(open_account().pk)
    first = api.post("api-keys", BODY).json()
    second = api.post(f"api-keys/{first['id']}/rotate", {"overlap_hours": 2})
    assert (second.status_code, second["Cache-Control"]) == (201, "no-store")
    assert second.json()["scopes"] == ["read"]
    assert with_key(first["key"]).get("invoices").status_code == 200
    assert api.post(f"api-keys/{first['id']}/rotate", {"overlap_hours": 0}).status_code == 201
    assert with_key(first["key"]).get("invoices").status_code == 401
    assert with_key(second.json()["key"]).get("invoices").status_code == 200
    over = api.post(f"api-keys/{first['id']}/rotate", {"overlap_hours": 0})
    assert (over.status_code, over.json()["code"]) == (409, "conflict")
    long = api.post(f"api-keys/{second.json()['id']}/rotate", {"overlap_hours": 169})
    assert long.json()["errors"][0]["field"] == "overlap_hours"


def test_nobody_makes_a_key_that_may_do_more_than_they() -> None:
    account = open_account()
    limited = Api.by_key(account.pk, "admin", "read")
    answer = limited.post("api-keys", BODY | {"scopes": ["read", "write"]})
    assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")
    full = services.issue_api_key(account.pk, name="full", scopes=["write"], now=NOON).row
    assert limited.post(f"api-keys/{full.pk}/rotate", {}).status_code == 403
    assert limited.post("api-keys", BODY).status_code == 201


def test_another_accounts_key_is_not_found() -> None:
    api = Api.by_key(open_account("Ada").pk)
    other = services.issue_api_key(open_account("Eve").pk, name="x", now=NOON).row
    assert api.post(f"api-keys/{other.pk}/rotate", {}).status_code == 404
    assert api.send("DELETE", f"api-keys/{other.pk}").status_code == 404
    other.refresh_from_db()
    assert (other.revoked_at, other.expires_at) == (None, None)
    assert other.pk not in [row["id"] for row in api.get("api-keys").json()["results"]]


def test_only_admins_have_to_do_with_keys() -> None:
    account = open_account()
    key = services.issue_api_key(account.pk, name="x", now=NOON).row
    for api in (
        Api.by_key(account.pk, "read", "write", "metering"),
        Api.by_member(account, Membership.Role.VIEWER),
        Api.by_member(account, Membership.Role.BILLING),
    ):
        for method, path in (
            ("GET", "api-keys"),
            ("POST", "api-keys"),
            ("POST", f"api-keys/{key.pk}/rotate"),
            ("DELETE", f"api-keys/{key.pk}"),
        ):
            answer = api.send(method, path, None if method == "GET" else BODY)
            assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")
    assert Api.by_member(account, Membership.Role.OWNER).post("api-keys", BODY).status_code == 201


@pytest.mark.parametrize(
    ("change", "field", "code"),
    [
        ({"account": "x"}, "account", "unknown_field"),
        ({"revoked_at": None}, "revoked_at", "unknown_field"),
        ({"scopes": []}, "scopes", "empty"),
        ({"scopes": ["root"]}, "scopes.0", "invalid_choice"),
        ({"name": ""}, "name", "blank"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "expires_at", "invalid"),
    ],
)
def test_what_is_no_good_is_named(change: dict[str, object], field: str, code: str) -> None:
    answer = Api.by_key(open_account().pk).post("api-keys", BODY | change)
    assert answer.status_code == 400
    assert (answer.json()["errors"][0]["field"], answer.json()["errors"][0]["code"]) == (
        field,
        code,
    )


def test_a_list_takes_the_same_queries_however_long(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    account = open_account()
    api = Api.by_key(account.pk)
    api.get("api-keys")
    for number in range(20):
        services.issue_api_key(account.pk, name=str(number), now=NOON + timedelta(minutes=number))
    with django_assert_num_queries(2):
        assert len(api.get("api-keys").json()["results"]) == 21


def test_an_account_that_is_closed_gets_no_key() -> None:
    account = open_account()
    api = Api.by_key(account.pk)
    services.close_account(account.pk, now=NOON)
    answer = api.post("api-keys", BODY)
    assert (answer.status_code, answer.json()["code"]) == (409, "account_closed")
