from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoAssertNumQueries

from billing import services
from billing.credits import CreditKind
from billing.models import (
    Account,
    ApiKey,
    CreditEntry,
    CreditGrant,
    DiscountRule,
    Invoice,
    Membership,
    Plan,
    Price,
    PriceBook,
    PriceBookVersion,
    Subscription,
    TopUp,
    UnpricedUsage,
)
from tests.billing import admin_pages
from tests.billing.admin_pages import act, page, text_of
from tests.billing.usage import (
    AFTER_MAY,
    MAY,
    NOON,
    open_account,
    read_streams_until,
    record_first_invoice,
    record_usage,
)

pytestmark = pytest.mark.django_db

LISTS = (
    Account,
    ApiKey,
    CreditEntry,
    CreditGrant,
    DiscountRule,
    Invoice,
    Plan,
    Price,
    PriceBook,
    PriceBookVersion,
    Subscription,
    TopUp,
    UnpricedUsage,
)
PAGES = (*LISTS, Group, User)


@pytest.fixture(autouse=True)
def _it_is_after_may(set_clock: Callable[[datetime], None]) -> None:
    set_clock(AFTER_MAY)


@pytest.fixture
def finance() -> Client:
    return admin_pages.finance()


@pytest.fixture
def viewer() -> Client:
    return admin_pages.viewer()


def an_account_with_everything(name: str = "Ada") -> Account:
    """A row of every table: two periods' usage, its invoice, own prices, credits, top-ups."""
    account = open_account(name, plan_code="professional")
    member = User.objects.create_user(f"user of {name}")
    Membership.objects.create(account=account, user=member, role=Membership.Role.OWNER)
    services.issue_api_key(account.pk, name="ci", now=NOON)
    services.copy_book(
        PriceBook.objects.order_by("pk")[0].pk,
        account_id=account.pk,
        code=name.lower(),
        name=f"{name}'s",
        now=NOON,
    )
    DiscountRule.objects.create(
        name=name, kind="volume", scope="account", account=account, percent=Decimal(1)
    )
    by = services.Gift(CreditKind.PREPAID, Decimal(10), "Bank transfer", "BT-1")
    services.grant_credit(account.pk, by, now=NOON, granted_by_id=member.pk)
    services.request_top_up(account.pk, Decimal(50), now=NOON)
    services.grant_top_up(services.request_top_up(account.pk, Decimal(5), now=NOON).pk, now=NOON)
    record_first_invoice(account.pk)
    record_usage(account.pk, AFTER_MAY, ingress_bytes=10)
    read_streams_until(AFTER_MAY)
    services.draft_due_invoices(AFTER_MAY)
    services.finalise_due_invoices(AFTER_MAY)
    services.draft_current_period(account.pk, now=AFTER_MAY)
    return account


@pytest.mark.parametrize("model", PAGES, ids=lambda model: model.__name__)
def test_every_list_and_row_can_be_opened_and_searched(model: type, finance: Client) -> None:
    an_account_with_everything()
    assert finance.get(page(model)).status_code == 200
    assert finance.get(page(model), {"q": "ada"}).status_code == 200
    rows = model.objects.all()[:3]  # type: ignore[attr-defined]
    assert rows or model is Group
    for row in rows:
        assert finance.get(page(model, row.pk, "change")).status_code == 200


