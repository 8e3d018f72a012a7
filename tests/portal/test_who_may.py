"""Who may do what: every address of the portal, by every kind of visitor."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from urllib.parse import urlencode

import pytest
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client
from pytest_django.fixtures import Settings

from billing.models import Account, Budget, Invitation, Membership, Subscription
from billing.services import Actor, Author, credit_amount, invite, issue_api_key
from billing.services.webhook_endpoints import add_endpoint
from payments.models import Customer, PaymentMethod
from soulbox.portal.urls import urlpatterns
from tests.billing.usage import NOON, bill, open_account, record_usage
from tests.portal.conftest import SetClock
from tests.portal.members import add_member, member_of, signed_in, words_of

pytestmark = pytest.mark.django_db

NOW = NOON + timedelta(days=31)
Role = Membership.Role
ANONYMOUS, OTHER_OWNER, STAFF = "anonymous", "other owner", "staff"
VISITORS = (ANONYMOUS, Role.VIEWER, Role.BILLING, Role.OWNER, OTHER_OWNER, STAFF)


@dataclass(frozen=True, slots=True)
class Rule:
    """Who an address answers: everybody, or members from this role on.

    `names_a_row` where the address has the id of something that is the account's.
    """

    path: str
    method: str
    least: Role | None
    names_a_row: bool = False


PUBLIC: dict[str, list[Rule]] = {
    "sign-in": [Rule("/sign-in", "GET", None)],
    "sign-out": [Rule("/sign-out", "POST", None)],
    "password-forgotten": [Rule("/password", "GET", None)],
    "password-mailed": [Rule("/password/mailed", "GET", None)],
    "password-changed": [Rule("/password/changed", "GET", None)],
    "password-new": [Rule("/password/x/y", "GET", None)],
    "sign-up": [Rule("/sign-up", "GET", None)],
    "sign-up-mailed": [Rule("/sign-up/mailed", "GET", None)],
    "sign-up-confirmed": [Rule("/sign-up/x", "GET", None)],
    "invitation": [Rule("/invitations/x", "GET", None), Rule("/invitations/x", "POST", None)],
}
RULES: dict[str, list[Rule]] = PUBLIC | {
    "overview": [Rule("/", "GET", Role.VIEWER)],
    "account": [Rule("/account", "GET", Role.OWNER), Rule("/account", "POST", Role.OWNER)],
    "account-close": [
        Rule("/account/close", "GET", Role.OWNER),
        Rule("/account/close", "POST", Role.OWNER),
    ],
    "account-switch": [Rule("/account-switch", "POST", Role.VIEWER)],
    "invoices": [Rule("/invoices", "GET", Role.VIEWER)],
    "invoice": [Rule("/invoices/{invoice}", "GET", Role.VIEWER, names_a_row=True)],
    "invoice-download": [Rule("/invoices/{invoice}/csv", "GET", Role.VIEWER, names_a_row=True)],
    "credit-note-download": [
        Rule("/credit-notes/{note}/csv", "GET", Role.VIEWER, names_a_row=True)
    ],
    "credits": [Rule("/credits", "GET", Role.VIEWER)],
    "credit-buy": [Rule("/credits/buy", "POST", Role.BILLING)],
    "credit-automatic": [Rule("/credits/automatic", "POST", Role.BILLING)],
    "plan": [Rule("/plan", "GET", Role.VIEWER)],
    "plan-preview": [Rule("/plan/preview?plan=team&interval=monthly", "GET", Role.BILLING)],
    "plan-change": [Rule("/plan/change", "POST", Role.BILLING)],
    "plan-cancel": [Rule("/plan/cancel", "POST", Role.BILLING)],
    "plan-resume": [Rule("/plan/resume", "POST", Role.BILLING)],
    "payment-methods": [Rule("/payment-methods", "GET", Role.VIEWER)],
    "payment-method-add": [Rule("/payment-methods/add", "POST", Role.BILLING)],
    "payment-method-default": [
        Rule("/payment-methods/{method}/default", "POST", Role.BILLING, names_a_row=True)
    ],
    "payment-method-remove": [
        Rule("/payment-methods/{method}/remove", "POST", Role.BILLING, names_a_row=True)
    ],
    "budgets": [Rule("/budgets", "GET", Role.VIEWER), Rule("/budgets", "POST", Role.BILLING)],
    "budget": [
        Rule("/budgets/{budget}", "GET", Role.BILLING, names_a_row=True),
        Rule("/budgets/{budget}", "POST", Role.BILLING, names_a_row=True),
    ],
    "budget-remove": [Rule("/budgets/{budget}/remove", "POST", Role.BILLING, names_a_row=True)],
    "sandboxes": [Rule("/sandboxes", "GET", Role.VIEWER)],
    "sandboxes-live": [Rule("/sandboxes/live", "GET", Role.VIEWER)],
    "api-keys": [Rule("/api-keys", "GET", Role.OWNER)],
    "api-key-create": [Rule("/api-keys/make", "POST", Role.OWNER)],
    "api-key-rotate": [Rule("/api-keys/{key}/rotate", "POST", Role.OWNER, names_a_row=True)],
    "api-key-revoke": [Rule("/api-keys/{key}/revoke", "POST", Role.OWNER, names_a_row=True)],
    "webhooks": [Rule("/webhooks", "GET", Role.OWNER)],
    "webhook-create": [Rule("/webhooks/add", "POST", Role.OWNER)],
    "webhook-rotate": [Rule("/webhooks/{endpoint}/rotate", "POST", Role.OWNER, names_a_row=True)],
    "webhook-remove": [Rule("/webhooks/{endpoint}/remove", "POST", Role.OWNER, names_a_row=True)],
    "members": [Rule("/members", "GET", Role.VIEWER)],
    "member-invite": [Rule("/members/invite", "POST", Role.OWNER)],
    "member-leave": [Rule("/members/leave", "POST", Role.VIEWER)],
    "member-role": [Rule("/members/{member}/role", "POST", Role.OWNER, names_a_row=True)],
    "member-remove": [Rule("/members/{member}/remove", "POST", Role.OWNER, names_a_row=True)],
    "invitation-withdraw": [
        Rule("/members/invitations/{invitation}/withdraw", "POST", Role.OWNER, names_a_row=True)
    ],
}
SAID = {"plan": "team", "interval": "monthly", "role": "viewer", "email": "new@example.com"}
RANK = {Role.VIEWER: 0, Role.BILLING: 1, Role.OWNER: 2}


@pytest.fixture
def account(set_clock: SetClock) -> Account:
    set_clock(NOW)
    account = open_account("Ada", plan_code="professional")
    record_usage(account.pk, NOON, cpu_s=30_000_000)
    return account


@pytest.fixture
def ids(account: Account) -> dict[str, object]:
    """What addresses name: rows of the account's."""
    invoice = bill(account)
    by = Author("Too slow", reference="1")
    note = credit_amount(invoice.pk, Decimal(1), by=by, now=NOW).credit_note
    Customer.objects.create(account=account, standing_since=NOON)
    method = PaymentMethod.objects.create(account=account, provider_id="pm_1", added_at=NOON)
    member = add_member(account, "grace", Role.VIEWER)
    by_owner = Actor(Role.OWNER)
    asked = invite(account.pk, email="bea@example.com", role=Role.VIEWER, by=by_owner, now=NOW)
    return {
        "invoice": invoice.pk,
        "note": note.pk,
        "method": method.pk,
        "member": Membership.objects.get(user=member).pk,
        "invitation": asked.pk,
        "budget": Budget.objects.create(account=account, name="Month", amount=500).pk,
        "key": issue_api_key(account.pk, name="Script", now=NOON).row.pk,
        "endpoint": add_endpoint(account.pk, url="https://example.com/", now=NOON).row.pk,
    }


