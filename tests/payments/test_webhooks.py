from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client
from pytest_django import DjangoCaptureOnCommitCallbacks
from pytest_django.fixtures import Settings

from payments.models import WebhookEvent
from payments.services import applying
from payments.stripe.client import API_VERSION
from payments.stripe.webhooks import REDACTED
from payments.views.webhooks import LONGEST_BODY
from tests.local_stripe import ROOT
from tests.payments.signed_events import (
    HAPPENED_AT,
    OTHER_SECRET,
    PATH,
    SECRET,
    body_of,
    event,
    post,
)

pytestmark = pytest.mark.django_db
Status = WebhookEvent.Status


@pytest.fixture
def client() -> Client:
    """As Stripe: no session, no key, and the check for forged requests is on."""
    return Client(enforce_csrf_checks=True)


@pytest.fixture(autouse=True)
def _stripe_is_set_up(settings: Settings) -> None:
    settings.STRIPE_API_KEY = "sk_test_1"
    settings.STRIPE_WEBHOOK_SECRETS = [SECRET]


@pytest.fixture(autouse=True)
def hints(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The events that workers were hinted at."""
    hinted: list[str] = []

    def hurry(task: Any, event_id: str) -> bool:
        assert task.name == "payments.tasks.apply_event"
        hinted.append(event_id)
        return True

    monkeypatch.setattr("payments.views.webhooks.hurry", hurry)
    return hinted


def test_a_signed_event_is_stored_and_waits(
    client: Client,
    hints: list[str],
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    before = datetime.now(UTC)
    with django_capture_on_commit_callbacks(execute=True):
        answer = post(client, body_of(event()))
    assert (answer.status_code, answer.content) == (200, b"Stored.\n")
    row = WebhookEvent.objects.get()
    assert (row.event_id, row.type) == ("evt_1", "invoice.paid")
    assert (row.object_type, row.object_id) == ("invoice", "in_1")
    assert (row.api_version, row.is_live_mode, row.source) == (API_VERSION, False, "webhook")
    assert row.happened_at == HAPPENED_AT
    assert row.received_at >= before
    assert row.body == event()
    assert (row.status, row.result, row.tries) == (Status.RECEIVED, "", 0)
    assert hints == ["evt_1"]


def test_a_valid_event_that_comes_again_is_stored_once(client: Client) -> None:
    body = body_of(event())
    for _ in range(5):
        assert post(client, body).status_code == 200
    WebhookEvent.objects.update(status=Status.APPLIED, applied_at=HAPPENED_AT, result="Done.")
    assert post(client, body).status_code == 200
    row = WebhookEvent.objects.get()
    assert (row.status, row.result) == (Status.APPLIED, "Done.")


def refused(answer: Any, status: int, words: str) -> None:
    assert answer.status_code == status
    assert words in answer.content.decode()
    assert SECRET not in answer.content.decode()
    assert answer["Content-Type"] == "text/plain; charset=utf-8"
    assert not WebhookEvent.objects.exists()


def test_a_changed_byte_is_refused_wherever_it_is(client: Client) -> None:
    body = body_of(event())
    good = post(client, body)
    assert good.status_code == 200
    WebhookEvent.objects.all().delete()
    for place in range(0, len(body), 7):
        changed = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
        answer = post(client, changed, signed=body)
        refused(answer, 400, "No signature in it is one of our signing secrets'.")


@pytest.mark.parametrize(
    ("age_s", "words"), [(310, "It was signed 31"), (-70, " s ahead of our clock.")]
)
def test_an_old_and_an_early_event_are_refused(client: Client, age_s: int, words: str) -> None:
    at = datetime.now(UTC) - timedelta(seconds=age_s)
    refused(post(client, body_of(event()), at=at), 400, words)


def test_an_event_of_another_secret_is_refused(client: Client) -> None:
    refused(post(client, body_of(event()), secret=OTHER_SECRET), 400, "No signature")


def test_both_secrets_count_within_a_rotation_and_the_new_one_after(
    client: Client, settings: Settings
) -> None:
    settings.STRIPE_WEBHOOK_SECRETS = [SECRET, OTHER_SECRET]
    assert post(client, body_of(event("evt_old")), secret=OTHER_SECRET).status_code == 200
    assert post(client, body_of(event("evt_new"))).status_code == 200
    assert WebhookEvent.objects.count() == 2
    WebhookEvent.objects.all().delete()
    settings.STRIPE_WEBHOOK_SECRETS = [SECRET]
    refused(post(client, body_of(event()), secret=OTHER_SECRET), 400, "No signature")
    assert post(client, body_of(event())).status_code == 200


@pytest.mark.parametrize("header", [None, "", "junk", "t=1,t=2,v1=0", "t=" + "1" * 5000])
def test_another_header_is_refused(client: Client, header: str | None) -> None:
    headers = {} if header is None else {"Stripe-Signature": header}
    answer = client.post(PATH, body_of(event()), content_type="application/json", headers=headers)
    refused(answer, 400, "Stripe-Signature")


def test_an_empty_body_is_refused(client: Client) -> None:
    refused(post(client, b""), 400, "The body is empty.")


def test_the_longest_body_is_taken_and_a_longer_one_refused(client: Client) -> None:
    told = event(padding="")
    fits = body_of({**told, "padding": "x" * (LONGEST_BODY - len(body_of(told)))})
    assert len(fits) == LONGEST_BODY
    refused(post(client, fits + b" "), 413, "The body is longer than 524288 bytes.")
    refused(post(client, b" " * 2**20), 413, "The body is longer than 524288 bytes.")
    assert post(client, fits).status_code == 200


class NotRead(BytesIO):
    """A body that goes wrong when it is read."""

    def read(self, *_sizes: object) -> bytes:
        raise OSError


@pytest.mark.parametrize(
    ("length", "status", "words"),
    [(2**20, 413, "is longer"), (100, 400, "The body ended too early.")],
)
def test_a_body_that_is_too_long_is_not_read(
    client: Client, length: int, status: int, words: str
) -> None:
    more: dict[str, Any] = {"CONTENT_LENGTH": str(length), "wsgi.input": NotRead()}
    refused(client.post(PATH, content_type="application/json", **more), status, words)


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "image/png"],
)
def test_the_content_type_does_not_matter(client: Client, content_type: str) -> None:
    body = body_of(event())
    assert post(client, body, content_type=content_type).status_code == 200
    assert WebhookEvent.objects.get().body == json.loads(body)
    WebhookEvent.objects.all().delete()
    refused(post(client, body, secret=OTHER_SECRET, content_type=content_type), 400, "No signature")


@pytest.mark.parametrize("method", ["get", "put", "delete", "head", "options"])
def test_only_posts_are_taken(client: Client, method: str) -> None:
    assert getattr(client, method)(PATH).status_code == 405


def test_without_a_secret_nothing_is_taken(client: Client, settings: Settings) -> None:
    settings.STRIPE_WEBHOOK_SECRETS = []
    refused(post(client, body_of(event())), 503, "STRIPE_WEBHOOK_SECRET is not set")
    refused(post(client, body_of(event()), secret=""), 503, "STRIPE_WEBHOOK_SECRET is not set")


WHOLE = event()


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ([], "is not an event"),
        ("evt_1", "is not an event"),
        ({}, "is not an event"),
        ({**WHOLE, "object": "v2.core.event"}, "is not an event"),
        ({**WHOLE, "object": "invoice"}, "is not an event"),
        ({name: WHOLE[name] for name in WHOLE if name != "id"}, "is not whole"),
        ({name: WHOLE[name] for name in WHOLE if name != "livemode"}, "is not whole"),
        ({**WHOLE, "data": {}}, "is not whole"),
        ({**WHOLE, "data": []}, "is not whole"),
        ({**WHOLE, "data": {"object": None}}, "is not whole"),
        ({**WHOLE, "created": "now"}, "is not whole"),
        ({**WHOLE, "created": 10**30}, "is not whole"),
        ({**WHOLE, "id": ""}, "cannot be read"),
        ({**WHOLE, "id": 7}, "cannot be read"),
        ({**WHOLE, "id": None}, "cannot be read"),
        ({**WHOLE, "id": "e" * 256}, "cannot be read"),
        ({**WHOLE, "id": "evt\x00"}, "cannot be read"),
        ({**WHOLE, "id": "evt_é"}, "cannot be read"),
        ({**WHOLE, "type": "t" * 101}, "cannot be read"),
        ({**WHOLE, "type": ["invoice.paid"]}, "cannot be read"),
        ({**WHOLE, "data": {"object": {"id": "in_1\n"}}}, "cannot be read"),
        ({**WHOLE, "livemode": "no"}, "live mode"),
    ],
)
def test_what_is_signed_and_no_event_is_refused(client: Client, told: object, words: str) -> None:
    refused(post(client, body_of(told)), 400, words)


@pytest.mark.parametrize("body", [b"junk", b"{", b"\xff", b"[" * 100_000, b'{"a": NaN}'])
def test_what_is_signed_and_no_json_is_refused(client: Client, body: bytes) -> None:
    refused(post(client, body), 400, "The body is not JSON.")


def test_an_event_that_is_nested_too_deep_is_refused(client: Client) -> None:
    body = body_of(event(deep="")).replace(b'""', b"[" * 600 + b"]" * 600)
    refused(post(client, body), 400, "The event is nested too deep.")


def test_secrets_and_what_the_database_cannot_hold_are_not_kept(client: Client) -> None:
    about = {
        "id": "pi_1",
        "object": "payment_intent",
        "client_secret": "pi_1_secret_2",
        "confirmation_secret": {"client_secret": "x"},
        "description": "a\x00b\ud800c",
        "list": [{"client_secret": None}, "\x00", 1.5, True],
    }
    assert post(client, body_of(event(data={"object": about}))).status_code == 200
    row = WebhookEvent.objects.get()
    assert row.object_id == "pi_1"
    assert row.body["data"]["object"] == {
        **about,
        "client_secret": REDACTED,
        "confirmation_secret": REDACTED,
        "description": "a\ufffdb\ufffdc",
        "list": [{"client_secret": None}, "\ufffd", 1.5, True],
    }


@pytest.mark.parametrize(
    ("key", "mode", "result"),
    [
        ("sk_test_1", "live", "It is of live mode, and STRIPE_API_KEY is a key of test mode."),
        ("rk_test_1", "live", "It is of live mode, and STRIPE_API_KEY is a key of test mode."),
        ("sk_live_1", "test", "It is of test mode, and STRIPE_API_KEY is a key of live mode."),
        ("rk_live_1", "test", "It is of test mode, and STRIPE_API_KEY is a key of live mode."),
        ("sk_live_1", "live", ""),
        ("rk_test_1", "test", ""),
        ("other", "live", ""),
        ("", "test", ""),
    ],
)
def test_an_event_of_the_other_mode_is_kept_and_ignored(
    client: Client, settings: Settings, key: str, mode: str, result: str
) -> None:
    settings.STRIPE_API_KEY = key
    assert post(client, body_of(event(livemode=mode == "live"))).status_code == 200
    row = WebhookEvent.objects.get()
    assert (row.status, row.result) == (Status.IGNORED if result else Status.RECEIVED, result)


def test_an_event_of_an_unknown_kind_is_kept_and_ignored(client: Client, hints: list[str]) -> None:
    assert post(client, body_of(event(kind="invoice.sneezed"))).status_code == 200
    row = WebhookEvent.objects.get()
    assert row.status == Status.IGNORED
    assert row.result == "Nothing is done about events of this kind."
    assert hints == []


def test_an_object_without_an_id_is_kept(client: Client) -> None:
    about = {"object": {"object": "balance", "id": None}}
    told = event(kind="balance.available", data=about, api_version=None)
    assert post(client, body_of(told)).status_code == 200
    row = WebhookEvent.objects.get()
    assert (row.object_type, row.object_id, row.api_version) == ("balance", "", "")


def test_stripe_is_told_to_send_it_again_when_it_cannot_be_stored(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object, **_more: object) -> None:
        raise OperationalError

    monkeypatch.setattr("payments.views.webhooks.receive_event", fail)
    refused(post(client, body_of(event())), 503, "It cannot be stored now.")


def test_the_docs_list_the_kinds_that_something_is_done_about() -> None:
    section = (ROOT / "docs" / "payments.md").read_text().split("Let Stripe send these kinds")[1]
    listed = re.findall(r"`([a-z_.]+)`", section.split("\n\n")[0])
    assert sorted(listed) == sorted(applying._STEPS)
