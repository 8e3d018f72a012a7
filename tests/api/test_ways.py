"""What every endpoint does alike: refusals, pages, ETags, ids and limits."""

from __future__ import annotations

from datetime import timedelta
from http import HTTPStatus

import pytest
from django.contrib.auth.models import User
from django.db import DataError, connection, transaction
from django.test import Client

from billing import services
from billing.api.problems import CODES
from billing.models import Account, Invoice, Membership
from soulbox.doors import LARGEST_BODY_BYTES, _within
from tests.api.calling import Api
from tests.billing.usage import NOON, bill, open_account, record_first_invoice

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("invoices?page=1000000000", 400, "unknown_parameter"),
        ("invoices?page_size=1000000000", 400, "page_size_invalid"),
        ("invoices?page_size=0", 400, "page_size_invalid"),
        ("invoices?page_size=%C2%B2", 400, "page_size_invalid"),
        ("invoices?cursor=cj0xJnA9MTAwMA%3D%3D%3D", 400, "cursor_invalid"),
        ("invoices?status=%00", 400, "nul_byte"),
        ("invoices/1%00", 400, "nul_byte"),
        ("invoices/999999999", 404, "not_found"),
        ("invoices/99999999999999999999999", 404, "not_found"),
        ("no-such-thing", 404, "not_found"),
        ("usage/coverage?start=1926-01-01&end=2026-01-01", 400, "invalid"),
    ],
)
def test_each_refusal_has_its_code(path: str, status: int, code: str) -> None:
    answer = Api.by_key(open_account().pk).get(path)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), problem
    assert answer["Content-Type"] == "application/problem+json"
    assert problem["type"] == f"/api/problems#{code}"
    assert problem["title"] == HTTPStatus(status).phrase
    assert problem["request_id"] == answer["X-Request-ID"]


