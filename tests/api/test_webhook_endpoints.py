from __future__ import annotations

from typing import Any

import pytest
from pytest_django import DjangoAssertNumQueries

from billing.models import Account, Delivery, Event, EventType, WebhookEndpoint
from billing.services import add_endpoint, change_endpoint, emit_event
from billing.services.webhook_endpoints import MOST_ENDPOINTS, EndpointChange
from billing.services.webhook_secrets import keys_of
from billing.webhooks.signing import secret_text
from tests.api.calling import Api
from tests.billing.usage import NOON, open_account

pytestmark = pytest.mark.django_db

# A number, so that nothing is looked up.
URL = "https://8.8.8.8/soulbox"
BODY = {"url": URL, "description": "Books", "event_types": ["invoice.paid"]}


@pytest.fixture
def account() -> Account:
    return open_account()


@pytest.fixture
def api(account: Account) -> Api:
    return Api.by_key(account.pk)


def secret_now(endpoint_id: str) -> str:
    row = WebhookEndpoint.objects.get(pk=endpoint_id)
    return secret_text(keys_of(row, now=NOON)[0])


def test_a_secret_is_shown_once_and_signs(api: Api) -> None:
    answer = api.post("webhook-endpoints", BODY)
    made = answer.json()
    assert (answer.status_code, answer["Cache-Control"]) == (201, "no-store")
    assert made["secret"] == secret_now(made["id"])
    assert {name: made[name] for name in BODY} == BODY
    assert made["is_enabled"]
    shown = api.get(f"webhook-endpoints/{made['id']}").json()
    assert shown == {name: value for name, value in made.items() if name != "secret"}
    assert api.get("webhook-endpoints").json()["results"] == [shown]


def test_a_replay_makes_no_second_one_and_leaves_the_secret_out(api: Api) -> None:
    first, again = (
        api.post("webhook-endpoints", BODY, **{"Idempotency-Key": "k"}) for _ in range(2)
    )
    assert again["Idempotency-Replayed"] == "true"
    assert again.json() == {**first.json(), "secret": None}
    assert WebhookEndpoint.objects.count() == 1


def test_a_rotated_secret_is_new_and_the_old_one_signs_for_a_day(api: Api) -> None:
    made = api.post("webhook-endpoints", BODY).json()
    path = f"webhook-endpoints/{made['id']}/rotate"
    answer = api.post(path, **{"Idempotency-Key": "k"})
    assert (answer.status_code, answer["Cache-Control"]) == (201, "no-store")
    assert answer.json()["secret"] == secret_now(made["id"]) != made["secret"]
    assert answer.json()["old_secret_until"] is not None
    assert api.post(path, **{"Idempotency-Key": "k"}).json()["secret"] is None
    row = WebhookEndpoint.objects.get()
    assert [secret_text(key) for key in keys_of(row, now=NOON)] == [
        answer.json()["secret"],
        made["secret"],
    ]


def test_a_change_changes_what_it_names(api: Api) -> None:
    made = api.post("webhook-endpoints", BODY).json()
    path = f"webhook-endpoints/{made['id']}"
    off = api.send("PATCH", path, {"is_enabled": False}).json()
    assert (off["is_enabled"], off["disabled_reason"]) == (False, "It was switched off.")
    assert off["event_types"] == ["invoice.paid"]
    assert api.post(f"{path}/ping").json()["code"] == "conflict"
    change = {"is_enabled": True, "event_types": [], "url": "https://8.8.4.4:8443/x"}
    on = api.send("PATCH", path, change).json()
    assert {name: on[name] for name in change} == change
    assert (on["disabled_at"], on["description"]) == (None, "Books")


def test_a_removed_endpoint_is_not_found_any_more(api: Api) -> None:
    path = f"webhook-endpoints/{api.post('webhook-endpoints', BODY).json()['id']}"
    assert api.send("DELETE", path).status_code == 204
    for method, where in every_call(path):
        assert api.send(method, where, {} if method == "PATCH" else None).status_code == 404
    assert api.get("webhook-endpoints").json()["results"] == []


def every_call(path: str) -> list[tuple[str, str]]:
    return [
        ("GET", path),
        ("PATCH", path),
        ("DELETE", path),
        ("POST", f"{path}/rotate"),
        ("POST", f"{path}/ping"),
        ("GET", f"{path}/deliveries"),
    ]


