from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from pytest_django import DjangoAssertNumQueries

from billing import services
from billing.models import Account, Price, PriceBook, PriceBookVersion
from metering.meters import GB, Meter
from metering.models import Life, Sandbox, UsageRecord
from metering.summaries import summarise_usage
from tests.api.calling import Api
from tests.billing.price_lists import add_tiered_price, make_book
from tests.billing.usage import JUNE, MAY, OPENED, bill, open_account, record_usage
from tests.problems import errors_of

pytestmark = pytest.mark.django_db

Clock = Callable[[datetime], None]
QUERIES_OF_A_YEAR = 19
"""The key, the account, its calendar, periods and invoices, prices, usage so far and by day."""
DAY = timedelta(days=1)
MAY_DAYS = "start_date=2026-05-01&end_date=2026-06-01"
IN_MAY = datetime(2026, 5, 20, 9, tzinfo=UTC)
IN_JUNE = datetime(2026, 6, 20, 9, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _in_may(set_clock: Clock) -> None:
    set_clock(IN_MAY)


def use(account: Account, sandbox_id: str, at: datetime, *, team: str = "", **figures: int) -> None:
    record_usage(account.pk, at, **figures)
    sandbox, _ = Sandbox.objects.get_or_create(
        account_id=account.pk, sandbox_id=sandbox_id, defaults={"recorded_at": OPENED}
    )
    Life.objects.filter(sandbox__account_id=account.pk, started_at=at).update(
        sandbox=sandbox, labels={"team": team} if team else {}
    )


def summarise(account: Account, first: date, last: date, *, now: datetime) -> None:
    days = [first + n * DAY for n in range((last - first).days + 1)]
    summarise_usage(account.pk, days, now=now)


def history(account: Account, query: str) -> Any:
    answer = Api.by_key(account.pk, "read").get(f"usage/history?{query}")
    assert answer.status_code == 200, answer.content
    return answer.json()


def summary(account: Account, period: str) -> Any:
    return Api.by_key(account.pk, "read").get(f"usage/summary/{period}").json()


def cost_of(shares: list[Any]) -> Fraction:
    return sum((Fraction(share["cost"]) for share in shares), start=Fraction(0))


def used(body: Any) -> dict[str, Fraction]:
    total: dict[str, Fraction] = {}
    for bucket in body["buckets"]:
        for unit, quantity in bucket["usage"].items():
            total[unit] = total.get(unit, Fraction(0)) + Fraction(quantity)
    return total


def subscribe_to(account: Account, book: PriceBook) -> None:
    PriceBook.objects.filter(pk=book.pk).update(account=account)
    book.refresh_from_db()
    terms = services.AgreedTerms(fee=Decimal(0), price_book=book)
    services.subscribe(account.pk, plan_code="enterprise", now=OPENED, agreed=terms)


def busy_account() -> Account:
    account = open_account()
    use(account, "sbx-a", datetime(2026, 5, 2, 3, tzinfo=UTC), team="red", cpu_s=3600)
    use(account, "sbx-a", datetime(2026, 5, 2, 4, tzinfo=UTC), team="red", memory_gb_s=7200)
    use(account, "sbx-b", datetime(2026, 5, 2, 5, tzinfo=UTC), cpu_s=1200, egress_bytes=GB)
    use(account, "sbx-c", datetime(2026, 5, 19, 5, tzinfo=UTC), team="blue", cpu_s=600)
    return account


def test_a_day_is_shown_by_meter_in_text() -> None:
    body = history(busy_account(), "start_date=2026-05-02&end_date=2026-05-03")
    assert body == {
        "period": {"start": "2026-05-02T00:00:00Z", "end": "2026-05-03T00:00:00Z"},
        "time_zone": "UTC",
        "currency": "USD",
        "granularity": "day",
        "group_by": "meter",
        "group_count": 0,
        "cost": "0.1064",
        "buckets": [
            {
                "start": "2026-05-02T00:00:00Z",
                "end": "2026-05-03T00:00:00Z",
                "usage": {
                    "cpu_seconds": "4800",
                    "memory_gb_seconds": "7200",
                    "network_egress_gb": "1",
                },
                "cost_by_meter": {"cpu": "0.0576", "memory": "0.0288", "network_egress": "0.02"},
                "cost": "0.1064",
                "without_usage": "0",
                "groups": [],
                "other": None,
            }
        ],
    }


def test_days_without_usage_are_there_up_to_today() -> None:
    body = history(busy_account(), MAY_DAYS)
    assert [bucket["start"][:10] for bucket in body["buckets"]] == [
        f"2026-05-{day:02}" for day in range(1, 21)
    ]
    assert [bucket["start"][8:10] for bucket in body["buckets"] if bucket["usage"]] == ["02", "19"]


@pytest.mark.parametrize("granularity", ["hour", "day", "month"])
@pytest.mark.parametrize("group", ["meter", "sandbox&top=1", "sandbox", "label&label=team&top=2"])
@pytest.mark.parametrize("summarised", [True, False], ids=["summarised", "not yet"])
def test_buckets_and_groups_sum_to_the_summary(
    *, granularity: str, group: str, summarised: bool
) -> None:
    account = busy_account()
    if summarised:
        summarise(account, date(2026, 5, 1), date(2026, 5, 20), now=IN_MAY)
    body = history(account, f"{MAY_DAYS}&granularity={granularity}&group_by={group}")
    stated = summary(account, "current")
    assert cost_of(body["buckets"]) == Fraction(body["cost"]) == Fraction(stated["raw_cost"])
    assert used(body) == {unit: Fraction(q) for unit, q in stated["usage"].items()}
    for bucket in body["buckets"]:
        if group != "meter":
            assert cost_of([*bucket["groups"], bucket["other"]]) == Fraction(bucket["cost"])


def test_the_costliest_groups_are_told_apart_and_the_rest_is_together() -> None:
    body = history(busy_account(), f"{MAY_DAYS}&granularity=month&group_by=sandbox&top=2")
    [month] = body["buckets"]
    assert [(group["key"], group["cost"]) for group in month["groups"]] == [
        ("sbx-a", "0.072"),
        ("sbx-b", "0.0344"),
    ]
    assert month["other"] == {
        "usage": {"cpu_seconds": "600"},
        "cost_by_meter": {"cpu": "0.0072"},
        "cost": "0.0072",
    }
    assert body["group_count"] == 3


def test_what_has_no_such_label_is_a_group_of_its_own() -> None:
    body = history(busy_account(), f"{MAY_DAYS}&granularity=month&group_by=label&label=team")
    [month] = body["buckets"]
    assert {group["key"]: group["cost"] for group in month["groups"]} == {
        "red": "0.072",
        None: "0.0344",
        "blue": "0.0072",
    }


def test_a_closed_period_costs_what_its_invoice_says(set_clock: Clock) -> None:
    account = busy_account()
    summarise(account, date(2026, 5, 1), date(2026, 5, 31), now=IN_JUNE)
    bill(account)
    use(account, "sbx-a", datetime(2026, 6, 3, 3, tzinfo=UTC), cpu_s=100)
    # What is charged now is not what was charged then.
    Price.objects.update(unit_price=Decimal("0.5"))
    set_clock(IN_JUNE)
    body = history(account, "start_date=2026-05-01&end_date=2026-07-01")
    may = [bucket for bucket in body["buckets"] if bucket["start"] < "2026-06-01"]
    june = [bucket for bucket in body["buckets"] if bucket["start"] >= "2026-06-01"]
    closed, current = summary(account, "2026-05"), summary(account, "2026-06")
    assert closed["invoice"]["number"] == "2026-000001"
    assert cost_of(may) == Fraction(closed["raw_cost"]) == Fraction("0.1136")
    assert (closed["usage_fee"], closed["total_amount"]) == ("0.11", "0.11")
    assert cost_of(june) == Fraction(current["raw_cost"]) == 50
    assert (current["invoice"], summary(account, "previous")) == (None, closed)


def test_tiers_make_later_days_cheaper_and_nothing_is_lost() -> None:
    account = open_account()
    book = make_book("tiered", memory="0.02")
    add_tiered_price(book, Meter.CPU, [("1000", "0.01", "0"), (None, "0.001", "0")], "graduated")
    subscribe_to(account, book)
    for day in (2, 3, 18):
        use(account, "sbx-a", datetime(2026, 5, day, 3, tzinfo=UTC), cpu_s=900)
    body = history(account, MAY_DAYS)
    # Shared out by quantity: each second bears as much as another.
    costs = {bucket["start"][8:10]: bucket["cost"] for bucket in body["buckets"] if bucket["usage"]}
    assert len(set(costs.values())) == 1
    assert Fraction(body["cost"]) == Fraction("11.7")


def test_a_minimum_is_due_where_nothing_was_used() -> None:
    account = open_account()
    book = make_book("least", cpu="0.01")
    Price.objects.filter(version__book=book).update(minimum=Decimal(5))
    subscribe_to(account, book)
    body = history(account, MAY_DAYS)
    assert Fraction(body["cost"]) == Fraction(summary(account, "current")["raw_cost"]) == 5
    assert cost_of(body["buckets"]) == 5
    assert body["buckets"][-1]["without_usage"] == "5"


def test_new_prices_inside_a_day_keep_the_sum() -> None:
    account = open_account()
    book = make_book("dear", cpu="0.000012")
    at = datetime(2026, 5, 2, 18, tzinfo=UTC)
    book.versions.update(effective_to=at)
    version = PriceBookVersion.objects.create(book=book, effective_from=at)
    Price.objects.create(version=version, meter=Meter.CPU, unit_price=Decimal(1), charge="per_unit")
    subscribe_to(account, book)
    for hour in (3, 13, 20):
        use(account, "sbx-a", datetime(2026, 5, 2, hour, tzinfo=UTC), cpu_s=1000)
    use(account, "sbx-b", datetime(2026, 5, 3, 3, tzinfo=UTC), cpu_s=10)
    summarise(account, date(2026, 5, 1), date(2026, 5, 20), now=IN_MAY)
    raw = Fraction(summary(account, "current")["raw_cost"])
    by_day = history(account, f"{MAY_DAYS}&group_by=sandbox")
    by_hour = history(account, f"{MAY_DAYS}&granularity=hour")
    assert raw == Fraction("0.024") + 1000 + 10
    assert cost_of(by_day["buckets"]) == cost_of(by_hour["buckets"]) == raw
    assert {b["start"][8:13]: b["cost"] for b in by_hour["buckets"] if b["usage"]} == {
        "02T03": "0.012",
        "02T13": "0.012",
        "02T20": "1000",
        "03T03": "10",
    }
    assert [b["cost"] for b in by_day["buckets"] if b["usage"]] == ["1000.024", "10"]


def test_a_period_that_begins_inside_a_day_counts_nothing_twice() -> None:
    account = open_account()
    for hour, seconds in ((6, 100), (18, 200)):
        use(account, "sbx-a", datetime(2026, 5, 10, hour, tzinfo=UTC), cpu_s=seconds)
    summarise(account, date(2026, 5, 1), date(2026, 5, 20), now=IN_MAY)
    Account.objects.update(open_period_start=datetime(2026, 5, 10, 12, tzinfo=UTC))
    # It is in no summary yet, so the open period is read from records.
    use(account, "sbx-a", datetime(2026, 5, 15, 6, tzinfo=UTC), cpu_s=50)
    for group in ("meter", "sandbox"):
        body = history(account, f"{MAY_DAYS}&group_by={group}")
        seconds_by_day = {b["start"][8:10]: b["usage"] for b in body["buckets"] if b["usage"]}
        assert seconds_by_day == {"10": {"cpu_seconds": "300"}, "15": {"cpu_seconds": "50"}}


def berlin_account() -> Account:
    return services.open_account(
        name="Berta", time_zone="Europe/Berlin", now=datetime(2026, 2, 28, 23, 30, tzinfo=UTC)
    )


def test_days_are_the_accounts_and_may_have_23_hours(set_clock: Clock) -> None:
    account = berlin_account()
    # The hour before local midnight, and the one after.
    use(account, "sbx-a", datetime(2026, 3, 28, 22, tzinfo=UTC), cpu_s=100)
    use(account, "sbx-a", datetime(2026, 3, 28, 23, tzinfo=UTC), cpu_s=10)
    set_clock(datetime(2026, 3, 30, 12, tzinfo=UTC))
    body = history(account, "start_date=2026-03-28&end_date=2026-03-30")
    assert [(b["start"], b["end"], b["usage"]["cpu_seconds"]) for b in body["buckets"]] == [
        ("2026-03-27T23:00:00Z", "2026-03-28T23:00:00Z", "100"),
        ("2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z", "10"),
    ]
    hours = history(account, "start_date=2026-03-29&end_date=2026-03-30&granularity=hour")
    assert len(hours["buckets"]) == 23
    assert hours["cost"] == body["buckets"][1]["cost"]


def test_a_long_day_has_25_hours(set_clock: Clock) -> None:
    account = services.open_account(
        name="Berta", time_zone="Europe/Berlin", now=datetime(2026, 10, 1, tzinfo=UTC)
    )
    set_clock(datetime(2026, 10, 27, tzinfo=UTC))
    hours = history(account, "start_date=2026-10-25&end_date=2026-10-26&granularity=hour")
    assert len(hours["buckets"]) == 25


def test_an_account_that_used_nothing_has_a_history_of_nothing() -> None:
    body = history(open_account(), f"{MAY_DAYS}&group_by=sandbox")
    assert (body["cost"], body["group_count"], len(body["buckets"])) == ("0", 0, 20)
    assert body["buckets"][0]["other"] == {"usage": {}, "cost_by_meter": {}, "cost": "0"}


def test_what_another_account_used_is_not_in_it() -> None:
    busy_account()
    assert history(open_account("Other"), MAY_DAYS)["cost"] == "0"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("end_date=2026-06-01", "start_date"),
        ("start_date=2026-05-01", "end_date"),
        ("start_date=2026-05-01&end_date=2026-05-01", "end_date"),
        ("start_date=1926-05-01&end_date=2026-05-01", "start_date"),
        ("start_date=2026-05-01&end_date=2126-05-01", "end_date"),
        ("start_date=2025-05-01&end_date=2026-05-03", "end_date"),
        ("start_date=2026-04-01&end_date=2026-05-03&granularity=hour", "end_date"),
        ("start_date=2020-05-01&end_date=2026-05-03&granularity=month", "end_date"),
        ("start_date=2026-05-21&end_date=2026-05-22", "start_date"),
        ("start_date=2026-01-01&end_date=2026-01-03&granularity=hour", "start_date"),
        (f"{MAY_DAYS}&granularity=week", "granularity"),
        (f"{MAY_DAYS}&group_by=host", "group_by"),
        (f"{MAY_DAYS}&group_by=label", "label"),
        (f"{MAY_DAYS}&label=team", "label"),
        (f"{MAY_DAYS}&group_by=label&label=NO%20NAME", "label"),
        (f"{MAY_DAYS}&top=5", "top"),
        (f"{MAY_DAYS}&group_by=sandbox&top=0", "top"),
        (f"{MAY_DAYS}&group_by=sandbox&top=101", "top"),
        (f"{MAY_DAYS}&granularity=hour&group_by=sandbox&top=100", "top"),
    ],
)
def test_what_cannot_be_answered_is_refused_by_field(query: str, field: str) -> None:
    answer = Api.by_key(open_account().pk).get(f"usage/history?{query}")
    assert answer.status_code == 400
    assert list(errors_of(answer)) == [field]


