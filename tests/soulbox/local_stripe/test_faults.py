from __future__ import annotations

import time

import pytest
import stripe
from stripe import StripeClient

from tests.local_stripe import API_KEY, LocalStripe
from tests.soulbox.local_stripe.invoices import customer_with, final_invoice

PAY = "PostInvoicesInvoicePay"
ONCE: stripe.RequestOptions = {"idempotency_key": "pay-1"}


@pytest.fixture
def client(local: LocalStripe) -> StripeClient:
    """Stripe's own client that waits for a fifth of a second."""
    return StripeClient(
        API_KEY,
        base_addresses={"api": local.url},
        max_network_retries=0,
        http_client=stripe.RequestsClient(timeout=0.2),
    )


@pytest.fixture
def invoice(client: StripeClient, local: LocalStripe) -> str:
    return final_invoice(client, customer_with(client, local, "pm_card_visa").id, 5000).id


@pytest.mark.parametrize(
    ("kind", "charges"),
    [
        ("timeout_before", 0),
        ("timeout_after_success", 1),
        ("reset_before", 0),
        ("reset_after_success", 1),
    ],
)
def test_an_answer_is_lost_with_the_work_done_or_not(
    client: StripeClient, local: LocalStripe, invoice: str, kind: str, charges: int
) -> None:
    local.fault(kind, PAY)
    with pytest.raises(stripe.APIConnectionError):
        client.v1.invoices.pay(invoice, {}, ONCE)
    assert len(local.charges()) == charges
    # The same key finds what was done, or does it now: one charge either way.
    assert client.v1.invoices.pay(invoice, {}, ONCE).status == "paid"
    assert len(local.charges()) == 1
    assert [call["fault"] for call in local.log(PAY)] == [kind, None]


@pytest.mark.parametrize(("kind", "charges"), [("500_before", 0), ("500_after_success", 1)])
def test_a_500_is_kept_by_its_key(
    client: StripeClient, local: LocalStripe, invoice: str, kind: str, charges: int
) -> None:
    local.fault(kind, PAY)
    for _call in range(3):
        with pytest.raises(stripe.APIError) as broken:
            client.v1.invoices.pay(invoice, {}, ONCE)
        assert broken.value.http_status == 500
    assert len(local.charges()) == charges
    assert client.v1.invoices.retrieve(invoice).status == ("paid" if charges else "open")


@pytest.mark.parametrize(("kind", "status"), [("409", 409), ("429", 429)])
def test_a_call_in_the_way_is_not_kept(
    client: StripeClient, local: LocalStripe, invoice: str, kind: str, status: int
) -> None:
    local.fault(kind, PAY)
    with pytest.raises(stripe.StripeError) as refused:
        client.v1.invoices.pay(invoice, {}, ONCE)
    assert refused.value.http_status == status
    assert client.v1.invoices.pay(invoice, {}, ONCE).status == "paid"


def test_work_is_done_though_the_client_went_away(
    client: StripeClient, local: LocalStripe, invoice: str
) -> None:
    local.fault("delay", PAY, seconds=0.4)
    with pytest.raises(stripe.APIConnectionError):
        client.v1.invoices.pay(invoice, {}, ONCE)
    deadline = time.monotonic() + 5
    while client.v1.invoices.retrieve(invoice).status != "paid":
        assert time.monotonic() < deadline
    assert client.v1.invoices.pay(invoice, {}, ONCE).status == "paid"
    assert len(local.charges()) == 1


def test_the_nth_call_of_matching_operations_goes_wrong(
    client: StripeClient, local: LocalStripe
) -> None:
    local.fault("429", "Post*", nth=2, times=2)
    outcomes = []
    for _call in range(4):
        client.v1.customers.list()
        try:
            client.v1.customers.create({})
            outcomes.append(200)
        except stripe.RateLimitError:
            outcomes.append(429)
    assert outcomes == [200, 429, 429, 200]


def test_the_same_seed_goes_wrong_at_the_same_calls(
    client: StripeClient, local: LocalStripe
) -> None:
    def run(seed: int) -> list[str | None]:
        local.reset()
        local.random_faults(seed, {"429": 0.2, "500_after_success": 0.2}, ["PostCustomers"])
        for _call in range(40):
            client.v1.customers.list()
            try:
                client.v1.customers.create({})
            except stripe.StripeError:
                continue
        return [call["fault"] for call in local.log("PostCustomers")]

    first = run(7)
    assert run(7) == first != run(8)
    assert {"429", "500_after_success", None} == set(first)
    local.clear_faults()
    client.v1.customers.create({})


def test_an_unknown_fault_is_refused(local: LocalStripe) -> None:
    with pytest.raises(RuntimeError, match="no fault"):
        local.fault("fire")
