"""Who gets which answer of every operation in the OpenAPI document. One without a row fails."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client

from billing import services
from billing.api.callers import Scope
from billing.explain_queries import explain_line
from billing.models import Account, Invoice, Membership, WebhookEndpoint
from metering.models import Host
from payments.models import Customer, PaymentMethod
from tests.api.calling import ALL_SCOPES, Api
from tests.billing.test_explain import tiered_invoice
from tests.billing.usage import NOON, open_account

pytestmark = pytest.mark.django_db

READ, WRITE, METERING, ADMIN = Scope.READ, Scope.WRITE, Scope.METERING, Scope.ADMIN


@dataclass(frozen=True)
class Row:
    """What an operation takes and answers to who may, sent without a body.

    `query` is what it cannot do without. Where the path names something of the account, another
    tenant does not find it; where it names nothing, they get their own, with the same status.
    """

    scope: str
    status: int
    query: str = ""
    # What another tenant gets of their own, where that is another status.
    elsewhere: int = 0


ROWS: Mapping[str, Row] = {
    "GET account": Row(READ, 200),
    "PATCH account": Row(ADMIN, 200),
    # An invoice is not paid; of another tenant there is none.
    "POST account/close": Row(ADMIN, 409, elsewhere=202),
    "GET api-keys": Row(ADMIN, 200),
    "POST api-keys": Row(ADMIN, 400),
    "DELETE api-keys/{id}": Row(ADMIN, 204),
    "POST api-keys/{id}/rotate": Row(ADMIN, 201),
    "GET budgets": Row(READ, 200),
    "POST budgets": Row(WRITE, 400),
    "GET budgets/{id}": Row(READ, 200),
    "PATCH budgets/{id}": Row(WRITE, 200),
    "DELETE budgets/{id}": Row(WRITE, 204),
    "GET credit-notes": Row(READ, 200),
    "GET credit-notes/{id}/download": Row(READ, 200, "format=json"),
    "GET credits": Row(READ, 200),
    "GET credits/entries": Row(READ, 200),
    "GET events": Row(READ, 200),
    "GET events/{id}": Row(READ, 200),
    "POST events/{id}/redeliver": Row(ADMIN, 202),
    "GET invoices": Row(READ, 200),
    "GET invoices/{id}": Row(READ, 200),
    "GET invoices/{id}/download": Row(READ, 200, "format=json"),
    "GET invoices/{id}/explain": Row(READ, 200),
    "GET invoices/{id}/lines": Row(READ, 200),
    "GET invoices/{id}/lines/{line}/explain": Row(READ, 200),
    "GET invoices/{id}/lines/{line}/lives/{life}": Row(READ, 200),
    "GET invoices/{id}/payment": Row(READ, 200),
    "GET members": Row(READ, 200),
    "GET members/invitations": Row(READ, 200),
    "POST members/invitations": Row(ADMIN, 400),
    "DELETE members/invitations/{invitation}": Row(ADMIN, 204),
    "PATCH members/{id}": Row(ADMIN, 200),
    "DELETE members/{id}": Row(ADMIN, 204),
    "GET payment-methods": Row(READ, 200),
    # Stripe is not set up in these tests, and what is asked for is read before it is missed.
    "POST payment-methods": Row(WRITE, 503),
    "DELETE payment-methods/{id}": Row(WRITE, 503),
    "POST payment-methods/{id}/default": Row(WRITE, 503),
    "GET sandboxes": Row(READ, 200),
    "GET sandboxes/{sandbox_id}": Row(READ, 200),
    "POST sandboxes/{sandbox_id}/collect": Row(METERING, 200),
    "GET sandboxes/{sandbox_id}/usage": Row(READ, 200),
    "GET standing": Row(READ, 200),
    "GET subscription": Row(READ, 200),
    "POST subscription": Row(WRITE, 400),
    "POST subscription/cancel": Row(WRITE, 200),
    "POST subscription/resume": Row(WRITE, 200),
    "GET usage/costs": Row(READ, 200, "start=2026-05-01T00:00:00Z&end=2026-06-01T00:00:00Z"),
    "GET usage/coverage": Row(READ, 200, "start=2026-05-01&end=2026-06-01"),
    "GET usage/current": Row(READ, 200),
    "GET usage/history": Row(
        READ, 200, "start_date=2026-05-01&end_date=2026-06-01&granularity=day"
    ),
    "GET usage/summary/{period}": Row(READ, 200),
    "GET webhook-endpoints": Row(ADMIN, 200),
    "POST webhook-endpoints": Row(ADMIN, 400),
    "GET webhook-endpoints/{id}": Row(ADMIN, 200),
    "PATCH webhook-endpoints/{id}": Row(ADMIN, 200),
    "DELETE webhook-endpoints/{id}": Row(ADMIN, 204),
    "GET webhook-endpoints/{id}/deliveries": Row(ADMIN, 200),
    "POST webhook-endpoints/{id}/ping": Row(ADMIN, 202),
    "POST webhook-endpoints/{id}/rotate": Row(ADMIN, 201),
}
# Behind keys of other kinds, or none: tested where they are made.
NOT_OF_AN_ACCOUNT = {
    "GET plans",
    "POST metering/samples",
    "POST metering/sandboxes/{sandbox_id}/collect",
}
PREFIX = "/api/v1/"

# Of a path; what they name belongs to nobody.
NAMES_NOTHING: dict[str, Any] = {"period": "current"}


def operations() -> dict[str, Any]:
    """Return what the document has, as ROWS names it."""
    written = StringIO()
    call_command("spectacular", "--format=openapi-json", stdout=written)
    document = json.loads(written.getvalue())
    return {
        f"{method.upper()} {path.removeprefix(PREFIX)}": operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    }


def test_every_operation_has_a_row() -> None:
    assert set(operations()) == set(ROWS) | NOT_OF_AN_ACCOUNT


class Tenant:
    """An account with one of each thing that a path can name."""

    def __init__(self) -> None:
        self.invoice = tiered_invoice()
        self.account: Account = self.invoice.account
        explained = life_of(self.invoice.pk)
        note = credit_note_of(self.invoice)
        # There is no engine behind the host of its sandbox to be asked.
        Host.objects.update(is_active=False)
        Customer.objects.create(account=self.account, provider_id="cus_1", standing_since=NOON)
        card = PaymentMethod.objects.create(
            account=self.account,
            provider_id="pm_1",
            kind="card",
            brand="visa",
            last4="4242",
            expires_month=4,
            expires_year=2099,
            added_at=NOON,
        )
        # Nobody rotates a key that may do more than theirs.
        key = services.issue_api_key(self.account.pk, name="its own", scopes=[ADMIN], now=NOON)
        self.made = 0
        self.names: dict[str, dict[str, Any]] = {
            "api-keys": {"id": key.row.pk},
            "budgets": {"id": self.budget},
            "events": {"id": self.event},
            "members": {"id": self.member, "invitation": self.invitation},
            "webhook-endpoints": {"id": self.endpoint},
            "invoices": {"id": self.invoice.pk, "line": 2, "life": explained},
            "credit-notes": {"id": note},
            "payment-methods": {"id": card.pk},
            "sandboxes": {"sandbox_id": "sbx-1"},
            "usage": NAMES_NOTHING,
        }

    def path(self, template: str) -> str:
        return template.format(**self.names_of(template))

    def names_of(self, template: str) -> dict[str, object]:
        """Return what the path's parameters name; what a call takes away is made for each."""
        names = self.names.get(template.split("/", maxsplit=1)[0], {})
        return {name: value() if callable(value) else value for name, value in names.items()}

    def budget(self) -> int:
        self.made += 1
        terms = services.BudgetChange(name=f"Budget {self.made}", amount=Decimal(5))
        return services.create_budget(self.account.pk, terms).pk

    def member(self) -> int:
        self.made += 1
        user = User.objects.create_user(f"member {self.made}")
        return Membership.objects.create(
            user=user, account=self.account, role=Membership.Role.VIEWER
        ).pk

    def invitation(self) -> str:
        self.made += 1
        by = services.Actor(Membership.Role.OWNER)
        email = f"{self.made}@example.com"
        role = Membership.Role.VIEWER
        return str(services.invite(self.account.pk, email=email, role=role, by=by, now=NOON).pk)

    def endpoint(self) -> str:
        return str(self._endpoint().pk)

    def event(self) -> str:
        return str(services.ping_endpoint(self._endpoint().pk, now=NOON).pk)

    def _endpoint(self) -> WebhookEndpoint:
        # None lasts, for there may be so many.
        for old in self.account.webhook_endpoints.filter(removed_at=None):
            services.remove_endpoint(old.pk, now=NOON)
        return services.add_endpoint(self.account.pk, url="https://8.8.8.8/", now=NOON).row