def test_a_year_takes_the_same_number_of_queries_however_much_ran(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    account = busy_account()
    summarise(account, date(2026, 5, 1), date(2026, 5, 20), now=IN_MAY)
    api = Api.by_key(account.pk, "read")
    query = "usage/history?start_date=2025-06-01&end_date=2026-06-01"
    api.get(query)
    with django_assert_num_queries(QUERIES_OF_A_YEAR):
        api.get(query)
    for hour in range(6, 12):
        use(account, f"sbx-{hour}", datetime(2026, 5, 19, hour, tzinfo=UTC), cpu_s=60)
    with django_assert_num_queries(QUERIES_OF_A_YEAR):
        api.get(query)


@pytest.mark.parametrize(
    ("period", "status"),
    [
        ("2026-05", 200),
        ("current", 200),
        ("previous", 404),
        ("2026-04", 404),
        ("2026-06", 404),
        ("2099-12", 404),
        ("2026-13", 400),
        ("2026-5", 400),
        ("nonsense", 400),
        ("2026-05-01", 400),
    ],
)
def test_a_period_is_a_month_that_there_was(period: str, status: int) -> None:
    answer = Api.by_key(open_account().pk).get(f"usage/summary/{period}")
    assert answer.status_code == status


def test_the_period_before_is_the_one_that_waits_for_its_invoice(set_clock: Clock) -> None:
    account = busy_account()
    set_clock(MAY.end + timedelta(minutes=1))
    before = summary(account, "previous")
    assert before["period"]["end"] == "2026-06-01T00:00:00Z"
    assert (before["invoice"], before["raw_cost"]) == (None, "0.1136")
    assert summary(account, "current")["period"]["start"] == "2026-06-01T00:00:00Z"
    assert summary(account, "2026-06")["raw_cost"] == "0"


def test_a_closed_period_without_an_invoice_is_stated(set_clock: Clock) -> None:
    account = open_account()
    draft = services.draft_invoice(account.pk, period=MAY, now=JUNE.start)
    assert services.finalise_invoice(draft.pk, now=JUNE.start + DAY) is None
    set_clock(IN_JUNE)
    closed = summary(account, "2026-05")
    assert (closed["invoice"], closed["total_amount"]) == (None, "0.00")
    body = history(account, "start_date=2026-05-01&end_date=2026-07-01&granularity=month")
    assert [bucket["cost"] for bucket in body["buckets"]] == ["0", "0"]


def test_usage_records_that_were_dropped_leave_what_was_invoiced(set_clock: Clock) -> None:
    account = busy_account()
    summarise(account, date(2026, 5, 1), date(2026, 5, 31), now=IN_JUNE)
    bill(account)
    UsageRecord.objects.all().delete()
    set_clock(IN_JUNE)
    body = history(account, MAY_DAYS)
    assert Fraction(body["cost"]) == Fraction(summary(account, "2026-05")["raw_cost"])
    assert used(body)["cpu_seconds"] == 5400