def visit(visitor: str, account: Account) -> Client:
    """Return the browser of such a visitor."""
    if visitor == ANONYMOUS:
        return Client()
    if visitor == STAFF:
        return signed_in(User.objects.create_superuser("finance"))
    if visitor == OTHER_OWNER:
        return member_of(open_account("Other", plan_code="professional"))
    return member_of(account, Role(visitor))


def expected(rule: Rule, visitor: str) -> str:
    """Return what comes of it."""
    if rule.least is None:
        return "answered"
    if visitor == ANONYMOUS:
        return "to sign in"
    if visitor == STAFF or (visitor == OTHER_OWNER and rule.names_a_row):
        return "not found"
    if visitor == OTHER_OWNER:
        return "answered"
    return "answered" if RANK[Role(visitor)] >= RANK[rule.least] else "not allowed"


def outcome(answer: HttpResponse) -> str:
    """Return what came of it."""
    if answer.status_code == 302 and answer["Location"].startswith("/sign-in?"):
        return "to sign in"
    words = {403: "not allowed", 404: "not found"}
    assert answer.status_code in {200, 302, 403, 404, 410}
    return words.get(answer.status_code, "answered")


@pytest.mark.parametrize("visitor", VISITORS)
@pytest.mark.parametrize("name", list(RULES))
def test_each_visitor_gets_what_they_may(
    name: str, visitor: str, account: Account, ids: dict[str, object], settings: Settings
) -> None:
    settings.SIGN_UP = "open"
    client = visit(visitor, account)
    before = state_of(account)
    for rule in RULES[name]:
        said = SAID | {"account": str(account.pk)} if rule.method == "POST" else {}
        # Theirs is the account that they are in.
        if name == "account-switch" and visitor == OTHER_OWNER:
            said["account"] = str(Account.objects.get(name="Other").pk)
        answer = client.generic(
            rule.method,
            rule.path.format(**ids),
            urlencode(said),
            content_type="application/x-www-form-urlencoded",
        )
        assert outcome(answer) == expected(rule, visitor), answer  # type: ignore[arg-type]  # Django's test client's
        if expected(rule, visitor) != "answered" or visitor == OTHER_OWNER:
            assert state_of(account) == before


def state_of(account: Account) -> list[object]:
    """Return what visitors might change of the account."""
    return [
        Account.objects.filter(pk=account.pk).values().get(),
        list(Membership.objects.filter(account=account).order_by("pk").values()),
        list(Subscription.objects.filter(account=account).order_by("pk").values()),
        list(PaymentMethod.objects.filter(account=account).order_by("pk").values()),
        list(Invitation.objects.filter(account=account).order_by("pk").values()),
        account.top_ups.count(),
        list(account.budgets.order_by("pk").values()),
        list(account.api_keys.order_by("pk").values()),
        list(account.webhook_endpoints.order_by("pk").values()),
    ]


def test_a_form_for_another_account_switches_nowhere(account: Account) -> None:
    client = visit(OTHER_OWNER, account)
    assert client.post("/account-switch", {"account": str(account.pk)}).status_code == 404
    assert "Other" in words_of(client.get("/"))


def test_a_member_of_two_accounts_chooses(account: Account) -> None:
    other = open_account("Zoe")
    user = add_member(account, "both")
    Membership.objects.create(user=user, account=other, role=Role.VIEWER)
    client = signed_in(user)
    assert client.get("/invoices").context["account"] == account
    client.post("/account-switch", {"account": str(other.pk)})
    assert client.get("/invoices").context["account"] == other
    # In the other one they are a viewer.
    assert client.post("/plan/cancel").status_code == 403


def test_every_address_has_its_rule() -> None:
    assert {pattern.name for pattern in urlpatterns} == set(RULES)
