"""What Stripe would not know is refused as Stripe refuses it, and kept for the test to see."""

from __future__ import annotations

import pytest
import requests
import stripe
from stripe import StripeClient

from tests.local_stripe import API_KEY, LocalStripe

VERSION = "2026-05-27.dahlia"


def ask(
    local: LocalStripe,
    path: str,
    body: str | None = None,
    *,
    method: str = "POST",
    key: str = API_KEY,
    version: str = VERSION,
) -> requests.Response:
    headers = {
        "Authorization": f"Bearer {key}",
        "Stripe-Version": version,
        "Content-Type": "application/x-www-form-urlencoded",
    }
    return requests.request(method, f"{local.url}{path}", data=body, headers=headers, timeout=10)


@pytest.mark.parametrize(
    ("path", "body", "code", "param"),
    [
        ("/v1/customers", "nam=Ada", "parameter_unknown", "nam"),
        ("/v1/customers", "address[strasse]=x", "parameter_unknown", "address[strasse]"),
        ("/v1/customers", "balance=much", "parameter_invalid_integer", "balance"),
        ("/v1/customers", "tax_exempt=perhaps", None, "tax_exempt"),
        ("/v1/customers", "name[first]=Ada", None, "name"),
        ("/v1/customers", "address=here", None, "address"),
        ("/v1/invoices", "customer=cus_1&auto_advance=perhaps", None, "auto_advance"),
        ("/v1/invoices/in_1/add_lines", "", "parameter_missing", "lines"),
        (
            "/v1/invoices/in_1/add_lines",
            "lines[0][amout]=1",
            "parameter_unknown",
            "lines[0][amout]",
        ),
        (
            "/v1/invoices/in_1/add_lines",
            "lines[0][amount]=1&lines[0][period][start]=1",
            "parameter_missing",
            "lines[0][period][end]",
        ),
        ("/v1/customers", f"metadata[k]={'x' * 501}", None, "metadata[k]"),
        ("/v1/customers", f"metadata[{'k' * 41}]=x", None, f"metadata[{'k' * 41}]"),
        ("/v1/customers", "&".join(f"metadata[{n}]=x" for n in range(51)), None, "metadata"),
    ],
)
def test_a_wrong_parameter_is_refused_and_kept(
    local: LocalStripe, path: str, body: str, code: str | None, param: str
) -> None:
    refused = ask(local, path, body)
    error = refused.json()["error"]
    assert (refused.status_code, error["type"]) == (400, "invalid_request_error")
    assert (error.get("code"), error["param"]) == (code, param)
    assert refused.headers["request-id"].startswith("req_")
    assert [kept["kind"] for kept in local.violations()] == ["request"]
    local.clear_violations()


@pytest.mark.parametrize(
    ("query", "code", "param"),
    [
        ("limt=1", "parameter_unknown", "limt"),
        ("limit=ten", "parameter_invalid_integer", "limit"),
        ("customer=", "parameter_invalid_empty", "customer"),
        ("created[after]=1", "parameter_unknown", "created[after]"),
    ],
)
def test_a_wrong_query_is_refused_and_kept(
    local: LocalStripe, query: str, code: str, param: str
) -> None:
    error = ask(local, f"/v1/invoices?{query}", method="GET").json()["error"]
    assert (error["code"], error["param"]) == (code, param)
    assert len(local.violations()) == 1
    local.clear_violations()


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("GET", "/v1/invoice", "no such operation"),
        ("PUT", "/v1/invoices", "no such operation"),
        ("POST", "/v1/payouts", "operation not served here"),
    ],
)
def test_a_path_that_is_not_served_is_a_404_and_kept(
    local: LocalStripe, method: str, path: str, kind: str
) -> None:
    assert ask(local, path, method=method).status_code == 404
    assert [kept["kind"] for kept in local.violations()] == [kind]
    local.clear_violations()


def test_a_parameter_that_is_not_heeded_is_not_ignored(local: LocalStripe) -> None:
    refused = ask(local, "/v1/customers", "cash_balance[settings][reconciliation_mode]=manual")
    assert "does not heed cash_balance" in refused.json()["error"]["message"]
    assert len(local.violations()) == 1
    local.clear_violations()


def test_another_api_version_is_kept(local: LocalStripe) -> None:
    assert ask(local, "/v1/customers", "name=Ada", version="2020-08-27").status_code == 200
    assert [kept["kind"] for kept in local.violations()] == ["version"]
    local.clear_violations()


@pytest.mark.parametrize("key", ["sk_live_1", "whsec_1", ""])
def test_only_test_keys_open_it(local: LocalStripe, key: str) -> None:
    refused = ask(local, "/v1/customers", key=key)
    assert refused.status_code == 401
    assert "sk_live_1" not in refused.json()["error"]["message"]


def test_an_object_that_is_not_there_is_a_404_by_path_and_a_400_by_parameter(
    client: StripeClient,
) -> None:
    with pytest.raises(stripe.InvalidRequestError) as by_path:
        client.v1.customers.retrieve("cus_none")
    with pytest.raises(stripe.InvalidRequestError) as by_parameter:
        client.v1.invoices.create({"customer": "cus_none"})
    assert (by_path.value.http_status, by_path.value.code) == (404, "resource_missing")
    assert (by_parameter.value.http_status, by_parameter.value.param) == (400, "customer")


def test_metadata_is_merged_and_emptied_as_stripe_does(client: StripeClient) -> None:
    made = client.v1.customers.create({"metadata": {"a": "1", "b": "2"}})
    merged = client.v1.customers.update(made.id, {"metadata": {"b": "", "c": "3"}})
    assert merged.to_dict()["metadata"] == {"a": "1", "c": "3"}
    assert client.v1.customers.update(made.id, {"metadata": ""}).to_dict()["metadata"] == {}


def test_an_empty_value_unsets(client: StripeClient) -> None:
    made = client.v1.customers.create({"name": "Ada", "address": {"city": "Riga"}})
    assert (made.name, made.address and made.address.city) == ("Ada", "Riga")
    cleared = client.v1.customers.update(made.id, {"name": "", "address": ""})
    assert (cleared.name, cleared.address) == (None, None)


def test_what_is_expanded_has_to_be_expandable(client: StripeClient, local: LocalStripe) -> None:
    customer = client.v1.customers.create({})
    local.attach(customer.id)
    expand = ["invoice_settings.default_payment_method"]
    shown = client.v1.customers.retrieve(customer.id, {"expand": expand})
    assert shown.invoice_settings is not None
    method = shown.invoice_settings.default_payment_method
    assert isinstance(method, stripe.PaymentMethod)
    assert method.card is not None
    assert method.card.last4 == "4242"
    [listed] = client.v1.customers.list({"expand": [f"data.{expand[0]}"]}).data
    assert listed.invoice_settings == shown.invoice_settings
    for path in ("nam", "invoice_settings.footer", "data"):
        with pytest.raises(stripe.InvalidRequestError, match="cannot be expanded"):
            client.v1.customers.retrieve(customer.id, {"expand": [path]})


def test_violations_outlast_a_reset(local: LocalStripe) -> None:
    ask(local, "/v1/customers", "nam=Ada")
    local.reset()
    assert len(local.violations()) == 1
    local.clear_violations()
    assert local.violations() == []
