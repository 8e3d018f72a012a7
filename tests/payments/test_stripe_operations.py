"""Every operation of Stripe's that the code uses, held against Stripe's own document.

Each method of the provider is called on a client that writes down the request and answers
nothing of use; the request has to be one that the document knows: path, parameters, what is
required, and the version.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from django.conf import settings
from stripe import HTTPClient

from billing.money import Money
from metering.period import Period
from payments.provider import (
    Bill,
    BillLine,
    CustomerProfile,
    Provider,
    ProviderSubscription,
    SubscriptionOrder,
)
from payments.stripe import client, subscriptions
from payments.stripe.client import API_VERSION, Stripe, StripeSettings
from soulbox.local_stripe import document, forms
from soulbox.local_stripe.operations import OPERATIONS

NOW = datetime(2026, 6, 1, tzinfo=UTC)
MAY = Period(datetime(2026, 5, 1, tzinfo=UTC), NOW)
PROFILE = CustomerProfile("Ada", "ada@example.com", {"account_id": "a"})
LINE = BillLine("CPU", Money(Decimal("1.50"), "USD"), MAY, {"meter": "cpu"})
SUBSCRIPTION = ProviderSubscription(
    id="sub_1",
    customer_id="cus_1",
    item_id="si_1",
    price_id="price_1",
    status="active",
    period=MAY,
    cancels_at_period_end=False,
    ended_at=None,
    metadata={},
)
ORDER = SubscriptionOrder("cus_1", "price_1", {"tier": "team"})

# Each method of the provider, as it is called.
CALLS: dict[str, Callable[[Stripe], Any]] = {
    "create_customer": lambda s: s.create_customer(PROFILE, key="k"),
    "find_customer": lambda s: s.find_customer(UUID(int=1)),
    "update_customer": lambda s: s.update_customer("cus_1", PROFILE, key="k"),
    "methods_of": lambda s: s.methods_of("cus_1"),
    "method": lambda s: s.method("pm_1"),
    "set_default_method": lambda s: s.set_default_method("cus_1", "pm_1", key="k"),
    "detach_method": lambda s: s.detach_method("pm_1", key="k"),
    "create_setup_intent": lambda s: s.create_setup_intent("cus_1", key="k"),
    "setup_customer": lambda s: s.setup_customer("seti_1"),
    "create_portal_session": lambda s: s.create_portal_session(
        "cus_1", return_url="https://example.com/"
    ),
    "create_bill": lambda s: s.create_bill(
        Bill("cus_1", "USD", "Invoice 1", {"collection_id": "c"}), key="k"
    ),
    "add_lines": lambda s: s.add_lines("in_1", [LINE, LINE], key="k"),
    "finalise_bill": lambda s: s.finalise_bill("in_1", key="k"),
    "pay_bill": lambda s: s.pay_bill("in_1", method_id="pm_1", key="k"),
    "void_bill": lambda s: s.void_bill("in_1", key="k"),
    "delete_draft": lambda s: s.delete_draft("in_1", key="k"),
    "write_off_bill": lambda s: s.write_off_bill("in_1", key="k"),
    "bill": lambda s: s.bill("in_1"),
    "find_bills": lambda s: s.find_bills("cus_1", {"collection_id": "c"}),
    "bill_of_payment": lambda s: s.bill_of_payment("pi_1"),
    "payment": lambda s: s.payment("pi_1"),
    "create_refund": lambda s: s.create_refund(
        "pi_1", Money(Decimal(1), "USD"), metadata={"refund_id": "r"}, key="k"
    ),
    "refund": lambda s: s.refund("re_1"),
    "refunds_of": lambda s: s.refunds_of("pi_1"),
    "payment_of_charge": lambda s: s.payment_of_charge("ch_1"),
    "dispute": lambda s: s.dispute("dp_1"),
    "create_subscription": lambda s: s.create_subscription(ORDER, key="k"),
    "change_subscription": lambda s: s.change_subscription(
        SUBSCRIPTION, price_id="price_2", metadata={}, at_once=True, key="k"
    ),
    "cancel_subscription": lambda s: s.cancel_subscription("sub_1", at_period_end=True, key="k"),
    "end_subscription": lambda s: s.end_subscription("sub_1", key="k"),
    "subscription": lambda s: s.subscription("sub_1"),
    "find_subscriptions": lambda s: s.find_subscriptions("cus_1", {}),
    "events": lambda s: list(s.events(since=NOW, only_undelivered=True)),
    "event": lambda s: s.event("evt_1"),
    "bills": lambda s: list(s.bills(since=MAY.start, until=NOW)),
    "payments": lambda s: list(s.payments(since=NOW)),
    "refunds": lambda s: list(s.refunds(since=NOW)),
}
ASKS_NOTHING = {"smallest_charge"}

# What Stripe's document calls them.
USED = {
    "PostCustomers",
    "GetCustomersSearch",
    "PostCustomersCustomer",
    "GetCustomersCustomer",
    "GetCustomersCustomerPaymentMethods",
    "GetPaymentMethodsPaymentMethod",
    "PostPaymentMethodsPaymentMethodDetach",
    "PostSetupIntents",
    "GetSetupIntentsIntent",
    "PostBillingPortalSessions",
    "PostInvoices",
    "PostInvoicesInvoiceAddLines",
    "PostInvoicesInvoiceFinalize",
    "PostInvoicesInvoicePay",
    "PostInvoicesInvoiceVoid",
    "PostInvoicesInvoiceMarkUncollectible",
    "DeleteInvoicesInvoice",
    "GetInvoicesInvoice",
    "GetInvoices",
    "GetInvoicePayments",
    "GetPaymentIntentsIntent",
    "GetPaymentIntents",
    "PostRefunds",
    "GetRefundsRefund",
    "GetRefunds",
    "GetChargesCharge",
    "GetDisputesDispute",
    "PostSubscriptions",
    "PostSubscriptionsSubscriptionExposedId",
    "DeleteSubscriptionsSubscriptionExposedId",
    "GetSubscriptionsSubscriptionExposedId",
    "GetSubscriptions",
    "GetEvents",
    "GetEventsId",
}


@dataclass(frozen=True)
class Asked:
    """A request as it goes over the wire."""

    method: str
    path: str
    encoded: str
    version: str
    key: str | None


class Recorder(HTTPClient):
    """Writes down what is asked, and answers with an object and a list that hold nothing."""

    name = "recorder"

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Asked] = []

    def request(
        self, method: str, url: str, headers: Any, post_data: Any = None, **_more: Any
    ) -> tuple[str, int, dict[str, str]]:
        parts = urlsplit(url)
        encoded = "&".join(filter(None, (parts.query, post_data)))
        self.asked.append(
            Asked(
                method.upper(),
                parts.path,
                encoded,
                headers["Stripe-Version"],
                headers.get("Idempotency-Key"),
            )
        )
        answer = {"id": "x_1", "object": "list", "data": [], "has_more": False, "url": parts.path}
        return json.dumps(answer), 200, {"request-id": "req_1"}


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder()
    monkeypatch.setattr("stripe.RequestsClient", lambda **_options: made)
    return made


@pytest.fixture(scope="module")
def stripes_document() -> document.Document:
    return document.load(OPERATIONS, cache=settings.HOME / "cache")


def asked_by(recorder: Recorder, method: str) -> list[Asked]:
    recorder.asked.clear()
    stripe = Stripe(StripeSettings("sk_test_x", "https://api.stripe.com", timeout_s=1))
    # What is answered has no shape that ours could be made of.
    with suppress(KeyError, TypeError, AttributeError):
        CALLS[method](stripe)
    return list(recorder.asked)


def test_every_method_of_the_provider_is_looked_at() -> None:
    methods = {
        name for name, _ in inspect.getmembers(Provider, inspect.isfunction) if name[0] != "_"
    }
    assert set(CALLS) == methods - ASKS_NOTHING


@pytest.mark.parametrize("method", CALLS)
def test_stripe_knows_what_is_asked(
    recorder: Recorder, stripes_document: document.Document, method: str
) -> None:
    asked = asked_by(recorder, method)
    assert asked, f"{method} asks nothing"
    for one in asked:
        found = stripes_document.route(one.method, one.path)
        assert found, f"{method}: Stripe has no {one.method} {one.path}"
        operation, _ = found
        given = forms.typed(
            operation.parameters,
            forms.parsed(one.encoded),
            "",
            stripes_document.resolved,
            unsets=one.method == "POST",
        )
        assert stripes_document.faults(operation.parameters, given, key=operation.name) == []
        assert one.version == API_VERSION == stripes_document.version


@pytest.mark.parametrize("method", CALLS)
def test_what_changes_something_has_our_key(recorder: Recorder, method: str) -> None:
    takes_key = "key" in inspect.signature(getattr(Provider, method)).parameters
    for one in asked_by(recorder, method):
        if one.method == "GET":
            assert not takes_key
        elif takes_key and one.method == "POST":
            assert one.key == "k"


def test_the_operations_that_are_used_are_these(
    recorder: Recorder, stripes_document: document.Document
) -> None:
    used = set()
    for method in CALLS:
        for one in asked_by(recorder, method):
            found = stripes_document.route(one.method, one.path)
            assert found
            used.add(found[0].name)
    assert used == USED


def test_no_call_of_the_sdk_is_left_out(recorder: Recorder) -> None:
    """As many kinds of calls stand in the code as were seen to be made."""
    chains = {
        chain
        for module in (client, subscriptions)
        for chain in _chains(ast.parse(inspect.getsource(module)))
    }
    seen = {
        (one.method, re.sub(r"/(?!v1)[a-z]+_\d\b|/k\b", "/{}", one.path))
        for method in CALLS
        for one in asked_by(recorder, method)
    }
    assert len(chains) == len(seen), (sorted(chains), sorted(seen))


def _chains(tree: ast.Module) -> Iterator[str]:
    """Yield each `self._stripe.a.b` that is called, or handed on to be."""
    inside = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            inside.add(id(node.value))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inside:
            chain = ast.unparse(node)
            if chain.startswith("self._stripe."):
                yield chain