@pytest.mark.parametrize("model", LISTS, ids=lambda model: model.__name__)
def test_a_list_asks_the_same_of_the_database_for_one_account_as_for_many(
    model: type, finance: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    an_account_with_everything()
    with CaptureQueriesContext(connection) as few:
        finance.get(page(model))
    for name in ("Eve", "Bob", "Zoe"):
        an_account_with_everything(name)
    with django_assert_max_num_queries(len(few)):
        finance.get(page(model))


@pytest.mark.parametrize("model", [Account, CreditGrant, Invoice, PriceBookVersion])
def test_a_row_asks_the_same_of_the_database_for_few_rows_inside_it_as_for_many(
    model: type, finance: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    account = an_account_with_everything()
    row = model.objects.order_by("pk")[0]  # type: ignore[attr-defined]
    with CaptureQueriesContext(connection) as few:
        finance.get(page(model, row.pk, "change"))
    for hours, plan in enumerate(("team", "professional", "team")):
        services.subscribe(account.pk, plan_code=plan, now=AFTER_MAY + timedelta(hours=hours))
    version = PriceBookVersion.objects.order_by("pk")[0]
    version.prices.create(meter="disk_read", unit_price=Decimal(1))
    services.revoke_credit(
        CreditGrant.objects.order_by("pk")[0].pk, by=services.ByHand(reason="x"), now=AFTER_MAY
    )
    with django_assert_max_num_queries(len(few)):
        finance.get(page(model, row.pk, "change"))


@pytest.mark.parametrize(
    "model", [Invoice, CreditEntry, CreditGrant, ApiKey, Subscription, TopUp, UnpricedUsage]
)
def test_figures_cannot_be_written_by_hand(model: type, finance: Client) -> None:
    an_account_with_everything()
    row = model.objects.first()  # type: ignore[attr-defined]
    assert finance.post(page(model, row.pk, "change"), {}).status_code == 403
    assert finance.post(page(model, row.pk, "delete"), {"post": "yes"}).status_code == 403


@pytest.mark.parametrize("model", [Invoice, CreditEntry, ApiKey, UnpricedUsage])
def test_what_only_services_make_cannot_be_added(model: type, finance: Client) -> None:
    assert finance.post(page(model, "add"), {}).status_code == 403


@pytest.mark.parametrize("model", LISTS, ids=lambda model: model.__name__)
def test_who_may_only_look_can_add_nothing(model: type, viewer: Client) -> None:
    assert viewer.get(page(model)).status_code == 200
    assert viewer.get(page(model, "add")).status_code == 403


def test_who_may_only_look_can_do_nothing(viewer: Client) -> None:
    account = an_account_with_everything()
    services.park_account(account.pk, reason="under review", now=NOON)
    entries = CreditEntry.objects.count()
    for model, action in (
        (Account, "issue_api_key"),
        (Account, "unpark"),
        (Account, "draft_current_period"),
        (ApiKey, "revoke"),
        (Invoice, "finalise"),
        (Subscription, "cancel_chosen"),
        (CreditGrant, "revoke_chosen"),
        (TopUp, "grant_chosen"),
        (TopUp, "give_up_chosen"),
    ):
        rows = model.objects.values_list("pk", flat=True)
        act(viewer, model, action, *rows, reason="x")
    assert ApiKey.objects.get().revoked_at is None
    account.refresh_from_db()
    assert account.parked_reason == "under review"
    # Of May, of the top-up, and the draft of June.
    assert Invoice.objects.count() == 3
    assert Subscription.objects.get().expires_at is None
    assert CreditEntry.objects.count() == entries
    assert TopUp.objects.filter(grant=None, given_up_at=None).exists()


@pytest.mark.parametrize(
    ("model", "button"),
    [
        (Account, "change_cycle"),
        (Account, "set_top_up"),
        (Account, "use_credit"),
        (PriceBook, "start_version"),
        (PriceBook, "copy_as_own"),
        (PriceBookVersion, "add_price"),
        (Subscription, "cancel"),
        (Subscription, "cancel_now"),
        (Subscription, "resume"),
        (Subscription, "change_plan"),
        (CreditGrant, "revoke"),
        (TopUp, "money_is_here"),
        (TopUp, "give_up"),
    ],
)
def test_a_button_is_for_who_has_the_right(
    model: type, button: str, finance: Client, viewer: Client
) -> None:
    an_account_with_everything()
    row = model.objects.first()  # type: ignore[attr-defined]
    address = page(model, row.pk, button)
    assert address in text_of(finance.get(page(model, row.pk, "change")))
    assert address not in text_of(viewer.get(page(model, row.pk, "change")))
    assert finance.get(address).status_code in {200, 302}
    assert viewer.get(address).status_code == 403
    assert viewer.post(address, admin_pages.ANSWERED).status_code == 403
    nowhere = "00000000-0000-4000-8000-000000000000" if model is Account else "999"
    assert finance.get(page(model, nowhere, button)).status_code == 404


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
    assert services.authenticate_api_key(issued.key, now=datetime.now(UTC)) is None


def test_the_current_period_can_be_drafted_and_its_draft_not_finalised_early(
    finance: Client,
) -> None:
    account = services.open_account(name="Ada", now=AFTER_MAY)
    assert "0.00 USD so far" in act(finance, Account, "draft_current_period", account.pk)
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


def test_an_invoice_shows_parts_discounts_and_the_credit_used(finance: Client) -> None:
    version = PriceBookVersion.objects.get()
    version.prices.filter(meter="cpu").update(free_units=Decimal(600), minimum=Decimal(900))
    account = open_account()
    gift = services.Gift(CreditKind.PREPAID, Decimal(10), "Bank transfer", "BT-1")
    services.grant_credit(account.pk, gift, now=NOON)
    record_first_invoice(account.pk)
    read_streams_until(AFTER_MAY)
    draft = services.draft_invoice(account.pk, period=MAY, now=MAY.end)
    services.finalise_invoice(draft.pk, now=AFTER_MAY)
    shown = text_of(finance.get(page(Invoice, draft.pk, "change")))
    for text in ("free: 600", "units: 3000 × 0.000012", "minimum 900", "Volume 500", "10.00 USD"):
        assert text in shown


def test_unpriced_usage_is_listed_with_its_reason(finance: Client) -> None:
    an_account_with_everything()
    shown = text_of(finance.get(page(UnpricedUsage)))
    assert "meter_not_charged" in shown
    assert "network_ingress_gb" in shown