def life_of(invoice_id: int) -> int:
    told = explain_line(invoice_id, 2)
    assert told.sandboxes
    return told.sandboxes.page[0].lives[0].life.life_id


def credit_note_of(invoice: Invoice) -> int:
    by = services.Author("Too slow", reference="1")
    services.credit_amount(invoice.pk, Decimal(1), by=by, now=NOON + timedelta(days=60))
    return int(invoice.credit_notes.get().pk)


@pytest.fixture
def tenant() -> Tenant:
    return Tenant()


def revoked(account: Account) -> Api:
    api = Api.by_key(account.pk)
    newest = account.api_keys.latest("pk")
    services.revoke_api_key(newest.pk, now=NOON)
    return api


def staff(account: Account) -> Api:
    del account
    client = Client()
    client.force_login(User.objects.create_user("staff", is_staff=True, is_superuser=True))
    return Api(client, {})


def without(scope: str) -> Callable[[Account], Api]:
    return lambda account: Api.by_key(account.pk, *(set(ALL_SCOPES) - {scope}))


def only(scope: str) -> Callable[[Account], Api]:
    return lambda account: Api.by_key(account.pk, scope)


def member(role: Membership.Role) -> Callable[[Account], Api]:
    return lambda account: Api.by_member(account, role)


def answers(row: Row) -> Iterator[tuple[str, Callable[[Account], Api], int, str]]:
    """Yield each kind of caller, and the status and code that it gets."""
    yield "anonymous", lambda _: Api.anonymous(), 401, "not_authenticated"
    yield "revoked key", revoked, 401, "key_unknown"
    yield "staff", staff, 403, "no_account"
    yield "key without the scope", without(row.scope), 403, "scope_missing"
    yield "key of the scope", only(row.scope), row.status, ""
    scopes_of = {
        Membership.Role.VIEWER: {READ},
        Membership.Role.BILLING: {READ, WRITE},
        Membership.Role.OWNER: set(Scope),
    }
    for role, scopes in scopes_of.items():
        if row.scope in scopes:
            yield role, member(role), row.status, ""
        else:
            yield role, member(role), 403, "scope_missing"