def test_anothers_endpoint_is_not_found(api: Api) -> None:
    theirs = add_endpoint(open_account("Eve").pk, url=URL, now=NOON).row
    for method, path in every_call(f"webhook-endpoints/{theirs.pk}"):
        answer = api.send(method, path, {"is_enabled": False} if method == "PATCH" else None)
        assert answer.status_code == 404
    assert list(WebhookEndpoint.objects.values_list("disabled_at", "removed_at")) == [(None, None)]
    assert not Event.objects.exists()


def test_what_was_sent_is_listed_by_what_became_of_it(
    api: Api, account: Account, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    row = add_endpoint(account.pk, url=URL, now=NOON).row
    path = f"webhook-endpoints/{row.pk}"
    ping = api.post(f"{path}/ping").json()
    assert (ping["type"], ping["data"]) == ("ping", {"endpoint_id": str(row.pk)})
    emit_event(account.pk, EventType.INVOICE_PAID, "1", {}, NOON)
    sent = Delivery.objects.get(event__type="invoice.paid")
    Delivery.objects.filter(pk=sent.pk).update(
        delivered_at=NOON, tried_at=NOON, attempts=1, response_status=204
    )
    with django_assert_num_queries(3):
        rows = api.get(f"{path}/deliveries").json()["results"]
    assert [(each["event_type"], each["state"]) for each in rows] == [
        ("ping", "waiting"),
        ("invoice.paid", "delivered"),
    ]
    assert (rows[0]["event_id"], rows[0]["next_try_at"]) == (ping["id"], rows[0]["created_at"])
    assert (rows[1]["response_status"], rows[1]["next_try_at"]) == (204, None)
    only = api.get(f"{path}/deliveries?state=delivered").json()["results"]
    assert [each["id"] for each in only] == [str(sent.pk)]
    change_endpoint(row.pk, EndpointChange(is_enabled=False), now=NOON)
    given_up = api.get(f"{path}/deliveries?state=given_up").json()["results"]
    assert [each["event_id"] for each in given_up] == [ping["id"]]
    assert api.get(f"{path}/deliveries?state=lost").status_code == 400


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"url": "http://8.8.8.8/"}, "url"),
        ({"url": "https://127.0.0.1/"}, "url"),
        ({"url": "https://[::ffff:10.0.0.1]/"}, "url"),
        ({"url": "https://169.254.169.254/latest/meta-data"}, "url"),
        ({"url": "https://2130706433/"}, "url"),
        ({"url": "https://8.8.8.8:22/"}, "url"),
        ({"url": "https://user:word@8.8.8.8/"}, "url"),
        ({"url": "https://8.8.8.8/" + "x" * 2048}, "url"),
        ({"url": ""}, "url"),
        ({"description": "x" * 201}, "description"),
        ({"event_types": ["invoice.lost"]}, "event_types.0"),
        ({"event_types": ["ping"]}, "event_types.0"),
        # What is read-only, or another's to say.
        ({"secret": "whsec_mine"}, "secret"),
        ({"secret_seed": "x"}, "secret_seed"),
        ({"account": "x"}, "account"),
        ({"removed_at": None}, "removed_at"),
        ({"failing_since": None}, "failing_since"),
    ],
)
def test_what_is_no_good_is_named(
    api: Api, account: Account, said: dict[str, Any], field: str
) -> None:
    row = add_endpoint(account.pk, url=URL, now=NOON).row
    before = WebhookEndpoint.objects.values().get()
    for answer in (
        api.post("webhook-endpoints", BODY | said),
        api.send("PATCH", f"webhook-endpoints/{row.pk}", said),
    ):
        assert answer.status_code == 400, answer.content
        (error,) = answer.json()["errors"]
        assert error["field"] == field
        assert not error["detail"].startswith("url: ")
    assert WebhookEndpoint.objects.values().get() == before


def test_an_account_has_so_many_endpoints_at_most(api: Api, account: Account) -> None:
    for _ in range(MOST_ENDPOINTS):
        add_endpoint(account.pk, url=URL, now=NOON)
    answer = api.post("webhook-endpoints", BODY)
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert api.post("webhook-endpoints", {"url": URL, "is_enabled": True}).status_code == 400
