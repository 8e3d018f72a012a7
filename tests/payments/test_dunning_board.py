"""The dunning board: what it says of each case, its sums, and what is done from it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest
from django.db import connection, connections
from django.test import Client
from django.test.utils import CaptureQueriesContext

from billing.models import Account
from payments.dunning_board import AGES, debts, sums_by_currency, with_owed
from payments.models import (
    Collection,
    CollectionPart,
    Customer,
    DunningCase,
    PaymentAttempt,
    PaymentMethod,
)
from payments.owed import owed
from payments.services.dunning import refresh_account
from tests.billing import admin_pages
from tests.billing.admin_pages import page, press, text_of, viewer
from tests.billing.test_desk_lists import final_invoices
from tests.billing.usage import MAY, OPENED
from tests.local_stripe import LocalStripe
from tests.payments.arrears import DAY, Debtor, another_invoice_of, dun
from tests.payments.month import BILLED, collect, collection_of
from tests.payments.test_offline import credit, record

pytestmark = pytest.mark.django_db
MOST_QUERIES = 20


@pytest.fixture
def finance() -> Client:
    return admin_pages.finance()


def board(client: Client, **query: str) -> str:
    response = client.get(page(DunningCase), query)
    assert response.status_code == 200
    return text_of(response)


def test_a_row_says_who_owes_what_since_when_why_and_what_comes_next(
    stripe: LocalStripe, finance: Client
) -> None:
    debtor = Debtor(stripe, "pm_card_visa_chargeDeclinedInsufficientFunds")
    record(debtor.account, "10")
    DunningCase.objects.update(opened_at=datetime.now(UTC) - 5 * DAY)
    text = board(finance)
    for said in (
        "Dunning board",
        "Ada",
        str(debtor.invoice),
        "26.00 USD",
        "There is not enough money on the card's account. (insufficient_funds)",
        "charge the card",
        "visa …9995",
        "past due",
        "Past due: 1 accounts; suspended: 0.",
    ):
        assert said in text
    [debt] = debts(with_owed(DunningCase.objects.all()), now=datetime.now(UTC)).values()
    assert debt.days == 5
    assert debt.owed == owed(debtor.invoice)


def test_what_is_owed_is_what_the_invoice_owes(stripe: LocalStripe) -> None:
    debtor, other = Debtor(stripe), Debtor(stripe, name="Bob")
    record(debtor.account, "10")
    credit(debtor.invoice, "6", "c1")
    another_invoice_of(other.account)
    collect(BILLED + 31 * DAY)
    refresh_account(other.account.pk, now=BILLED + 31 * DAY)
    cases = with_owed(DunningCase.objects.select_related("invoice"))
    found = debts(cases, now=BILLED)
    assert len(found) == 3
    for case in cases:
        assert found[case.pk].owed == owed(case.invoice)
    sums = sums_by_currency(DunningCase.objects.all(), now=BILLED + 31 * DAY)["USD"]
    assert sums.cases == 3
    assert sums.owed.amount == sum(debt.owed.amount for debt in found.values())
    assert sum(part.amount for part in sums.by_age) == sums.owed.amount


@pytest.mark.parametrize(
    ("hours", "at"),
    [(1, 0), (4 * 24 - 1, 0), (4 * 24, 1), (8 * 24, 2), (29 * 24 - 1, 3), (29 * 24, 4)],
)
def test_each_age_has_its_own_column(stripe: LocalStripe, hours: int, at: int) -> None:
    Debtor(stripe)
    case = DunningCase.objects.get()
    now = case.opened_at + timedelta(hours=hours)
    sums = sums_by_currency(DunningCase.objects.all(), now=now)["USD"]
    assert [bool(part) for part in sums.by_age] == [place == at for place in range(len(AGES))]


def test_open_ones_are_shown_unless_others_are_asked_for(
    stripe: LocalStripe, finance: Client
) -> None:
    debtor, paid = Debtor(stripe), Debtor(stripe, name="Bob")
    record(paid.account, "36")
    refresh_account(paid.account.pk, now=BILLED)
    assert str(debtor.invoice) in board(finance)
    assert str(paid.invoice) not in board(finance)
    assert str(paid.invoice) in board(finance, state="closed")
    assert str(paid.invoice) in board(finance, state="all")
    assert str(debtor.invoice) not in board(finance, state="closed")
    assert str(debtor.invoice) not in board(finance, q="Bob")
    assert str(debtor.invoice) not in board(
        finance, invoice__account__customer__standing__exact="suspended"
    )
    assert str(debtor.invoice) in board(finance, age="over")
    assert str(debtor.invoice) not in board(finance, age="3")
    assert "36.00 USD" in text_of(finance.get(page(DunningCase, debtor.case.pk, "change")))


def test_a_retry_from_the_board_charges_the_card(stripe: LocalStripe, finance: Client) -> None:
    debtor = Debtor(stripe)
    stripe.become(debtor.card, "pm_card_visa")
    response = press(finance, debtor.case, "retry_now", reason="They called")
    said = text_of(response)
    assert "Pending Retry. The default card is charged within a minute." in said
    # Back on the board.
    assert "Dunning board" in said
    assert "retry" in debtor.status
    dun(datetime.now(UTC))
    assert debtor.status == "paid"
    assert debtor.attempts[-1].trigger == "staff"
    again = text_of(press(finance, debtor.case, "retry_now", reason="Again"))
    assert "After paid comes nothing" in again


def test_money_is_recorded_from_the_board(stripe: LocalStripe, finance: Client) -> None:
    debtor = Debtor(stripe)
    said = {"amount": "36", "reference": "TX-1", "received_on": "2026-06-02"}
    assert "36.00 USD are recorded." in text_of(
        press(finance, debtor.case, "record_payment", **said)
    )
    assert debtor.status == "paid"


def test_what_is_written_off_from_the_board_is_so_at_the_provider_too(
    stripe: LocalStripe, finance: Client
) -> None:
    debtor = Debtor(stripe)
    said = text_of(press(finance, debtor.case, "write_off", reason="Out of business"))
    assert "Uncollectible" in said
    assert debtor.case.ending == "written_off"
    assert debtor.standing == "active"
    dun(datetime.now(UTC))
    assert collection_of(debtor.invoice).written_off_at is not None
    assert stripe.log("PostInvoicesInvoiceMarkUncollectible")


def test_who_may_only_look_presses_nothing(stripe: LocalStripe) -> None:
    debtor, client = Debtor(stripe), viewer()
    text = board(client)
    assert str(debtor.invoice) in text
    for name in ("retry_now", "write_off", "record_payment"):
        assert f"/{name}/" not in text
        assert press(client, debtor.case, name, reason="x").status_code == 403


def many_cases(count: int) -> None:
    """Leave as many open cases as accounts, a failed attempt and a card each."""
    now = datetime.now(UTC)
    period = {"open_period_start": MAY.start, "open_period_end": MAY.end}
    accounts = Account.objects.bulk_create(
        Account(name=f"Account {at}", opened_at=OPENED, **period) for at in range(count)
    )
    Customer.objects.bulk_create(
        Customer(account=account, standing="past_due", standing_since=now) for account in accounts
    )
    PaymentMethod.objects.bulk_create(
        PaymentMethod(
            account=account,
            provider_id=f"pm_{account.pk}",
            kind="card",
            brand="visa",
            last4="0341",
            is_default=True,
            added_at=now,
        )
        for account in accounts
    )
    invoices = [final_invoices(account, ["36"], status="payment_failed")[0] for account in accounts]
    collections = [
        Collection(
            account=account,
            status="open",
            amount=36,
            currency="USD",
            provider_id=f"in_{account.pk}",
            started_at=now,
            opened_at=now,
        )
        for account in accounts
    ]
    Collection.objects.bulk_create(collections)
    CollectionPart.objects.bulk_create(
        CollectionPart(collection=collection, position=1, invoice=invoice, amount=Decimal(36))
        for collection, invoice in zip(collections, invoices, strict=True)
    )
    PaymentAttempt.objects.bulk_create(
        PaymentAttempt(
            collection=collection,
            number=number,
            status="failed",
            trigger="schedule",
            started_at=now,
            ended_at=now,
            failure_code="card_declined",
            decline_code="generic_decline",
        )
        for collection in collections
        for number in (1, 2, 3)
    )
    DunningCase.objects.bulk_create(
        DunningCase(
            invoice=invoice,
            opened_at=now - timedelta(days=at % 40),
            next_at=now + timedelta(hours=at % 100),
        )
        for at, invoice in enumerate(invoices)
    )


def analyse() -> None:
    """Let the database count its rows, as it does by itself some time after they came."""
    with psycopg.connect(**connections["owner"].get_connection_params(), autocommit=True) as owner:
        owner.execute("ANALYZE")


@pytest.mark.django_db(transaction=True)
def test_a_board_of_5000_cases_is_few_queries_and_fast(finance: Client) -> None:
    many_cases(5000)
    analyse()
    board(finance)
    for query in ({}, {"o": "3"}, {"q": "Account 4999"}, {"p": "50"}):
        with CaptureQueriesContext(connection) as asked:
            text = board(finance, **query)
        assert len(asked) <= MOST_QUERIES
        assert "Account" in text
    assert "180,000.00 USD" in board(finance)