@pytest.mark.parametrize("operation", ROWS)
def test_each_caller_gets_what_it_may(tenant: Tenant, operation: str) -> None:
    row = ROWS[operation]
    for who, caller, status, code in answers(row):
        answer = ask(caller(tenant.account), tenant, operation)
        assert answer.status_code == status, (who, answer.content[:300])
        if code:
            assert answer.json()["code"] == code, who


@pytest.mark.parametrize("operation", ROWS)
def test_another_tenant_finds_nothing_of_it(tenant: Tenant, operation: str) -> None:
    stranger = open_account("Eve", plan_code="team")
    ask_as = (member(Membership.Role.OWNER)(stranger), Api.by_key(stranger.pk))
    names_something = "{" in operation and not operation.endswith("{period}")
    for api in ask_as:
        answer = ask(api, tenant, operation)
        row = ROWS[operation]
        assert answer.status_code == (404 if names_something else row.elsewhere or row.status)
        said = answer.content.decode(errors="replace")
        assert str(tenant.account.pk) not in said
        assert tenant.invoice.number not in said


def ask(api: Api, tenant: Tenant, operation: str) -> Any:
    method, template = operation.split(" ")
    path = tenant.path(template)
    query = ROWS[operation].query
    if method == "GET":
        return api.get(f"{path}?{query}" if query else path)
    return api.send(method, path)