def test_a_body_over_the_limit_is_refused_unread() -> None:
    api = Api.by_key(open_account().pk)
    answer = api.post("payment-methods", b" " * (LARGEST_BODY_BYTES + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert api.post("payment-methods", b" " * 10_000_000).status_code == 413


def test_bodies_that_cannot_be_read_have_their_code() -> None:
    api = Api.by_key(open_account().pk)
    for body in (b"{", b"[" * 100_000, b"\xff", b"nothing", b'"\\ud800"', b"NaN"):
        answer = api.post("payment-methods", body)
        assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
    for media_type in ("text/plain", "application/xml", "multipart/form-data; boundary=x"):
        answer = api.client.post(
            "/api/v1/payment-methods", b"x", content_type=media_type, headers=api.headers
        )
        assert (answer.status_code, answer.json()["code"]) == (415, "media_type_unsupported")
    assert api.send("PUT", "payment-methods", {}).json()["code"] == "method_not_allowed"
    assert api.get("invoices", Accept="text/html").json()["code"] == "not_acceptable"


def test_unknown_fields_are_named() -> None:
    api = Api.by_key(open_account().pk)
    answer = api.post("payment-methods", {"flow": "portal", "account": "x", "price": 1})
    assert answer.status_code == 400
    assert {error["field"] for error in answer.json()["errors"]} == {"account", "price"}
    assert {error["code"] for error in answer.json()["errors"]} == {"unknown_field"}


def test_every_code_is_explained() -> None:
    answer = Client().get("/api/problems")
    assert answer.json()["codes"] == CODES


def an_invoice(account: Account) -> Invoice:
    record_first_invoice(account.pk)
    return bill(account)


def test_what_has_not_changed_is_not_sent_again() -> None:
    invoice = an_invoice(open_account())
    api = Api.by_key(invoice.account_id)
    first = api.get(f"invoices/{invoice.pk}")
    assert first["Cache-Control"] == "private, no-cache"
    again = api.get(f"invoices/{invoice.pk}", **{"If-None-Match": first["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = api.get("invoices", **{"If-None-Match": first["ETag"]})
    assert other.status_code == 200


@pytest.mark.parametrize(("given", "is_kept"), [("trace-1234", True), ("a b", False), ("x", False)])
def test_each_answer_names_its_request(given: str, is_kept: bool) -> None:  # noqa: FBT001
    answer = Api.by_key(open_account().pk).get("invoices", **{"X-Request-ID": given})
    assert (answer["X-Request-ID"] == given) is is_kept
    assert len(answer["X-Request-ID"]) >= 8


def test_keys_say_why_they_are_refused() -> None:
    account = open_account()
    issued = services.issue_api_key(
        account.pk, name="old", now=NOON, expires_at=NOON + timedelta(days=1)
    )
    seen = {
        "key_unknown": "sbx_live_" + "x" * 43,
        "key_expired": issued.key,
    }
    for code, key in seen.items():
        answer = Client().get("/api/v1/invoices", headers={"Authorization": f"Bearer {key}"})
        assert (answer.status_code, answer.json()["code"]) == (401, code)
        assert answer["WWW-Authenticate"] == "Bearer"
    assert Client().get("/api/v1/invoices").json()["code"] == "not_authenticated"


def test_scopes_and_roles_bound_what_a_caller_may() -> None:
    account = open_account()
    body = {"flow": "nonsense"}
    for api, status in (
        (Api.by_key(account.pk, "read"), 403),
        (Api.by_key(account.pk, "write"), 400),
        (Api.by_member(account, Membership.Role.VIEWER), 403),
        (Api.by_member(account, Membership.Role.BILLING), 400),
        (Api.by_member(account, Membership.Role.OWNER), 400),
    ):
        answer = api.post("payment-methods", body)
        assert answer.status_code == status
        if status == 403:
            assert answer.json()["code"] == "scope_missing"
    assert Api.by_key(account.pk, "write").get("invoices").json()["code"] == "scope_missing"


def test_a_browser_that_writes_sends_its_token() -> None:
    account = open_account()
    user = User.objects.create_user("ada")
    Membership.objects.create(user=user, account=account, role=Membership.Role.OWNER)
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(user)
    assert browser.get("/api/v1/invoices").status_code == 200
    answer = browser.post("/api/v1/payment-methods", {}, content_type="application/json")
    assert (answer.status_code, answer.json()["code"]) == (403, "csrf_failed")


def test_who_is_signed_in_without_an_account_is_told_so() -> None:
    client = Client()
    client.force_login(User.objects.create_user("staff", is_staff=True))
    answer = client.get("/api/v1/invoices")
    assert (answer.status_code, answer.json()["code"]) == (403, "no_account")


def test_a_session_is_of_the_account_it_chose() -> None:
    first, second = open_account("Ada"), open_account("Eve")
    client = Client()
    user = User.objects.create_user("both")
    for account in (first, second):
        Membership.objects.create(user=user, account=account, role=Membership.Role.VIEWER)
    client.force_login(user)
    of_second = an_invoice(second)
    assert client.get(f"/api/v1/invoices/{of_second.pk}").status_code == 404
    session = client.session
    session["account"] = str(second.pk)
    session.save()
    assert client.get(f"/api/v1/invoices/{of_second.pk}").status_code == 200


@pytest.mark.django_db(transaction=True)
def test_statements_of_the_api_are_bounded_and_others_are_not() -> None:
    def limit() -> str:
        with connection.cursor() as cursor:
            cursor.execute("SHOW statement_timeout")
            return str(cursor.fetchone()[0])

    client = Client()
    client.get("/api/v1/plans")
    assert limit() == "5s"
    client.get("/admin/login/")
    client.force_login(User.objects.create_superuser("root"))
    client.get("/admin/")
    assert limit() == "0"


def test_a_statement_that_failed_is_rolled_back_to_before_it() -> None:
    begun = transaction.get_connection().connection
    setattr(begun, "soulbox_statement_time_ms", -1)  # noqa: B010 - as on a new connection
    with connection.execute_wrapper(_within(5000)):
        with pytest.raises(DataError), transaction.atomic():
            connection.cursor().execute("SELECT 1 / 0")
        connection.cursor().execute("SELECT 1")
