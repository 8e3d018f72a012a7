from __future__ import annotations

from uuid import uuid4

import pytest
from pytest_django.fixtures import Settings

from billing import caching
from billing.api.throttles import WINDOW_S, count_call
from billing.models import Membership
from tests.api.calling import Api
from tests.billing.usage import open_account

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def a_window_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no count of another test stand in the way, and no minute end on the way."""
    monkeypatch.setattr("billing.api.throttles._PREFIX", f"calls:{uuid4()}")
    monkeypatch.setattr("billing.api.throttles.time", lambda: 1_000_000.0 * WINDOW_S + 10)


def test_what_is_left_is_said_and_more_is_refused(settings: Settings) -> None:
    settings.API_CALLS_A_MINUTE = 3
    account = open_account()
    api = Api.by_key(account.pk)
    answers = [api.get("invoices") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    first, last = answers[0], answers[-1]
    assert first["RateLimit-Policy"] == '"key";q=3;w=60, "account";q=6;w=60'
    assert first["RateLimit"].startswith('"key";r=2;t=')
    assert last.json()["code"] == "throttled"
    assert 1 <= int(last["Retry-After"]) <= WINDOW_S
    # The account's share is not used up, and another key has its own.
    assert Api.by_key(account.pk).get("invoices").status_code == 200


def test_an_account_has_a_limit_of_its_own(settings: Settings) -> None:
    settings.API_CALLS_A_MINUTE = 2
    account = open_account()
    callers = [Api.by_key(account.pk) for _ in range(2)]
    callers.append(Api.by_member(account, Membership.Role.OWNER))
    taken = [api.get("invoices").status_code for api in callers for _ in range(2)]
    assert taken == [200, 200, 200, 200, 429, 429]
    assert Api.by_key(open_account("Eve").pk).get("invoices").status_code == 200


def test_the_window_slides() -> None:
    who = {"key": (f"test:{open_account().pk}", 10)}
    begin = 1_000_000 * WINDOW_S
    for _ in range(10):
        (share,) = count_call(who, now_s=begin + WINDOW_S - 1)
    assert (share.left, share.resets_in_s) == (0, 1)
    # A second later most of the last window still counts; half a window later half of it.
    (soon,) = count_call(who, now_s=begin + WINDOW_S + 3)
    assert soon.used == pytest.approx(1 + 10 * 0.95)
    (later,) = count_call(who, now_s=begin + WINDOW_S * 1.5)
    assert later.used == pytest.approx(2 + 10 * 0.5)


def test_a_silent_cache_refuses_nobody(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(_use: object) -> None:
        raise caching.CacheUnavailableError

    monkeypatch.setattr("billing.api.throttles.with_cache", silent)
    settings.API_CALLS_A_MINUTE = 0
    answer = Api.by_key(open_account().pk).get("invoices")
    assert answer.status_code == 200
    assert "RateLimit" not in answer
