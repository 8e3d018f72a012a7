from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import pytest
import stripe
from stripe import StripeClient

from tests.local_stripe import SECRET, LocalStripe
from tests.soulbox.local_stripe.receiver import Received, Receiver

OLD_SECRET = "whsec_old"  # noqa: S105 - of a test
CUSTOMERS = 4


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def make_customers(client: StripeClient, number: int = CUSTOMERS) -> None:
    for place in range(number):
        client.v1.customers.create({"name": f"customer {place}"})


def names(received: list[Received]) -> list[str]:
    return [one.event["data"]["object"]["name"] for one in received]


def test_stripes_own_verifier_accepts_what_is_delivered(
    client: StripeClient, local: LocalStripe, receiver: Receiver
) -> None:
    local.webhooks(receiver.url, SECRET)
    made = client.v1.customers.create({"name": "Ada"}, {"idempotency_key": "key-1"})
    local.settle()
    [one] = receiver.received
    event = client.construct_event(one.body, one.signature, SECRET)
    assert (event.type, event.api_version) == ("customer.created", "2026-05-27.dahlia")
    assert one.event["data"]["object"]["id"] == made.id
    assert one.event["request"]["idempotency_key"] == "key-1"
    with pytest.raises(stripe.SignatureVerificationError):
        client.construct_event(one.body.replace(b"Ada", b"Eve"), one.signature, SECRET)
    with pytest.raises(stripe.SignatureVerificationError):
        client.construct_event(one.body, one.signature, "whsec_other")


def test_both_secrets_sign_while_one_is_rotated(
    client: StripeClient, local: LocalStripe, receiver: Receiver
) -> None:
    local.webhooks(endpoints=[{"url": receiver.url, "secrets": [SECRET, OLD_SECRET]}])
    make_customers(client, 1)
    local.settle()
    [one] = receiver.received
    for secret in (SECRET, OLD_SECRET):
        client.construct_event(one.body, one.signature, secret)


def test_every_endpoint_is_told_what_it_wants(
    client: StripeClient, local: LocalStripe, receiver: Receiver
) -> None:
    with Receiver() as other:
        local.webhooks(
            endpoints=[
                {"url": receiver.url, "secret": SECRET},
                {"url": other.url, "secret": SECRET, "enabled_events": ["customer.updated"]},
            ]
        )
        made = client.v1.customers.create({"name": "Ada"})
        client.v1.customers.update(made.id, {"name": "Eve"})
        local.settle()
        assert receiver.kinds == ["customer.created", "customer.updated"]
        assert other.kinds == ["customer.updated"]
    changed = receiver.received[1].event["data"]
    assert changed["previous_attributes"] == {"name": "Ada"}


def test_before_means_before_the_answer(
    client: StripeClient, local: LocalStripe, receiver: Receiver
) -> None:
    local.webhooks(receiver.url, when="before", copies=2)
    make_customers(client, 1)
    assert receiver.kinds == ["customer.created"] * 2


def test_held_events_come_when_they_are_asked_for_in_the_order_that_is_asked_for(
    client: StripeClient, local: LocalStripe, receiver: Receiver
) -> None:
    local.webhooks(receiver.url, when="held")
    make_customers(client)
    local.settle()
    assert receiver.received == []
    assert local.deliver(order="reversed") == CUSTOMERS
    assert names(receiver.received) == [f"customer {n}" for n in reversed(range(CUSTOMERS))]
    assert local.deliver() == 0


def test_a_seed_shuffles_and_drops_the_same_way_again(
    client: StripeClient, local: LocalStripe, receiver: Receiver
) -> None:
    orders = []
    for seed in (1, 1, 2):
        local.webhooks(receiver.url, when="held")
        make_customers(client, 12)
        receiver.received.clear()
        local.deliver(order="shuffled", copies=2, drop=0.3, seed=seed)
        orders.append(names(receiver.received))
    assert orders[0] == orders[1] != orders[2]
    assert 0 < len(orders[0]) < 24
    assert max(Counter(orders[0]).values()) == 2


def test_what_is_not_acknowledged_is_listed_as_undelivered(
    client: StripeClient, local: LocalStripe, receiver: Receiver
) -> None:
    local.webhooks(receiver.url)
    receiver.statuses += [500, 200]
    make_customers(client, 2)
    local.settle()
    missed = client.v1.events.list({"delivery_success": False}).data
    assert [event.data.object["name"] for event in missed] == ["customer 0"]
    assert missed[0].pending_webhooks == 1
    assert len(client.v1.events.list({"delivery_success": True}).data) == 1
    local.deliver(missed[0].id)
    assert client.v1.events.list({"delivery_success": False}).data == []


def test_a_refused_delivery_is_repeated_so_often_as_the_policy_says(
    client: StripeClient, local: LocalStripe, receiver: Receiver
) -> None:
    local.webhooks(receiver.url, retry_after_s=[0.01, 0.01])
    receiver.statuses += [500, 500, 200]
    make_customers(client, 1)
    deadline = time.monotonic() + 5
    while client.v1.events.list({"delivery_success": False}).data:
        assert time.monotonic() < deadline
    assert len(receiver.received) == 3
    assert [one["status"] for one in local.deliveries()] == [500, 500, 200]


def test_deliveries_are_signed_with_real_time_or_with_the_servers_clock(
    client: StripeClient, local: LocalStripe, receiver: Receiver
) -> None:
    local.set_clock(1_000_000_000)
    local.webhooks(receiver.url, signed_at="clock")
    make_customers(client, 1)
    local.settle()
    local.webhooks(signed_at="real")
    make_customers(client, 1)
    local.settle()
    by_clock, by_time = (int(one.signature.split(",")[0][2:]) for one in receiver.received)
    assert by_clock == 1_000_000_000
    assert abs(by_time - time.time()) < 60
