from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

import pytest
from pytest_django.fixtures import Settings

from billing.models import Account
from payments.models import PlatformRequest
from payments.services import platform_requests
from payments.services.pausing import FIRST_PAUSE, LONGEST_PAUSE
from payments.services.platform_requests import LEASE, ask_platform, due_requests, send_request
from payments.signatures import SignatureRefusedError, check_signature
from tests.billing.usage import open_account
from tests.payments.platform_here import SECRET, Platform

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 6, 15, 0, 15, tzinfo=UTC)
STOP, RESUME = PlatformRequest.Action.STOP, PlatformRequest.Action.RESUME


def sweep(now: datetime) -> list[bool]:
    return [send_request(request_id, now=now) for request_id in due_requests(now)]


def stop(account: Account, *, now: datetime = NOW) -> PlatformRequest:
    return ask_platform(account, STOP, reason="Not paid", now=now)


def test_the_platform_is_asked_once_and_told_who_asks(platform: Platform) -> None:
    account = open_account()
    request = stop(account)
    assert sweep(NOW) == [True]
    assert sweep(NOW) == []
    ((path, signature, body),) = platform.asked
    assert path == "/hook"
    assert json.loads(body) == {
        "id": request.pk,
        "account_id": str(account.pk),
        "action": "stop",
        "reason": "Not paid",
        "requested_at": "2026-06-15T00:15:00Z",
    }
    check_signature(signature, body, secrets=[SECRET], now=NOW)
    request.refresh_from_db()
    assert (request.accepted_at, request.tries, request.claimed_until) == (NOW, 1, None)


def test_a_changed_body_has_another_signature(platform: Platform) -> None:
    stop(open_account())
    sweep(NOW)
    ((_, signature, body),) = platform.asked
    with pytest.raises(SignatureRefusedError):
        check_signature(signature, body + b" ", secrets=[SECRET], now=NOW)


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 401, 404, 429, 500, 503])
def test_what_is_not_2xx_is_no_yes_and_is_asked_later(platform: Platform, status: int) -> None:
    platform.status, platform.location = status, f"{platform.url}/elsewhere"
    request = stop(open_account())
    assert sweep(NOW) == [False]
    # No redirect is followed.
    assert [path for path, _, _ in platform.asked] == ["/hook"]
    request.refresh_from_db()
    assert request.last_error == f"The platform answered {status}."
    assert sweep(NOW + FIRST_PAUSE / 2) == []
    platform.status = 200
    assert sweep(NOW + FIRST_PAUSE) == [True]
    assert platform.told == ["stop", "stop"]
    ids = {json.loads(body)["id"] for _, _, body in platform.asked}
    assert ids == {request.pk}


def test_it_is_asked_ever_more_rarely_and_never_given_up(platform: Platform) -> None:
    platform.status = 500
    request = stop(open_account())
    now, pauses = NOW, []
    for _ in range(14):
        assert sweep(now) == [False]
        request.refresh_from_db()
        pauses.append(request.try_at - now)
        now = request.try_at
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[1], pauses[-1]) == (FIRST_PAUSE, 2 * FIRST_PAUSE, LONGEST_PAUSE)


def test_a_platform_that_is_away_is_asked_later(settings: Settings) -> None:
    platform = Platform()
    platform.stop()
    settings.PLATFORM_HOOK_URL, settings.PLATFORM_HOOK_SECRET = platform.url, SECRET
    request = stop(open_account())
    assert sweep(NOW) == [False]
    request.refresh_from_db()
    assert "ConnectionError" in request.last_error


def test_an_answer_that_does_not_come_is_not_waited_for(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_over = threading.Event()
    platform.meanwhile = partial(is_over.wait, 5)
    monkeypatch.setattr("payments.platform_hook.TIMEOUT_S", 0.2)
    request = stop(open_account())
    assert sweep(NOW) == [False]
    is_over.set()
    request.refresh_from_db()
    assert "Timeout" in request.last_error


def test_without_an_address_requests_wait(settings: Settings) -> None:
    settings.PLATFORM_HOOK_URL = ""
    stop(open_account())
    assert due_requests(NOW) == []


@pytest.mark.parametrize(
    ("url", "secret", "fault"),
    [
        ("ftp://127.0.0.1/hook", SECRET, "PLATFORM_HOOK_URL"),
        ("file:///etc/passwd", SECRET, "PLATFORM_HOOK_URL"),
        ("127.0.0.1/hook", SECRET, "PLATFORM_HOOK_URL"),
        ("http://127.0.0.1:1/hook", "", "PLATFORM_HOOK_SECRET"),
    ],
)
def test_a_wrong_setting_is_named(settings: Settings, url: str, secret: str, fault: str) -> None:
    settings.PLATFORM_HOOK_URL, settings.PLATFORM_HOOK_SECRET = url, secret
    request = stop(open_account())
    assert sweep(NOW) == [False]
    request.refresh_from_db()
    assert fault in request.last_error


def test_what_was_replaced_is_not_sent_any_more(platform: Platform) -> None:
    account = open_account()
    stop(account)
    ask_platform(account, RESUME, reason="Paid", now=NOW)
    assert sweep(NOW) == [True]
    assert platform.told == ["resume"]


def test_a_request_waits_while_an_earlier_one_is_on_its_way(platform: Platform) -> None:
    account = open_account()
    first = stop(account)
    seen = asked_while_the_first_is_on_its_way(account, first)
    assert seen == []
    # Its worker died: after the lease the last word is said.
    assert sweep(NOW + LEASE) == [True]
    assert platform.told == ["resume"]


def test_control_without_waiting_the_resume_could_be_overtaken_by_the_stop(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = open_account()
    first = stop(account)
    monkeypatch.setattr(
        platform_requests,
        "_due",
        lambda now: PlatformRequest.objects.filter(platform_requests._WAITING, try_at__lte=now),
    )
    asked_while_the_first_is_on_its_way(account, first)
    # The stop that was on its way arrives after it, and is the last word.
    assert platform.told == ["resume"]


def asked_while_the_first_is_on_its_way(account: Account, first: PlatformRequest) -> list[bool]:
    """Let the first request be a worker's, and the account pay meanwhile; sweep once."""
    PlatformRequest.objects.filter(pk=first.pk).update(claimed_until=NOW + LEASE)
    ask_platform(account, RESUME, reason="Paid", now=NOW)
    return sweep(NOW + timedelta(seconds=1))


def test_one_account_does_not_wait_for_another(platform: Platform) -> None:
    first, second = open_account("Ada"), open_account("Bob")
    PlatformRequest.objects.filter(pk=stop(first).pk).update(claimed_until=NOW + LEASE)
    stop(second)
    assert sweep(NOW) == [True]
    assert UUID(json.loads(platform.asked[0][2])["account_id"]) == second.pk
    assert due_requests(NOW, account_id=first.pk) == []
