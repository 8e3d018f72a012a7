from __future__ import annotations

import threading
import time

import pytest
import requests
import stripe
from stripe import StripeClient

from tests.local_stripe import API_KEY, LocalStripe
from tests.soulbox.local_stripe.invoices import customer_with, final_invoice

DAY_S = 24 * 3600
VERSION = "2026-05-27.dahlia"


def post(local: LocalStripe, path: str, key: str | None, **given: str) -> requests.Response:
    headers = {"Authorization": f"Bearer {API_KEY}", "Stripe-Version": VERSION}
    if key is not None:
        headers["Idempotency-Key"] = key
    return requests.post(f"{local.url}{path}", data=given, headers=headers, timeout=10)


def test_a_key_answers_again_as_the_first_time(client: StripeClient, local: LocalStripe) -> None:
    first = post(local, "/v1/customers", "a", name="Ada")
    again = post(local, "/v1/customers", "a", name="Ada")
    assert again.content == first.content
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["request-id"] != first.headers["request-id"]
    assert again.headers["original-request"] == first.headers["request-id"]
    assert len(client.v1.customers.list().data) == 1


def test_a_key_answers_again_with_a_decline(client: StripeClient, local: LocalStripe) -> None:
    customer = customer_with(client, local, "pm_card_chargeCustomerFail")
    invoice = final_invoice(client, customer.id, 5000)
    for _attempt in range(2):
        with pytest.raises(stripe.CardError):
            client.v1.invoices.pay(invoice.id, {}, {"idempotency_key": "pay-1"})
        local.attach(customer.id, "pm_card_visa")
    assert len(local.charges(succeeded=False)) == 1


@pytest.mark.parametrize(
    ("path", "name", "words"),
    [("/v1/customers", "Eve", "same parameters"), ("/v1/setup_intents", "Ada", "same endpoint")],
)
def test_a_key_is_for_one_request(local: LocalStripe, path: str, name: str, words: str) -> None:
    post(local, "/v1/customers", "a", name="Ada")
    given = {"name": name} if path == "/v1/customers" else {"description": name}
    refused = post(local, path, "a", **given)
    assert refused.status_code == 400
    assert refused.json()["error"]["type"] == "idempotency_error"
    assert words in refused.json()["error"]["message"]


def test_a_key_is_forgotten_after_a_day_of_the_servers_clock(
    client: StripeClient, local: LocalStripe
) -> None:
    post(local, "/v1/customers", "a", name="Ada")
    local.advance(DAY_S - 5)
    assert "Idempotent-Replayed" in post(local, "/v1/customers", "a", name="Ada").headers
    local.advance(10)
    assert "Idempotent-Replayed" not in post(local, "/v1/customers", "a", name="Eve").headers
    assert len(client.v1.customers.list().data) == 2


def test_a_second_call_while_the_first_is_under_way_is_a_conflict(
    client: StripeClient, local: LocalStripe
) -> None:
    local.fault("delay", "PostCustomers", seconds=0.5)
    answers: list[requests.Response] = []

    def ask() -> None:
        answers.append(post(local, "/v1/customers", "a", name="Ada"))

    first = threading.Thread(target=ask)
    first.start()
    deadline = time.monotonic() + 5
    while not local.log("PostCustomers"):
        assert time.monotonic() < deadline
    conflict = post(local, "/v1/customers", "a", name="Ada")
    first.join()
    assert (conflict.status_code, answers[0].status_code) == (409, 200)
    assert conflict.json()["error"]["code"] == "idempotency_key_in_use"
    assert "Idempotent-Replayed" in post(local, "/v1/customers", "a", name="Ada").headers
    assert len(client.v1.customers.list().data) == 1


def test_what_is_refused_before_the_work_is_not_kept(local: LocalStripe) -> None:
    assert post(local, "/v1/customers", "a", nam="Ada").status_code == 400
    local.clear_violations()
    local.fault("429", "PostCustomers")
    assert post(local, "/v1/customers", "a", name="Ada").status_code == 429
    assert post(local, "/v1/customers", "a", name="Ada").status_code == 200


def test_without_a_key_each_call_is_its_own(client: StripeClient, local: LocalStripe) -> None:
    for _call in range(2):
        assert post(local, "/v1/customers", None, name="Ada").status_code == 200
    assert len(client.v1.customers.list().data) == 2


def test_a_key_has_at_most_255_characters(local: LocalStripe) -> None:
    assert post(local, "/v1/customers", "a" * 255, name="Ada").status_code == 200
    assert post(local, "/v1/customers", "a" * 256, name="Ada").status_code == 400
