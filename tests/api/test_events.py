from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from pytest_django import DjangoAssertNumQueries

from billing.models import Account, Delivery, EventType
from billing.services import EndpointChange, add_endpoint, change_endpoint, emit_event
from tests.api.calling import Api
from tests.billing.usage import NOON, open_account

pytestmark = pytest.mark.django_db

URL = "https://8.8.8.8/soulbox"
PAID, CHANGED = EventType.INVOICE_PAID, EventType.SUBSCRIPTION_CHANGED


@pytest.fixture
def account() -> Account:
    return open_account()


@pytest.fixture
def api(account: Account) -> Api:
    return Api.by_key(account.pk)


def emit(account: Account, kind: EventType = PAID, *, hours: int = 0) -> UUID:
    at = NOON + timedelta(hours=hours)
    said = {"amount_due": "0.00", "currency": "USD"}
    return emit_event(account.pk, kind, f"{account.pk} {hours}", said, at)


def test_events_come_newest_first_by_type_and_time(
    api: Api, account: Account, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    ids = [str(emit(account, kind, hours=at)) for at, kind in enumerate((PAID, CHANGED, PAID))]
    with django_assert_num_queries(3):
        rows = api.get("events").json()["results"]
    assert [row["id"] for row in rows] == ids[::-1]
    assert rows[2] == {
        "id": ids[0],
        "type": "invoice.paid",
        "timestamp": "2026-05-10T12:00:00Z",
        "data": {"amount_due": "0.00", "currency": "USD"},
    }
    assert api.get(f"events/{ids[0]}").json() == rows[2]

    def found(query: str) -> list[str]:
        return [row["id"] for row in api.get(f"events?{query}").json()["results"]]

    assert found("type=invoice.paid") == [ids[2], ids[0]]
    assert found("type=invoice.paid&type=subscription.changed") == ids[::-1]
    # From its first moment on, and before the last.
    assert found("timestamp_from=2026-05-10T13:00:00Z&timestamp_to=2026-05-10T14:00:00Z") == [
        ids[1]
    ]


def test_pages_go_on_where_the_last_ended(api: Api, account: Account) -> None:
    ids = [str(emit(account, hours=at)) for at in range(3)]
    first = api.get("events?page_size=2").json()
    assert [row["id"] for row in first["results"]] == ids[:0:-1]
    emit(account, hours=9)
    rest = api.client.get(first["next"], headers=api.headers).json()
    assert [row["id"] for row in rest["results"]] == [ids[0]]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("type=invoice.lost", "invalid"),
        ("timestamp_from=yesterday", "invalid"),
        ("account=x", "unknown_parameter"),
        ("page_size=1001", "page_size_invalid"),
        ("cursor=x", "cursor_invalid"),
    ],
)
def test_what_is_no_filter_is_refused(api: Api, query: str, code: str) -> None:
    answer = api.get(f"events?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, code)


def test_an_event_is_sent_again_to_all_that_want_it_or_to_one(api: Api, account: Account) -> None:
    event_id = emit(account)
    first = add_endpoint(account.pk, url=URL, now=NOON).row
    second = add_endpoint(account.pk, url=URL, event_types=[CHANGED], now=NOON).row
    answer = api.post(f"events/{event_id}/redeliver", {})
    assert answer.status_code == 202
    (delivery,) = answer.json()
    assert (delivery["endpoint_id"], delivery["state"]) == (str(first.pk), "waiting")
    assert (delivery["event_id"], delivery["event_type"]) == (str(event_id), "invoice.paid")
    # To the one that is named, whatever it wants.
    named = api.post(f"events/{event_id}/redeliver", {"endpoint_id": str(second.pk)}).json()
    assert [row["endpoint_id"] for row in named] == [str(second.pk)]
    Delivery.objects.update(delivered_at=NOON, attempts=3)
    api.post(f"events/{event_id}/redeliver")
    again = Delivery.objects.get(endpoint=first)
    assert (again.delivered_at, again.attempts) == (None, 0)
    assert Delivery.objects.get(endpoint=second).delivered_at == NOON


def test_an_event_that_nobody_takes_is_not_sent(api: Api, account: Account) -> None:
    event_id = emit(account)
    path = f"events/{event_id}/redeliver"
    assert api.post(path).json()["code"] == "conflict"
    theirs = add_endpoint(open_account("Eve").pk, url=URL, now=NOON).row
    off = add_endpoint(account.pk, url=URL, now=NOON).row
    change_endpoint(off.pk, EndpointChange(is_enabled=False), now=NOON)
    for endpoint_id in (theirs.pk, off.pk, uuid4()):
        answer = api.post(path, {"endpoint_id": str(endpoint_id)})
        assert answer.json()["errors"][0]["field"] == "endpoint_id"
    assert api.post(path, {"event_types": []}).json()["errors"][0]["field"] == "event_types"
    assert not Delivery.objects.exists()


def test_anothers_event_is_not_found(api: Api) -> None:
    other = open_account("Eve")
    theirs = emit(other)
    add_endpoint(other.pk, url=URL, now=NOON)
    assert api.get("events").json()["results"] == []
    assert api.get(f"events/{theirs}").status_code == 404
    assert api.post(f"events/{theirs}/redeliver").status_code == 404
    assert not Delivery.objects.exists()
