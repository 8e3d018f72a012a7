from __future__ import annotations

from collections import defaultdict
from dataclasses import fields
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from billing import services
from billing.models import Account, Invoice, InvoiceLine, Plan
from billing.money import Money
from billing.reports.catalogue import REPORTS, Asked
from billing.reports.month import Month
from tests.billing.reports.world import MID_JUNE, bill_a_busy_may, tell
from tests.billing.usage import AFTER_MAY, MAY, NOON, bill, open_account, record_usage

pytestmark = pytest.mark.django_db

MAY_2026 = Month(2026, 5)


def rows_of(name: str, month: Month = MAY_2026, account: Account | None = None) -> list[Any]:
    asked = Asked(
        now=MID_JUNE,
        month=month,
        as_of=date(2026, 6, 15),
        account_id=account.pk if account else None,
    )
    return list(REPORTS[name].rows(asked))


def cells_of(name: str, month: Month = MAY_2026) -> list[dict[str, Any]]:
    rows = rows_of(name, month)
    return [{field.name: getattr(row, field.name) for field in fields(row)} for row in rows]


def ask_sql(figures: str) -> list[tuple[Any, ...]]:
    """Return figures of the final invoices of May, read past all of our own code."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {figures} FROM billing_invoice invoice"  # noqa: S608 - the tests' own
            " WHERE status NOT IN ('draft', 'void') AND period_start = '2026-05-01T00:00Z'"
        )
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


def test_revenue_is_the_sum_of_the_final_invoices_totals() -> None:
    bill_a_busy_may()
    rows = rows_of("revenue")
    [(total, count)] = ask_sql("sum(total_amount), count(*)")
    assert count == 6
    assert sum(row.amount.amount for row in rows) == total


def test_revenue_by_component_is_the_invoices_figures() -> None:
    bill_a_busy_may()
    by_component: defaultdict[str, Decimal] = defaultdict(Decimal)
    for row in cells_of("revenue"):
        by_component[str(row["component"])] += row["amount"].amount
    [figures] = ask_sql(
        "sum(usage_fee), -sum(discounts), -sum(credits_used), sum(tax),"
        " sum(subscription_fee), -sum(tax) FILTER (WHERE tax_is_inclusive)"
    )
    fees = by_component["fee"] + by_component["true_up"] + by_component["unused_fee"]
    assert (
        by_component["usage"],
        by_component["discount"],
        by_component["credits_used"],
        by_component["tax"],
        fees,
        by_component["tax_in_prices"],
    ) == figures
    assert all(figures)
    assert "other" not in by_component


def test_revenue_of_a_plan_is_that_of_the_time_it_was_in_force() -> None:
    accounts = bill_a_busy_may()
    ids = Invoice.objects.filter(account=accounts["upgraded"]).values("pk")
    fees = {
        (row["plan"], row["amount"].text)
        for row in cells_of("revenue")
        if row["component"] == "fee"
    }
    professional, team = InvoiceLine.objects.filter(invoice__in=ids, kind="fee").order_by(
        "period_start"
    )
    assert ("professional", f"{99 + professional.amount:.2f}") in fees
    assert ("team", f"{299 + team.amount:.2f}") in fees


def test_a_figure_that_the_report_does_not_know_is_shown_and_not_lost() -> None:
    account = open_account()
    start, end = MAY.start, MAY.end
    Invoice.objects.create(
        account=account,
        kind="top_up",
        status="pending",
        number="X-1",
        period_start=start,
        period_end=end,
        currency="USD",
        top_up=Decimal(25),
        total_amount=Decimal(25),
        amount_due=Decimal(25),
        drafted_at=AFTER_MAY,
        computed_at=AFTER_MAY,
        finalise_after=AFTER_MAY,
        finalised_at=AFTER_MAY,
    )
    [row] = cells_of("revenue")
    assert (row["invoice_kind"], row["component"]) == ("top_up", "other")
    [charge] = cells_of("focus")
    assert charge["billed_cost"].text == "25.00"


def test_focus_charges_of_each_invoice_sum_to_its_total() -> None:
    bill_a_busy_may()
    billed: defaultdict[object, Decimal] = defaultdict(Decimal)
    for row in cells_of("focus"):
        billed[row["invoice_id"]] += row["billed_cost"].amount
    totals = dict(ask_sql("number, total_amount"))
    assert dict(billed) == totals
    assert len(totals) == 6


def test_focus_says_what_kind_of_charge_each_is() -> None:
    bill_a_busy_may()
    categories = defaultdict(set)
    for row in cells_of("focus"):
        categories[row["charge_category"]].add(row["charge_description"])
        if row["charge_category"] == "Usage":
            assert row["consumed_quantity"] == row["pricing_quantity"] != 0
            listed, billed = row["list_cost"], row["billed_cost"]
            assert listed.amount >= billed.amount
        if row["charge_category"] == "Tax":
            assert row["pricing_quantity"] is None
    assert set(categories) == {"Usage", "Purchase", "Credit", "Tax"}


def test_usage_report_says_what_invoices_charged_exactly() -> None:
    bill_a_busy_may()
    invoiced: defaultdict[str, list[Decimal]] = defaultdict(
        lambda: [Decimal(0), Decimal(0), Decimal(0), Decimal(0)]
    )
    for row in cells_of("usage"):
        if row["invoice"]:
            sums = invoiced[row["invoice"]]
            sums[0] += row["cost"].amount
            sums[1] += row["discount"].amount
            sums[2] += row["credits_used"].amount
            sums[3] += row["base_quantity"]
    oracle = {
        number: [*map(Decimal, figures)]
        for number, *figures in ask_sql(
            "number, usage_fee, discounts, credits_used, (SELECT sum(quantity)"
            " FROM billing_invoiceline line WHERE line.invoice_id = invoice.id AND meter <> '')"
        )
    }
    assert dict(invoiced) == oracle


def test_usage_report_has_measured_quantities_and_the_coverage() -> None:
    accounts = bill_a_busy_may()
    row = next(
        row
        for row in cells_of("usage")
        if row["account_id"] == accounts["taxed"].pk and row["meter"] == "memory"
    )
    assert row["account"] == "=cmd()"
    assert row["quantity"] == Fraction(3 * 777_777)
    assert row["unit"] == "memory_gb_seconds"
    assert row["coverage"] == Decimal("0.7500")
    assert row["plan"] == "professional"
    assert row["status"] == "pending"


def test_a_period_without_an_invoice_is_reported_as_computed_so_far() -> None:
    accounts = bill_a_busy_may()
    rows = [row for row in cells_of("usage") if row["account_id"] == accounts["open"].pk]
    assert {row["status"] for row in rows} == {"open"}
    services.draft_invoice(accounts["open"].pk, period=MAY, now=AFTER_MAY)
    drafted = [row for row in cells_of("usage") if row["account_id"] == accounts["open"].pk]
    assert {row["status"] for row in drafted} == {"draft"}
    invoice = bill(accounts["open"])
    final = [row for row in cells_of("usage") if row["account_id"] == accounts["open"].pk]
    assert {row["invoice"] for row in final} == {invoice.number}

    def figures(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
        return [(r["meter"], r["quantity"], r["cost"], r["discount"]) for r in rows]

    assert figures(rows) == figures(drafted) == figures(final)


def test_a_void_invoice_is_on_no_report_and_a_reissued_one_once() -> None:
    accounts = bill_a_busy_may()
    for name in ("usage", "focus"):
        column = "account_id" if name == "usage" else "billing_account_id"
        cells = cells_of(name)
        assert accounts["void"].pk not in {row[column] for row in cells}
        invoice = "invoice" if name == "usage" else "invoice_id"
        numbers = {row[invoice] for row in cells if row[column] == accounts["reissued"].pk}
        assert len(numbers) == 1


def test_an_account_that_cannot_be_computed_is_reported_with_the_reason() -> None:
    account = open_account()
    record_usage(account.pk, cpu_s=10)
    tell(account, currency="EUR")
    rows = cells_of("usage")
    assert [(row["meter"], row["cost"], row["note"]) for row in rows] == [
        ("cpu", None, "no_price_in_currency")
    ]


def test_only_the_account_that_is_named_is_reported() -> None:
    accounts = bill_a_busy_may()
    rows = rows_of("usage", account=accounts["plain"])
    assert {row.account_id for row in rows} == {accounts["plain"].pk}


@pytest.mark.parametrize(
    ("zone", "day"), [("Pacific/Kiritimati", 1), ("Pacific/Pago_Pago", 31), ("UTC", 15)]
)
def test_an_invoice_is_of_the_month_its_period_starts_in_where_the_account_is(
    zone: str, day: int
) -> None:
    opened = datetime(2026, 4, 2, tzinfo=UTC)
    account = services.open_account(name="Far", now=opened, time_zone=zone, anchor_day=day)
    months: dict[str, str] = {}
    now = opened
    for _ in range(4):
        account.refresh_from_db()
        period = account.open_period
        record_usage(account.pk, max(period.start, opened) + timedelta(hours=5), cpu_s=10_000)
        now = period.end + timedelta(hours=1)
        invoice = bill(account, period)
        local = invoice.period_start.astimezone(ZoneInfo(zone))
        months[str(invoice.number)] = f"{local:%Y-%m}"
    found: dict[str, str] = {}
    for month in range(1, 13):
        for row in rows_of("focus", Month(2026, month)):
            found[row.invoice_id] = f"2026-{month:02d}"
    assert found == months
    assert now > opened


def test_a_closed_month_stays_as_it_was_when_the_account_moves() -> None:
    account = open_account()
    record_usage(account.pk, cpu_s=10_000)
    bill(account)
    services.change_cycle(account.pk, now=AFTER_MAY, time_zone="America/Los_Angeles", anchor_day=1)
    months: defaultdict[int, list[datetime]] = defaultdict(list)
    # June, the hours in which it is July in UTC and not yet there, and July there.
    for month in (6, 7, 7):
        account.refresh_from_db()
        period = account.open_period
        record_usage(account.pk, period.start + timedelta(hours=3), cpu_s=10_000)
        bill(account, period)
        months[month].append(period.start)
    months[5].append(MAY.start)
    for month, starts in months.items():
        found = [row["billing_period_start"] for row in cells_of("focus", Month(2026, month))]
        assert found == starts


def test_sandboxes_share_out_the_whole_of_what_was_used_and_its_exact_cost() -> None:
    bill_a_busy_may()
    by_meter = {
        (row["account_id"], row["meter"]): row
        for row in cells_of("usage")
        if row["kind"] == "usage"
    }
    used: defaultdict[object, Decimal] = defaultdict(Decimal)
    cost: defaultdict[object, Fraction] = defaultdict(Fraction)
    for row in cells_of("usage_by_sandbox"):
        assert row["sandbox"] == "sbx-1"
        if row["raw_cost"] is not None:
            key = row["account_id"], row["meter"]
            used[key] += row["base_quantity"]
            cost[key] += row["raw_cost"]
    assert set(used) == set(by_meter)
    for key, row in by_meter.items():
        assert used[key] == row["base_quantity"]
        exact = cost[key] - Fraction(row["cost"].amount)
        assert abs(exact) <= Fraction(1, 200)


def test_invoices_that_bill_no_period_count_no_usage_again() -> None:
    Plan.objects.filter(code="team").update(stripe_price_id="price_team")
    account = open_account(plan_code="team")
    record_usage(account.pk, cpu_s=10**6)
    bill(account)
    before = rows_of("usage"), rows_of("usage_by_sandbox")
    top_up = services.request_top_up(account.pk, Decimal(50), now=NOON - timedelta(hours=1))
    services.grant_top_up(top_up.pk, now=NOON + timedelta(hours=1))
    fee = Money(Decimal(299), "USD")
    copied = services.MirroredInvoice(
        number="STRIPE-0001",
        period=MAY,
        lines=[services.MirroredLine("Team plan", MAY, fee)],
        tax=Money(Decimal(0), "USD"),
        total=fee,
        is_paid=True,
    )
    services.mirror_invoice(account.pk, copied, now=NOON)
    assert (rows_of("usage"), rows_of("usage_by_sandbox")) == before


def test_usage_that_is_not_kept_any_more_is_said_and_not_guessed() -> None:
    account = open_account()
    record_usage(account.pk, cpu_s=10_000)
    bill(account)
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM metering_usagerecord")
    [row] = cells_of("usage_by_sandbox")
    assert (row["raw_cost"], row["note"]) == (None, "usage records are not kept any more")
    [kept] = cells_of("usage")
    assert (kept["quantity"], kept["coverage"]) == (10_000, None)


def test_the_number_of_queries_does_not_grow_with_the_accounts() -> None:
    for number in range(3):
        account = open_account(f"Account {number}", plan_code="team")
        record_usage(account.pk, NOON + timedelta(minutes=15 * number), cpu_s=10_000)
        if number:
            bill(account)

    def count(name: str) -> int:
        with CaptureQueriesContext(connection) as queries:
            rows_of(name)
        return len(queries)

    names = ("usage", "usage_by_sandbox", "revenue", "focus", "receivables", "credit_liability")
    few = {name: count(name) for name in names}
    for number in range(3, 9):
        account = open_account(f"Account {number}", plan_code="team")
        record_usage(account.pk, NOON + timedelta(minutes=15 * number), cpu_s=10_000)
        if number % 3:
            bill(account)
    assert {name: count(name) for name in names} == few
