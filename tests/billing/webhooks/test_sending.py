from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import socket
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.core import mail
from pytest_django.fixtures import Settings

from billing.models import Delivery, Event, EventType, WebhookEndpoint
from billing.services import (
    EndpointChange,
    IssuedEndpoint,
    add_endpoint,
    change_endpoint,
    emit_event,
    redeliver,
    rotate_secret,
)
from billing.services import webhook_sending as sending
from billing.services.webhook_sending import FAILING_TIME, LEASE, claim_deliveries
from billing.webhooks.pauses import PAUSES
from billing.webhooks.sender import Answer, Ways
from tests.billing.mail import open_with_owner, send_waiting
from tests.billing.usage import NOON, open_account
from tests.billing.webhooks.endpoint import PUBLIC, URL, Endpoint, Talk, answer_with, endpoint

pytestmark = pytest.mark.django_db

DATA = {"plan": "team", "fee": "299.00", "currency": "USD"}
BROKEN = answer_with(b"HTTP/1.1 500 Oh\r\nContent-Length: 6\r\n\r\nbroken")


def issue(name: str = "Ada", url: str = URL) -> IssuedEndpoint:
    return add_endpoint(open_account(name).pk, url=url, now=NOON)


def emit(issued: IssuedEndpoint, number: int = 1) -> Delivery:
    changed = EventType.SUBSCRIPTION_CHANGED
    event_id = emit_event(issued.row.account_id, changed, f"subscription {number}", DATA, NOON)
    return Delivery.objects.get(event=event_id)


def send(here: Endpoint, after: timedelta = timedelta(), *, ways: Ways | None = None) -> int:
    return sending.send_due_webhooks(lambda: NOON + after, ways=ways or here.ways())


def verify(secret: str, here: Endpoint) -> list[bool]:
    """Return which of the last request's signatures are by the secret."""
    headers = here.headers()
    text = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + here.body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    wanted = base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()
    return [one == f"v1,{wanted}" for one in headers["webhook-signature"].split()]


