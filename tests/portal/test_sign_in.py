from __future__ import annotations

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

from billing.caching import CacheUnavailableError
from billing.models import Account
from soulbox.portal import throttle
from soulbox.portal.throttle import SIGN_IN, Limit
from tests.billing.usage import NOON, open_account
from tests.portal.conftest import SetClock
from tests.portal.members import PASSWORD, add_member, signed_in, words_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def ada(set_clock: SetClock) -> User:
    set_clock(NOON)
    return add_member(open_account("Ada Ltd"), "ada")


def sign_in(client: Client, name: str, password: str = PASSWORD, **more: str) -> object:
    return client.post("/sign-in", {"username": name, "password": password, **more})


def test_who_is_not_signed_in_is_sent_to_sign_in_and_back(ada: User, client: Client) -> None:
    del ada
    assert client.get("/?x=1")["Location"] == "/sign-in?next=/%3Fx%3D1"
    answer = sign_in(client, "ada", next="/?x=1")
    assert answer["Location"] == "/?x=1"  # type: ignore[index]  # Django's test client's
    assert "Ada Ltd" in words_of(client.get("/"))


def test_nobody_is_sent_to_another_site(ada: User, client: Client) -> None:
    del ada
    answer = sign_in(client, "ada", next="https://evil.example.com/")
    assert answer["Location"] == "/"  # type: ignore[index]  # Django's test client's


@pytest.mark.parametrize("typed", ["ada", "ada@example.com", "Ada@Example.com"])
def test_name_or_address_signs_in(ada: User, client: Client, typed: str) -> None:
    del ada
    sign_in(client, typed)
    assert client.get("/").status_code == 200


def test_an_address_of_two_users_signs_nobody_in(ada: User, client: Client) -> None:
    User.objects.create_user("bea", email=ada.email, password=PASSWORD)
    assert "do not belong together" in words_of(sign_in(client, ada.email))


def test_passwords_cannot_be_tried_for_ever(ada: User, client: Client) -> None:
    del ada
    for _ in range(8):
        assert "do not belong together" in words_of(sign_in(client, "ada", "wrong"))
    # The right one does not help any more, nor does the name in capitals.
    assert "Too many tries" in words_of(sign_in(client, "ada"))
    assert client.get("/").status_code == 302
    assert "Too many tries" in words_of(sign_in(client, "ADA"))


def test_a_right_password_ends_the_count(ada: User, client: Client) -> None:
    for _ in range(3):
        for _ in range(5):
            sign_in(client, "ada", "wrong")
        sign_in(client, "ada")
        assert client.get("/").status_code == 200
        client.post("/sign-out")
    del ada


@pytest.mark.parametrize(
    ("behind_proxy", "first", "second", "is_refused"),
    [
        (True, "203.0.113.7", "203.0.113.8", False),
        (True, "2001:db8::7", "2001:db8::8", False),
        # What a client writes itself stands before what the proxy adds.
        (True, "198.51.100.1, 203.0.113.7", "198.51.100.2, 203.0.113.7", True),
        (True, "one", "another", True),
        (False, "203.0.113.7", "203.0.113.8", True),
    ],
)
def test_tries_count_by_whom_the_proxy_asks_for(
    ada: User,
    monkeypatch: pytest.MonkeyPatch,
    *,
    behind_proxy: bool,
    first: str,
    second: str,
    is_refused: bool,
) -> None:
    del ada
    monkeypatch.setattr(settings, "BEHIND_PROXY", behind_proxy)
    monkeypatch.setattr(throttle, "SIGN_IN_OF_ADDRESS", Limit("sign-in-address", 3, 60))
    for number in range(3):
        sign_in(Client(headers={"X-Forwarded-For": first}), f"name {number}", "wrong")
    client = Client(headers={"X-Forwarded-For": second})
    said = words_of(sign_in(client, "ada"))
    assert ("Too many tries" in said) is is_refused
    assert client.get("/").status_code == (302 if is_refused else 200)


def test_signing_out_takes_a_form(ada: User) -> None:
    client = signed_in(ada)
    assert client.get("/sign-out").status_code == 405
    assert client.post("/sign-out")["Location"] == "/sign-in"
    assert client.get("/").status_code == 302


def test_a_part_of_a_page_sends_the_whole_page_to_sign_in(client: Client) -> None:
    answer = client.get("/", headers={"HX-Request": "true"})
    assert (answer.status_code, answer["HX-Redirect"]) == (401, "/sign-in")


def test_staff_without_an_account_are_told_so(set_clock: SetClock) -> None:
    set_clock(NOON)
    answer = signed_in(User.objects.create_superuser("finance")).get("/")
    assert answer.status_code == 404
    assert "member of no account" in words_of(answer)
    assert Account.objects.count() == 0


def test_a_silent_cache_keeps_nobody_out(
    ada: User, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(_use: object) -> None:
        raise CacheUnavailableError

    monkeypatch.setattr("soulbox.portal.throttle.with_cache", silent)
    del ada
    for _ in range(SIGN_IN.most + 1):
        assert "do not belong together" in words_of(sign_in(client, "ada", "wrong"))
    sign_in(client, "ada")
    assert client.get("/").status_code == 200
