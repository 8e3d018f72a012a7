from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoAssertNumQueries

from billing import services
from billing.models import (
    Account,
    ApiKey,
    CreditEntry,
    CreditGrant,
    Invoice,
    Membership,
    Plan,
    PriceBook,
    PriceBookVersion,
    Subscription,
)
from metering.models import AccountRegistration
from tests.billing.usage import (
    AFTER_MAY,
    MAY,
    NOON,
    open_account,
    read_streams_until,
    record_first_invoice,
)

pytestmark = pytest.mark.django_db

PAGES = (
    Account,
    ApiKey,
    CreditEntry,
    CreditGrant,
    Group,
    Invoice,
    Plan,
    PriceBook,
    PriceBookVersion,
    Subscription,
    User,
)
NO_ROWS = {"TOTAL_FORMS": "0", "INITIAL_FORMS": "0"}


@pytest.fixture(autouse=True)
def _it_is_after_may(set_clock: Callable[[datetime], None]) -> None:
    set_clock(AFTER_MAY)


@pytest.fixture
def finance() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("finance"))
    return client


@pytest.fixture
def viewer() -> Client:
    """Someone who may look at everything, and no more."""
    user = User.objects.create_user("viewer", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client = Client()
    client.force_login(user)
    return client


def page(model: type[object], *rest: object) -> str:
    app = "auth" if model in {Group, User} else "billing"
    name = f"{app}/{model.__name__.lower()}"
    return "/admin/" + "/".join([name, *map(str, rest)]) + "/"


def act(client: Client, model: type[object], action: str, *rows: object) -> str:
    response = client.post(
        page(model),
        {"action": action, "_selected_action": [str(row) for row in rows]},
        follow=True,
    )
    assert response.status_code == 200
    return response.content.decode()


def a_month_invoiced() -> Account:
    account = open_account(plan_code="professional")
    Membership.objects.create(
        account=account, user=User.objects.create_user("ada"), role=Membership.Role.OWNER
    )
    services.issue_api_key(account.pk, name="ci", now=NOON)
    record_first_invoice(account.pk)
    read_streams_until(AFTER_MAY)
    services.draft_due_invoices(AFTER_MAY)
    services.finalise_due_invoices(AFTER_MAY)
    return account


@pytest.mark.parametrize("model", PAGES, ids=lambda model: model.__name__)
def test_every_list_and_row_can_be_opened_and_searched(model: type, finance: Client) -> None:
    a_month_invoiced()
    assert finance.get(page(model)).status_code == 200
    assert finance.get(page(model), {"q": "ada"}).status_code == 200
    for row in model.objects.all()[:2]:  # type: ignore[attr-defined]
        assert finance.get(page(model, row.pk, "change")).status_code == 200


@pytest.mark.parametrize("model", [Account, Invoice, Subscription, CreditEntry, CreditGrant])
def test_a_list_asks_the_same_of_the_database_for_one_row_as_for_many(
    model: type, finance: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    a_month_invoiced()
    with CaptureQueriesContext(connection) as few:
        finance.get(page(model))
    for name in ("Eve", "Bob", "Zoe"):
        open_account(name, plan_code="team")
    services.draft_due_invoices(AFTER_MAY)
    with django_assert_max_num_queries(len(few)):
        finance.get(page(model))


def test_an_account_added_here_is_known_to_metering(finance: Client) -> None:
    form = {"name": "Ada", "currency": "usd", "time_zone": "Europe/Berlin", "tax_rate": "0.19"}
    inlines = {
        f"{prefix}-{field}": value
        for prefix in ("memberships", "subscriptions", "api_keys")
        for field, value in NO_ROWS.items()
    }
    response = finance.post(page(Account, "add"), form | inlines)
    assert response.status_code == 302
    account = Account.objects.get()
    assert (account.name, account.currency) == ("Ada", "USD")
    assert AccountRegistration.objects.get().account_id == account.pk


@pytest.mark.parametrize(
    ("field", "value"), [("time_zone", "Mars/Olympus"), ("currency", "1ST"), ("currency", "€")]
)
def test_an_account_with_an_unknown_zone_or_currency_is_refused_with_a_message(
    finance: Client, field: str, value: str
) -> None:
    form = {"name": "Ada", "currency": "USD", "time_zone": "UTC", "tax_rate": "0", field: value}
    response = finance.post(page(Account, "add"), form)
    assert response.status_code == 200
    assert field in response.context["adminform"].form.errors
    assert not Account.objects.exists()


def test_an_issued_key_is_shown_once_and_works(finance: Client) -> None:
    account = open_account()
    shown = act(finance, Account, "issue_api_key", account.pk)
    [key] = re.findall(r"sbx_live_[\w-]+", shown)
    assert services.authenticate_api_key(key, now=NOON) == ApiKey.objects.get()
    for path in (page(Account), page(Account, account.pk, "change"), page(ApiKey)):
        assert key not in finance.get(path).content.decode()


def test_a_key_can_be_revoked(finance: Client) -> None:
    issued = services.issue_api_key(open_account().pk, name="ci", now=NOON)
    act(finance, ApiKey, "revoke", issued.row.pk)
    assert services.authenticate_api_key(issued.key, now=NOON) is None


def test_a_parked_account_can_be_unparked(finance: Client) -> None:
    account = open_account()
    services.park_account(account.pk, reason="under review", now=NOON)
    act(finance, Account, "unpark", account.pk)
    account.refresh_from_db()
    assert account.parked_reason == ""


def test_a_subscription_added_here_takes_the_place_of_the_old_one(finance: Client) -> None:
    account = open_account(plan_code="professional")
    team = Plan.objects.get(code="team")
    response = finance.post(
        page(Subscription, "add"), {"account": str(account.pk), "plan": team.pk, "monthly_fee": ""}
    )
    assert response.status_code == 302
    assert Subscription.objects.get(ended_at=None).plan == team
    assert Subscription.objects.count() == 2


def test_a_refused_subscription_says_why(finance: Client) -> None:
    account = open_account()
    enterprise = Plan.objects.get(code="enterprise")
    response = finance.post(
        page(Subscription, "add"),
        {"account": str(account.pk), "plan": enterprise.pk, "monthly_fee": ""},
        follow=True,
    )
    assert "agree one" in response.content.decode()
    assert not Subscription.objects.exists()


def test_the_current_month_can_be_drafted_and_its_draft_not_finalised_early(
    finance: Client,
) -> None:
    account = services.open_account(name="Ada", now=AFTER_MAY)
    assert "0 USD so far" in act(finance, Account, "draft_current_month", account.pk)
    invoice = Invoice.objects.get()
    assert "Draft" in act(finance, Invoice, "draft_again", invoice.pk)
    assert "the grace for late readings" in act(finance, Invoice, "finalise", invoice.pk)
    assert Invoice.objects.get().status == Invoice.Status.DRAFT


def test_a_due_draft_can_be_finalised(finance: Client) -> None:
    account = open_account()
    record_first_invoice(account.pk)
    read_streams_until(AFTER_MAY)
    draft = services.draft_invoice(account.pk, period=MAY, now=MAY.end)
    assert "Pending" in act(finance, Invoice, "finalise", draft.pk)
    assert "Pending" in act(finance, Invoice, "finalise", draft.pk)
    assert Invoice.objects.get().number is not None


@pytest.mark.parametrize("model", [Invoice, CreditEntry, CreditGrant, ApiKey])
def test_figures_cannot_be_written_by_hand(model: type, finance: Client) -> None:
    a_month_invoiced()
    row = model.objects.first()  # type: ignore[attr-defined]
    assert finance.post(page(model, row.pk, "change"), {}).status_code == 403
    assert finance.post(page(model, "add"), {}).status_code == 403
    assert finance.post(page(model, row.pk, "delete"), {"post": "yes"}).status_code == 403


def test_who_may_only_look_can_do_nothing(viewer: Client) -> None:
    account = a_month_invoiced()
    services.park_account(account.pk, reason="under review", now=NOON)
    for model, action in (
        (Account, "issue_api_key"),
        (Account, "unpark"),
        (Account, "draft_current_month"),
        (ApiKey, "revoke"),
        (Invoice, "finalise"),
    ):
        row = model.objects.get()
        act(viewer, model, action, row.pk)
    assert ApiKey.objects.get().revoked_at is None
    account.refresh_from_db()
    assert account.parked_reason == "under review"
    assert Invoice.objects.count() == 1


def test_prices_in_force_stay_and_those_ahead_can_be_edited(finance: Client) -> None:
    in_force = PriceBookVersion.objects.get()
    assert (
        b'name="prices-0-unit_price"'
        not in finance.get(page(PriceBookVersion, in_force.pk, "change")).content
    )
    start = AFTER_MAY + timedelta(days=30)
    in_force.effective_to = start
    in_force.save(update_fields=["effective_to"])
    ahead = PriceBookVersion.objects.create(book=PriceBook.objects.get(), effective_from=start)
    ahead.prices.create(meter="cpu", unit_price="0.00001")
    assert (
        b'name="prices-0-unit_price"'
        in finance.get(page(PriceBookVersion, ahead.pk, "change")).content
    )