def test_the_documents_own_code_verifies_what_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (settings.BASE_DIR / "docs/webhooks.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - our own page's
    says = names["verify"]
    issued = issue()
    emit(issued)
    with endpoint() as here:
        send(here)
    monkeypatch.setattr(time, "time", lambda: NOON.timestamp() + 299)
    headers = here.headers()
    assert says(issued.secret, headers, here.body)
    assert not says(issued.secret, headers, here.body + b" ")
    assert not says("whsec_" + base64.b64encode(b"another").decode(), headers, here.body)
    monkeypatch.setattr(time, "time", lambda: NOON.timestamp() + 301)
    assert not says(issued.secret, headers, here.body)


def test_an_event_arrives_signed_once() -> None:
    issued = issue()
    delivery = emit(issued)
    with endpoint() as here:
        assert [send(here), send(here)] == [1, 0]
    event = Event.objects.get()
    assert json.loads(here.body) == {
        "id": str(event.pk),
        "type": "subscription.changed",
        "timestamp": "2026-05-10T12:00:00Z",
        "data": DATA,
    }
    assert here.headers()["webhook-id"] == str(event.pk)
    assert verify(issued.secret, here) == [True]
    delivery.refresh_from_db()
    assert (delivery.delivered_at, delivery.attempts) == (NOON, 1)
    assert (delivery.response_status, delivery.response_excerpt) == (200, "ok")
    assert WebhookEndpoint.objects.get().claimed_until is None


def test_for_a_day_after_a_rotation_both_secrets_verify(settings: Settings) -> None:
    old = issue()
    new = rotate_secret(old.row.pk, now=NOON)
    assert old.secret != new.secret
    with endpoint() as here:
        emit(old, 1)
        send(here)
        assert verify(new.secret, here) == [True, False]
        assert verify(old.secret, here) == [False, True]
        # Another SECRET_KEY makes no other secrets while the one before is known.
        settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
        settings.SECRET_KEY = "another"  # noqa: S105 - of the test
        emit(old, 2)
        send(here, timedelta(hours=24))
        assert verify(new.secret, here) == [True]


def test_a_secret_is_not_in_the_table_and_not_made_by_another_key(settings: Settings) -> None:
    issued = issue()
    row = WebhookEndpoint.objects.filter(pk=issued.row.pk).values().get()
    assert issued.secret.removeprefix("whsec_") not in str(row)
    settings.SECRET_KEY = "another"  # noqa: S105 - of the test
    delivery = emit(issued)
    with endpoint() as here:
        send(here)
    delivery.refresh_from_db()
    assert here.received == []
    assert "Rotate" in delivery.last_error


def test_a_failure_is_tried_eight_times_and_given_up() -> None:
    delivery = emit(issue())
    at, tries = timedelta(), []
    with endpoint(BROKEN) as here:
        while not delivery.given_up_at:
            assert send(here, at) == 1
            delivery.refresh_from_db()
            tries.append(delivery.attempts)
            at = delivery.try_at - NOON
            if not delivery.given_up_at:
                assert send(here, at - timedelta(seconds=1)) == 0
    assert tries == list(range(1, len(PAUSES) + 2))
    assert (delivery.response_status, delivery.response_excerpt) == (500, "broken")
    assert timedelta(days=2) < delivery.given_up_at - NOON <= timedelta(days=3)


def test_what_failed_is_taken_later() -> None:
    delivery = emit(issue())
    with endpoint(BROKEN) as here:
        send(here)
    assert WebhookEndpoint.objects.get().failing_since == NOON
    with endpoint() as here:
        send(here, PAUSES[0])
    delivery.refresh_from_db()
    assert (delivery.delivered_at, delivery.attempts) == (NOON + PAUSES[0], 2)
    assert WebhookEndpoint.objects.get().failing_since is None


def test_what_cannot_be_reached_says_so() -> None:
    delivery = emit(issue())

    def resolve() -> Sequence[str]:
        return ["10.0.0.1"]

    with endpoint() as here:
        send(here, ways=here.ways(resolves_to=resolve))
    delivery.refresh_from_db()
    assert here.reached == []
    assert delivery.last_error == "The host has an address that is not public."
    assert (delivery.response_status, delivery.delivered_at) == (None, None)


def test_an_endpoint_that_fails_for_five_days_is_disabled_and_its_owner_told() -> None:
    account = open_with_owner()
    issued = add_endpoint(account.pk, url=URL, now=NOON)
    waits = emit(issued, 1), emit(issued, 2)
    with endpoint(BROKEN) as here:
        send(here)
        Delivery.objects.update(attempts=0)
        send(here, FAILING_TIME - timedelta(seconds=1))
        assert WebhookEndpoint.objects.get().disabled_at is None
        Delivery.objects.update(attempts=0, try_at=NOON)
        send(here, FAILING_TIME)
    row = WebhookEndpoint.objects.get()
    assert (row.disabled_at, row.disabled_reason) == (
        NOON + FAILING_TIME,
        "It took nothing for 5 days.",
    )
    for delivery in waits:
        delivery.refresh_from_db()
        assert delivery.given_up_at
    send_waiting(NOON + FAILING_TIME)
    (sent,) = mail.outbox
    assert sent.subject == "A webhook endpoint was disabled"
    assert f"Endpoint: {URL}" in sent.body.splitlines()
    # Enabled again it begins anew, and what was given up can be asked for.
    change_endpoint(row.pk, EndpointChange(is_enabled=True), now=NOON + FAILING_TIME)
    (again,) = redeliver(waits[0].event_id, now=NOON + FAILING_TIME)
    with endpoint() as here:
        assert send(here, FAILING_TIME) == 1
    again.refresh_from_db()
    assert again.delivered_at


def test_who_answers_gone_is_sent_nothing_more() -> None:
    emit(issue())
    with endpoint(answer_with(b"HTTP/1.1 410 Gone\r\n\r\n")) as here:
        send(here)
    row = WebhookEndpoint.objects.get()
    assert row.disabled_reason == "It answered 410 Gone."
    assert Delivery.objects.get().given_up_at


def test_a_delivery_asked_for_while_it_is_sent_is_sent_once_more() -> None:
    delivery = emit(issue())

    with endpoint() as here:
        (claimed,) = claim_deliveries(NOON, 1, is_slow=False)
        redeliver(delivery.event_id, now=NOON + timedelta(seconds=1))
        outcome = sending._Outcome(Answer(200, b""), "")
        sent = sending._Sent(claimed, NOON, is_slow=False)
        sending._record(sent, outcome, now=NOON)
        assert send(here, LEASE) == 1
    delivery.refresh_from_db()
    assert delivery.delivered_at == NOON + LEASE


def test_an_endpoint_is_claimed_by_one_until_its_lease_is_over() -> None:
    issued = issue()
    emit(issued, 1)
    emit(issued, 2)
    assert len(claim_deliveries(NOON, 9, is_slow=False)) == 1
    assert claim_deliveries(NOON, 9, is_slow=False) == []
    # The worker died: another takes over.
    assert len(claim_deliveries(NOON + LEASE, 9, is_slow=False)) == 1


def test_slow_endpoints_do_not_hold_up_the_others() -> None:
    """All slow ones hang until the fast one has had all of its events."""
    fast_is_done = threading.Event()
    for number in range(sending.SLOW_PLACES + 4):
        slow = issue(f"Slow {number}", f"https://slow{number}.example.com/")
        emit(slow, number + 100)
    WebhookEndpoint.objects.update(last_took_ms=sending.SLOW_MS + 1)
    fast = issue("Fast")
    for number in range(10):
        emit(fast, number)

    def connect_slowly(address: tuple[str, int], _timeout_s: float) -> socket.socket:
        del address
        assert fast_is_done.wait(30)
        raise ConnectionRefusedError

    arrived: list[int] = []

    def count(connection: socket.socket) -> None:
        answer_with(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")(connection)
        arrived.append(1)
        if len(arrived) == 10:
            fast_is_done.set()

    with endpoint(count) as here:
        own = here.ways()

        def connect(address: tuple[str, int], timeout_s: float) -> socket.socket:
            is_fast = address[0] == PUBLIC
            return (own.connect if is_fast else connect_slowly)(address, timeout_s)

        def resolve(host: str, _port: int) -> Sequence[str]:
            return [PUBLIC] if host == "hooks.example.com" else ["8.8.8.8"]

        send(here, ways=Ways(resolve, connect, own.tls))
    assert len(arrived) == 10
    # Nor do they keep more than their places busy; they come again later.
    assert Delivery.objects.filter(attempts=1, delivered_at=None).count() == sending.SLOW_PLACES + 4


@pytest.mark.parametrize("body", [b"\xff\x00 binary", "ü".encode() * 5000])
def test_an_excerpt_of_whatever_is_answered_is_kept(body: bytes) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    talk: Talk = answer_with(head + body)
    delivery = emit(issue())
    with endpoint(talk) as here:
        send(here)
    delivery.refresh_from_db()
    assert delivery.delivered_at
    assert len(delivery.response_excerpt) <= 1000


def test_a_private_endpoint_is_sent_to_where_the_setting_lets_it(settings: Settings) -> None:
    settings.WEBHOOKS_ALLOW_PRIVATE = True
    with endpoint(is_tls=False) as here:
        emit(issue(url=f"http://127.0.0.1:{here.port}/hook"))
        sending.send_due_webhooks(lambda: NOON)
    assert here.head.splitlines()[0] == "POST /hook HTTP/1.1"
    assert Delivery.objects.get().delivered_at == NOON
