"""The desk's figures against sums that were made in another way."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

import billing.services.desk
from billing import desk_queries, services
from billing.credits import CreditKind
from billing.models import Account, DeskDay, DeskRunning, DeskSlice, Invoice
from billing.services.desk import SLICES
from billing.statement import PeriodFacts, Statement, state_period
from metering.period import Period
from metering.summaries import summarise_usage
from tests.billing import admin_pages
from tests.billing.admin_pages import text_of
from tests.billing.test_desk_lists import HOSTILE, final_invoices
from tests.billing.test_late_usage import become_late
from tests.billing.usage import (
    AFTER_MAY,
    JUNE,
    MAY,
    NOON,
    OPENED,
    bill,
    open_account,
    read_streams_until,
    record_usage,
)

pytestmark = pytest.mark.django_db

JUNE_10 = datetime(2026, 6, 10, 12, tzinfo=UTC)


@pytest.fixture
def finance() -> Client:
    return admin_pages.finance()


def add_up(now: datetime) -> int:
    rounds = 0
    while services.add_up_desk(now=now):
        rounds += 1
    return rounds


def summarise(account: Account, *days: date) -> None:
    summarise_usage(account.pk, days, now=JUNE_10)


def used_in_may_and_june(name: str = "Ada") -> Account:
    """An account whose May is invoiced, and whose June goes on."""
    account = open_account(name)
    record_usage(account.pk, NOON, cpu_s=1_000_000)
    record_usage(account.pk, NOON + timedelta(days=5), cpu_s=3_000_000)
    summarise(account, NOON.date(), NOON.date() + timedelta(days=5))
    bill(account)
    record_usage(account.pk, JUNE_10 - timedelta(days=2), cpu_s=500_000)
    summarise(account, (JUNE_10 - timedelta(days=2)).date())
    return account


def test_days_add_up_to_the_invoice_and_to_the_running_period() -> None:
    account = used_in_may_and_june()
    assert add_up(JUNE_10) == SLICES
    by_day = {row.day: row for row in desk_queries.by_day(date(2026, 5, 1))}
    invoice = Invoice.objects.get(account=account)
    # 4,000,000 s at 0.000012 are 48.00, a quarter of them on the first day.
    assert invoice.usage_fee == Decimal(48)
    assert by_day[date(2026, 5, 10)].cost == Decimal(12)
    assert by_day[date(2026, 5, 15)].cost == Decimal(36)
    assert by_day[date(2026, 6, 8)].cost == Decimal(6)
    assert by_day[date(2026, 5, 10)].quantity == 1_000_000 * 10**9
    assert {row.day for row in by_day.values()} == {
        date(2026, 5, 10),
        date(2026, 5, 15),
        date(2026, 6, 8),
    }
    [running] = desk_queries.running_periods()
    assert (running.currency, running.accounts) == ("USD", 1)
    assert (running.usage_fee, running.total_amount) == (Decimal(6), Decimal(6))
    months = {row.day: row.cost for row in desk_queries.by_month(date(2026, 5, 1))}
    assert months == {date(2026, 5, 1): Decimal(48), date(2026, 6, 1): Decimal(6)}


def test_accounts_of_all_slices_are_counted_once_and_currencies_apart() -> None:
    for number in range(SLICES):
        account = services.open_account(
            account_id=UUID(int=(number << 124) + number),
            name=f"No. {number}",
            currency="EUR" if number % 4 == 0 else "USD",
            now=OPENED,
        )
        record_usage(account.pk, NOON, cpu_s=1000 * (number + 1))
        summarise(account, NOON.date())
    services.open_account(account_id=UUID(int=2**128 - 1), name="The last", now=OPENED)
    add_up(MAY.end - timedelta(hours=1))
    running = {row.currency: row for row in desk_queries.running_periods()}
    assert (running["USD"].accounts, running["EUR"].accounts) == (13, 4)
    quantity = {row.currency: row.quantity for row in desk_queries.by_day(date(2026, 5, 10))}
    assert quantity["EUR"] == (1 + 5 + 9 + 13) * 1000 * 10**9
    assert quantity["USD"] + quantity["EUR"] == sum(range(1, 17)) * 1000 * 10**9


def test_adding_up_again_changes_nothing_and_waits_until_it_is_stale() -> None:
    used_in_may_and_june()
    add_up(JUNE_10)
    rows = list(DeskDay.objects.order_by("day", "meter").values("day", "meter", "cost", "quantity"))
    assert add_up(JUNE_10 + timedelta(minutes=5)) == 0
    assert add_up(JUNE_10 + timedelta(hours=1)) == SLICES
    again = DeskDay.objects.order_by("day", "meter").values("day", "meter", "cost", "quantity")
    assert list(again) == rows
    assert DeskRunning.objects.count() == 1


def test_an_old_invoice_that_is_voided_bears_no_cost_any_more() -> None:
    account = used_in_may_and_june()
    add_up(JUNE_10)
    later = datetime(2026, 9, 20, 12, tzinfo=UTC)
    add_up(later)
    invoice = Invoice.objects.get(account=account, period_start=MAY.start)
    services.void_invoice(
        invoice.pk, because=services.Because("By mistake"), now=later + timedelta(minutes=1)
    )
    add_up(later + timedelta(hours=1))
    in_may = [row for row in desk_queries.by_day(MAY.start.date()) if row.day < date(2026, 6, 1)]
    assert [row.cost for row in in_may] == [Decimal(0), Decimal(0)]
    assert [row.quantity for row in in_may] == [1_000_000 * 10**9, 3_000_000 * 10**9]


def test_an_account_that_cannot_be_stated_is_left_out_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used_in_may_and_june()
    bad = open_account("Bob")
    Account.objects.filter(pk=bad.pk).update(tax_is_inclusive=True)

    def refuse_inclusive_tax(facts: PeriodFacts) -> Statement:
        if facts.tax.is_inclusive:
            raise ValueError("A rule is no good.")
        return state_period(facts)

    monkeypatch.setattr(billing.services.desk, "state_period", refuse_inclusive_tax)
    add_up(JUNE_10)
    assert desk_queries.added_up() == desk_queries.AddedUp(JUNE_10, 1)
    assert desk_queries.running_periods()[0].accounts == 1


def test_nothing_is_said_of_a_time_before_all_slices_were_added_up() -> None:
    assert desk_queries.added_up().as_of is None
    services.add_up_desk(now=JUNE_10)
    assert DeskSlice.objects.filter(computed_at__isnull=False).count() == 1
    assert desk_queries.added_up().as_of is None


def test_revenue_is_without_tax_and_void_invoices_by_month_and_currency() -> None:
    ada = open_account("Ada")
    final_invoices(ada, ["10", "20", "40"])
    final_invoices(open_account("Bob"), ["7"], currency="EUR")
    final_invoices(ada, ["1000"], status="void", first_month=20)
    rows = desk_queries.revenue_by_month(datetime(2010, 1, 1, tzinfo=UTC))
    assert [(row.month, row.currency, row.invoices, row.net) for row in rows] == [
        (date(2010, 2, 1), "EUR", 1, Decimal(7)),
        (date(2010, 2, 1), "USD", 1, Decimal(10)),
        (date(2010, 3, 1), "USD", 1, Decimal(20)),
        (date(2010, 4, 1), "USD", 1, Decimal(40)),
    ]


def test_a_remainder_that_became_credit_is_revenue_given_back() -> None:
    ada = open_account("Ada")
    Account.objects.filter(pk=ada.pk).update(tax_rate=Decimal("0.19"))
    record_usage(ada.pk, cpu_s=10**6)
    bill(ada)
    become_late(ada, -900_000 * 10**9)
    june = bill(ada, JUNE)
    assert (june.total_amount, june.tax, june.credited) == (
        Decimal(0),
        Decimal("-2.05"),
        Decimal("12.85"),
    )
    [may, june_] = desk_queries.revenue_by_month(MAY.start)
    assert (may.net, june_.net, june_.tax) == (Decimal(12), Decimal("-10.80"), Decimal("-2.05"))


def test_what_is_owed_is_by_currency_and_state() -> None:
    ada = open_account("Ada")
    final_invoices(ada, ["10", "20"])
    final_invoices(ada, ["5"], status="payment_failed", first_month=3)
    final_invoices(ada, ["999"], status="paid", first_month=4)
    assert [(row.status, row.invoices, row.due) for row in desk_queries.outstanding()] == [
        ("payment_failed", 1, Decimal(5)),
        ("pending", 2, Decimal(30)),
    ]


def test_a_draft_past_its_grace_waits_for_a_reason() -> None:
    account = open_account()
    record_usage(account.pk, NOON, cpu_s=10)
    read_streams_until(NOON)
    services.draft_invoice(account.pk, period=MAY, now=MAY.end)
    assert desk_queries.drafts_waiting(MAY.end).count == 0
    services.finalise_due_invoices(AFTER_MAY)
    waiting = desk_queries.drafts_waiting(AFTER_MAY)
    assert waiting.count == 1
    assert f"host of {account.pk}" in waiting.most[0][0]


def test_credit_that_expires_soon_is_what_is_left_of_it() -> None:
    account = open_account()
    for reference, amount, days in (("a", "10", 5), ("b", "7", 29), ("c", "100", 31)):
        gift = services.Gift(
            kind=CreditKind.PROMOTIONAL,
            amount=Decimal(amount),
            reason="Welcome",
            reference=reference,
            effective_at=OPENED,
            expires_at=NOON + timedelta(days=days),
        )
        services.grant_credit(account.pk, gift, now=OPENED)
    by = services.ByHand(reason="Support", reference="x")
    services.use_credit(account.pk, Decimal(4), by=by, now=NOON)
    within = Period(NOON, NOON + timedelta(days=30))
    [row] = desk_queries.expiring_credit(within)
    assert (row.kind, row.grants, row.left) == ("promotional", 2, Decimal(13))


def context_of(client: Client) -> dict[str, Any]:
    context = client.get("/admin/").context_data
    assert context is not None
    return context


def seen_by(client: Client) -> str:
    response = client.get("/admin/")
    assert response.status_code == 200
    return text_of(response)


def test_the_home_page_shows_the_figures_with_links_to_their_lists(finance: Client) -> None:
    account = open_account(HOSTILE)
    services.park_account(account.pk, reason="A <b>bad</b> rule", now=datetime.now(UTC))
    final_invoices(account, ["1234.5"], status="payment_failed")
    said = seen_by(finance)
    assert "1,234.50 USD" in said
    assert "status__exact=payment_failed" in said
    assert "parked_at__isempty=0" in said
    assert "A &lt;b&gt;bad&lt;/b&gt; rule" in said
    assert HOSTILE not in said
    assert "not added up yet" in said


def test_every_link_of_a_card_leads_to_a_list(finance: Client) -> None:
    cards = context_of(finance)["cards"]
    assert len(cards) == 11
    for card in cards:
        assert finance.get(card.href).status_code == 200, card.href


CARDS_BY_RIGHT = {
    "billing.view_invoice": {
        "Running periods so far",
        "Outstanding",
        "Failed payments",
        "Drafts that wait",
    },
    "billing.view_account": {"Parked accounts"},
    "metering.view_dailyusagesummary": {"Coverage of metering"},
    "billing.view_creditgrant": {"Credit that expires within 30 days"},
}


@pytest.mark.parametrize("right", CARDS_BY_RIGHT)
def test_a_card_shows_to_who_may_see_its_list(right: str) -> None:
    app, codename = right.split(".")
    user = User.objects.create_user("one", is_staff=True)
    user.user_permissions.set(
        Permission.objects.filter(codename=codename, content_type__app_label=app)
    )
    client = Client()
    client.force_login(user)
    context = context_of(client)
    titles = {card.title for card in context["cards"] if not card.title.startswith("Revenue")}
    assert titles == CARDS_BY_RIGHT[right]
    drawn = {chart.title.split(" ")[0] for chart in context["charts"]}
    money, usage = right == "billing.view_invoice", right.startswith("metering")
    assert drawn == ({"Cost", "Revenue"} if money else {"Usage"} if usage else set())


def test_who_has_no_right_sees_no_figure_and_no_entry() -> None:
    client = Client()
    client.force_login(User.objects.create_user("nobody", is_staff=True))
    said = seen_by(client)
    assert "nothing here that you may see" in said
    assert "/admin/billing/" not in said


def test_the_sidebar_leads_to_pages_that_answer(finance: Client) -> None:
    context = context_of(finance)
    links = [item["link"] for group in context["sidebar_navigation"] for item in group["items"]]
    assert len(links) > 20
    for link in links:
        assert finance.get(link).status_code == 200, link


def test_the_home_page_asks_as_often_for_many_rows(finance: Client) -> None:
    account = open_account()
    final_invoices(account, ["1"])
    add_up(JUNE_10)

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            finance.get("/admin/")
        return len(captured)

    queries()
    of_few = queries()
    final_invoices(account, ["1"] * 199, first_month=2)
    used_in_may_and_june("Bob")
    add_up(JUNE_10 + timedelta(hours=1))
    assert queries() == of_few
    assert of_few < 30
