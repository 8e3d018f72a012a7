from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from django.contrib.auth.models import User
from pytest_django import DjangoAssertNumQueries

from billing.models import Account, Invitation, MailMessage, Membership
from billing.services import Actor, accept_invitation, invitations, invite
from billing.services.invitations import _token_of
from tests.api.calling import Api
from tests.billing.usage import NOON, open_account

pytestmark = pytest.mark.django_db

Role = Membership.Role
BEA = "bea@example.com"


@pytest.fixture(autouse=True)
def _noon(set_clock: Callable[[datetime], None]) -> None:
    set_clock(NOON)


@pytest.fixture
def account() -> Account:
    return open_account()


@pytest.fixture
def api(account: Account) -> Api:
    return Api.by_key(account.pk)


def member(account: Account, name: str, role: Role = Role.VIEWER) -> Membership:
    user = User.objects.create_user(name, email=f"{name}@example.com", first_name=name.title())
    return Membership.objects.create(user=user, account=account, role=role)


def test_members_are_listed_as_they_came(
    api: Api, account: Account, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    rows = [member(account, "ada", Role.OWNER), member(account, "bea")]
    member(open_account("Eve"), "eve", Role.OWNER)
    api.get("members")
    with django_assert_num_queries(2):
        told = api.get("members").json()["results"]
    assert told == [
        {"id": rows[0].pk, "name": "Ada", "email": "ada@example.com", "role": "owner"},
        {"id": rows[1].pk, "name": "Bea", "email": "bea@example.com", "role": "viewer"},
    ]


def test_a_role_is_changed_and_a_member_removed(api: Api, account: Account) -> None:
    member(account, "ada", Role.OWNER)
    bea = member(account, "bea")
    for _ in range(2):
        answer = api.send("PATCH", f"members/{bea.pk}", {"role": "billing"})
        assert (answer.status_code, answer.json()["role"]) == (200, "billing")
    assert api.send("PATCH", f"members/{bea.pk}", {}).json()["role"] == "billing"
    assert api.send("DELETE", f"members/{bea.pk}").status_code == 204
    assert api.send("DELETE", f"members/{bea.pk}").status_code == 404


def test_an_account_keeps_an_owner(account: Account) -> None:
    owner = Api.by_member(account, Role.OWNER, "ada")
    ada = Membership.objects.get()
    for api in (Api.by_key(account.pk), owner):
        for answer in (
            api.send("PATCH", f"members/{ada.pk}", {"role": "viewer"}),
            api.send("DELETE", f"members/{ada.pk}"),
        ):
            assert (answer.status_code, answer.json()["code"]) == (409, "last_owner")
    ada.refresh_from_db()
    assert ada.role == Role.OWNER


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"role": "king"}, "role"),
        ({"role": None}, "role"),
        ({"role": "owner", "user": 1}, "user"),
        ({"email": "x@example.com"}, "email"),
        ({"account": "x"}, "account"),
        ({"id": 1}, "id"),
    ],
)
def test_what_is_no_good_of_a_member_is_named(
    api: Api, account: Account, said: dict[str, Any], field: str
) -> None:
    bea = member(account, "bea")
    answer = api.send("PATCH", f"members/{bea.pk}", said)
    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    bea.refresh_from_db()
    assert bea.role == Role.VIEWER


def test_anothers_members_and_invitations_are_not_found(api: Api) -> None:
    other = open_account("Eve")
    eve = member(other, "eve", Role.OWNER)
    by = Actor(Role.OWNER)
    asked = invite(other.pk, email=BEA, role=Role.VIEWER, by=by, now=NOON)
    for method, path, body in (
        ("PATCH", f"members/{eve.pk}", {"role": "viewer"}),
        ("DELETE", f"members/{eve.pk}", None),
        ("DELETE", f"members/invitations/{asked.pk}", None),
    ):
        assert api.send(method, path, body).status_code == 404
    assert api.get("members/invitations").json()["results"] == []
    eve.refresh_from_db()
    asked.refresh_from_db()
    assert (eve.role, asked.withdrawn_at) == (Role.OWNER, None)


def test_somebody_is_invited_listed_and_withdrawn(api: Api) -> None:
    answer = api.post("members/invitations", {"email": "Bea@Example.com", "role": "billing"})
    asked = answer.json()
    assert answer.status_code == 201
    assert asked == {
        "id": str(Invitation.objects.get().pk),
        "email": BEA,
        "role": "billing",
        "invited_at": "2026-05-10T12:00:00Z",
        "expires_at": "2026-05-17T12:00:00Z",
    }
    assert MailMessage.objects.get().recipient == BEA
    assert api.get("members/invitations").json()["results"] == [asked]
    for _ in range(2):
        assert api.send("DELETE", f"members/invitations/{asked['id']}").status_code == 204
    assert api.get("members/invitations").json()["results"] == []


def test_an_invitation_that_was_accepted_is_not_withdrawn(api: Api) -> None:
    asked = api.post("members/invitations", {"email": BEA, "role": "viewer"}).json()
    bea = User.objects.create_user("bea", email=BEA)
    accept_invitation(_token_of(Invitation.objects.get().pk), user_id=bea.pk, now=NOON)
    answer = api.send("DELETE", f"members/invitations/{asked['id']}")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    again = api.post("members/invitations", {"email": BEA, "role": "viewer"})
    assert again.json()["errors"][0]["field"] == "email"


def test_who_invites_by_a_session_is_named_and_a_key_is_not(account: Account) -> None:
    body = {"email": BEA, "role": "owner"}
    Api.by_member(account, Role.OWNER, "ada").post("members/invitations", body)
    first = Invitation.objects.get()
    assert first.invited_by == User.objects.get(username="ada")
    Api.by_key(account.pk, "admin").post("members/invitations", body)
    assert Invitation.objects.get(withdrawn_at=None).invited_by is None


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"email": "nobody"}, "email"),
        ({"email": f"{'x' * 150}@example.com"}, "email"),
        ({"role": "king"}, "role"),
        ({"role": ""}, "role"),
        ({"token_hash": "x"}, "token_hash"),
        ({"expires_at": "2999-01-01T00:00:00Z"}, "expires_at"),
        ({"account": "x"}, "account"),
    ],
)
def test_what_is_no_good_of_an_invitation_is_named(
    api: Api, said: dict[str, Any], field: str
) -> None:
    answer = api.post("members/invitations", {"email": BEA, "role": "viewer"} | said)
    assert answer.status_code == 400
    assert {error["field"] for error in answer.json()["errors"]} == {field}
    assert not Invitation.objects.exists()


def test_there_are_so_many_invitations_a_day(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invitations, "MOST_A_DAY", 1)
    api.post("members/invitations", {"email": BEA, "role": "viewer"})
    answer = api.post("members/invitations", {"email": "cy@example.com", "role": "viewer"})
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


def test_nobody_is_invited_to_an_account_that_closes(api: Api, account: Account) -> None:
    Account.objects.filter(pk=account.pk).update(closing_at=NOON)
    answer = api.post("members/invitations", {"email": BEA, "role": "viewer"})
    assert (answer.status_code, answer.json()["code"]) == (409, "account_closed")


def test_a_replay_invites_once(api: Api) -> None:
    body = {"email": BEA, "role": "viewer"}
    first, again = (
        api.post("members/invitations", body, **{"Idempotency-Key": "k"}) for _ in range(2)
    )
    assert again.json() == first.json()
    assert Invitation.objects.count() == 1
