from __future__ import annotations

import pytest
import stripe
from stripe import StripeClient

from tests.local_stripe import LocalStripe

NOW = 1_800_000_000


@pytest.fixture
def customers(client: StripeClient, local: LocalStripe) -> list[str]:
    """Return the ids of seven customers, a second apart, newest first."""
    made = []
    for number in range(7):
        local.set_clock(NOW + number)
        email = f"{number % 2}@example.com"
        made.append(
            client.v1.customers.create({"email": email, "metadata": {"n": f"it's {number}"}}).id
        )
    return made[::-1]


def ids(found: stripe.ListObject[stripe.Customer]) -> list[str]:
    return [one.id for one in found.data]


def test_pages_go_forward_and_back(client: StripeClient, customers: list[str]) -> None:
    first = client.v1.customers.list({"limit": 3})
    assert (ids(first), first.has_more) == (customers[:3], True)
    second = client.v1.customers.list({"limit": 3, "starting_after": customers[2]})
    assert (ids(second), second.has_more) == (customers[3:6], True)
    last = client.v1.customers.list({"limit": 3, "starting_after": customers[5]})
    assert (ids(last), last.has_more) == (customers[6:], False)
    back = client.v1.customers.list({"limit": 3, "ending_before": customers[6]})
    assert (ids(back), back.has_more) == (customers[3:6], True)
    back = client.v1.customers.list({"limit": 3, "ending_before": customers[1]})
    assert (ids(back), back.has_more) == (customers[:1], False)


def test_the_sdk_pages_through_everything(client: StripeClient, customers: list[str]) -> None:
    found = client.v1.customers.list({"limit": 2}).auto_paging_iter()
    assert [one.id for one in found] == customers


def test_a_page_has_ten_unless_told_otherwise_and_a_hundred_at_most(
    client: StripeClient, local: LocalStripe
) -> None:
    del local
    for _customer in range(11):
        client.v1.customers.create({})
    assert len(client.v1.customers.list().data) == 10
    for limit in (0, 101):
        with pytest.raises(stripe.InvalidRequestError):
            client.v1.customers.list({"limit": limit})
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.customers.list({"starting_after": "cus_none"})


@pytest.mark.parametrize(
    ("created", "places"),
    [
        ({"gt": NOW + 4}, slice(0, 2)),
        ({"gte": NOW + 4}, slice(0, 3)),
        ({"lt": NOW + 2}, slice(5, 7)),
        ({"lte": NOW + 2, "gte": NOW + 1}, slice(4, 6)),
    ],
)
def test_lists_are_filtered_by_time(
    client: StripeClient, customers: list[str], created: dict[str, int], places: slice
) -> None:
    found = client.raw_request(
        "get", "/v1/customers", **{f"created[{name}]": bound for name, bound in created.items()}
    )
    assert [one["id"] for one in found.data["data"]] == customers[places]


def test_customers_are_found_by_email_and_by_metadata(
    client: StripeClient, customers: list[str]
) -> None:
    assert ids(client.v1.customers.list({"email": "1@example.com"})) == customers[1::2]
    query = r"metadata['n']:'it\'s 3' AND email:'1@example.com'"
    assert [one.id for one in client.v1.customers.search({"query": query}).data] == [customers[3]]
    query = "metadata['n']:\"it's 3\" AND email:'0@example.com'"
    assert client.v1.customers.search({"query": query}).data == []
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.customers.search({"query": "metadata.n=3"})


def test_a_search_lags_behind(client: StripeClient, local: LocalStripe) -> None:
    local.set_clock(NOW)
    local.ask("PUT", "settings", search_lag_s=60)
    made = client.v1.customers.create({"metadata": {"n": "1"}})
    search = {"query": "metadata['n']:'1'"}
    assert client.raw_request("get", "/v1/customers/search", **search).data["data"] == []
    assert ids(client.v1.customers.list()) == [made.id]
    local.advance(60)
    found = client.raw_request("get", "/v1/customers/search", **search).data["data"]
    assert [one["id"] for one in found] == [made.id]


def test_a_search_has_pages(client: StripeClient, customers: list[str]) -> None:
    query = "email:'0@example.com'"
    first = client.v1.customers.search({"query": query, "limit": 3})
    assert (len(first.data), first.has_more) == (3, True)
    every = [one.id for one in first.auto_paging_iter()]
    assert every == customers[0::2]


def test_events_are_listed_by_type_and_kept_for_thirty_days(
    client: StripeClient, local: LocalStripe, customers: list[str]
) -> None:
    client.v1.customers.update(customers[0], {"name": "Ada"})
    kinds = [event.type for event in client.v1.events.list({"type": "customer.updated"}).data]
    assert kinds == ["customer.updated"]
    found = client.v1.events.list({"types": ["customer.created", "customer.updated"]}).data
    assert len(found) == 8
    assert client.v1.events.retrieve(found[0].id).type == "customer.updated"
    local.advance(31 * 24 * 3600)
    assert client.v1.events.list().data == []
