from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from django.test import Client

from billing import services
from billing.cost_queries import (
    CostsByKey,
    SpanRefusedError,
    cost_by_label,
    cost_by_sandbox,
)
from billing.history import billing_periods, schedule_in
from billing.models import Account, Invoice, Price, PriceBook, PriceBookVersion
from billing.queries import preview_period
from metering.labels import LabelNameError
from metering.meters import Meter
from metering.models import Life, Sandbox, UsageRecord
from metering.period import WINDOW, Period
from tests.billing.price_lists import add_tiered_price, make_book
from tests.billing.usage import (
    AFTER_MAY,
    GRACE,
    JUNE,
    MAY,
    NOON,
    OPENED,
    open_account,
    read_streams_until,
    record_usage,
)
from tests.problems import errors_of

pytestmark = pytest.mark.django_db

BERLIN_JUNE_END = datetime(2026, 6, 30, 22, tzinfo=UTC)


def use(  # one argument a meter
    account: Account,
    sandbox_id: str,
    at: datetime,
    *,
    labels: dict[str, str] | None = None,
    cpu_s: int = 0,
    memory_gb_s: int = 0,
) -> None:
    record_usage(account.pk, at, cpu_s=cpu_s, memory_gb_s=memory_gb_s)
    sandbox, _ = Sandbox.objects.get_or_create(
        account_id=account.pk, sandbox_id=sandbox_id, defaults={"recorded_at": OPENED}
    )
    Life.objects.filter(sandbox__account_id=account.pk, started_at=at).update(
        sandbox=sandbox, labels=labels or {}
    )


def subscribe_to(account: Account, book: PriceBook) -> None:
    PriceBook.objects.filter(pk=book.pk).update(account=account)
    book.refresh_from_db()
    services.subscribe(
        account.pk,
        plan_code="enterprise",
        now=OPENED,
        agreed=services.AgreedTerms(fee=Decimal(0), price_book=book),
    )


def tiered_account() -> Account:
    """An account on 1000 s of cpu at 0.01 and the rest at 0.001; memory at 0.02."""
    account = open_account()
    book = make_book("tiered", memory="0.02")
    add_tiered_price(book, Meter.CPU, [("1000", "0.01", "0"), (None, "0.001", "0")], "graduated")
    subscribe_to(account, book)
    return account


def close_may(account: Account) -> None:
    read_streams_until(AFTER_MAY)
    draft = services.draft_invoice(account.pk, period=MAY, now=MAY.end)
    services.finalise_invoice(draft.pk, now=AFTER_MAY)
    account.refresh_from_db()


def by_key(costs: CostsByKey[Any]) -> dict[str | None, Fraction]:
    return {cost.key: cost.cost for cost in costs.costs}


def test_tiers_count_over_the_billing_period_whatever_part_of_it_is_asked_for() -> None:
    account = tiered_account()
    # 2000 s cost 10 + 1 = 11, which is 0.0055 a second, first or last.
    use(account, "a", NOON, cpu_s=500)
    use(account, "b", NOON + WINDOW, cpu_s=1500, memory_gb_s=10)
    assert by_key(cost_by_sandbox(account.pk, MAY)) == {
        "b": Fraction("8.25") + Fraction("0.2"),
        "a": Fraction("2.75"),
    }
    first = cost_by_sandbox(account.pk, Period(NOON, NOON + WINDOW))
    assert by_key(first) == {"a": Fraction("2.75")}
    assert first.raw_cost == Fraction("2.75")


def test_a_whole_period_costs_what_its_statement_says() -> None:
    account = tiered_account()
    use(account, "a", NOON, cpu_s=1234, memory_gb_s=7)
    use(account, "b", NOON + WINDOW, cpu_s=777, labels={"team": "x"})
    use(account, "c", NOON + 2 * WINDOW, cpu_s=3, labels={"team": "y"})
    raw_cost = preview_period(account, MAY).rating.raw_cost
    by_sandbox = cost_by_sandbox(account.pk, MAY)
    by_team = cost_by_label(account.pk, MAY, name="team")
    assert by_sandbox.raw_cost == by_team.raw_cost == raw_cost
    assert sum(by_key(by_sandbox).values()) == sum(by_key(by_team).values()) == raw_cost
    assert set(by_key(by_team)) == {"x", "y", None}
    assert by_key(by_team)[None] == by_key(by_sandbox)["a"]


def test_the_parts_of_a_period_cost_what_the_whole_does() -> None:
    account = tiered_account()
    for number in range(7):
        use(account, f"sbx-{number % 3}", NOON + number * WINDOW, cpu_s=311 * (number + 1))
    cuts = [MAY.start, NOON + WINDOW, NOON + 3 * WINDOW, NOON + 4 * WINDOW, MAY.end]
    parts = [cost_by_sandbox(account.pk, Period(start, end)) for start, end in pairwise(cuts)]
    whole = cost_by_sandbox(account.pk, MAY)
    assert sum(part.raw_cost for part in parts) == whole.raw_cost
    for key, cost in by_key(whole).items():
        assert sum(by_key(part).get(key, Fraction(0)) for part in parts) == cost


def test_prices_that_change_inside_a_period_are_each_their_own() -> None:
    account = open_account()
    book = make_book("rising", cpu="0.01")
    subscribe_to(account, book)
    PriceBookVersion.objects.filter(book=book).update(effective_to=NOON)
    version = PriceBookVersion.objects.create(book=book, effective_from=NOON)
    Price.objects.create(version=version, meter=Meter.CPU, unit_price=Decimal("0.05"))
    use(account, "a", NOON - WINDOW, cpu_s=100)
    use(account, "b", NOON, cpu_s=100)
    both = Period(NOON - WINDOW, NOON + WINDOW)
    assert by_key(cost_by_sandbox(account.pk, both)) == {"b": Fraction(5), "a": Fraction(1)}
    assert cost_by_sandbox(account.pk, MAY).raw_cost == Fraction(6)


def test_what_is_due_without_usage_is_nobodys_and_counts_in_a_whole_period() -> None:
    account = open_account()
    book = make_book("minimum", memory="0.01")
    Price.objects.create(
        version=book.versions.get(), meter=Meter.CPU, unit_price=Decimal(1), minimum=Decimal("7.5")
    )
    subscribe_to(account, book)
    use(account, "a", NOON, memory_gb_s=100)
    whole = cost_by_sandbox(account.pk, MAY)
    assert (whole.without_usage, whole.raw_cost) == (Fraction("7.5"), Fraction("8.5"))
    assert whole.raw_cost == preview_period(account, MAY).rating.raw_cost
    part = cost_by_sandbox(account.pk, Period(NOON, NOON + WINDOW))
    assert (part.without_usage, part.raw_cost) == (Fraction(0), Fraction(1))


def test_billing_periods_inside_a_span_add_up() -> None:
    account = tiered_account()
    use(account, "a", NOON, cpu_s=2000)
    close_may(account)
    use(account, "a", JUNE.start, cpu_s=2000)
    # 11 in each period, because the tiers begin again; in one period it would be 13.
    both = cost_by_sandbox(account.pk, Period(MAY.start, JUNE.end))
    assert both.raw_cost == Fraction(22)
    assert by_key(both) == {"a": Fraction(22)}


def test_a_closed_period_stays_what_it_was_after_a_change_of_time_zone() -> None:
    account = tiered_account()
    use(account, "a", MAY.end - WINDOW, cpu_s=2000)
    services.change_cycle(account.pk, now=NOON, time_zone="Europe/Berlin")
    close_may(account)
    assert account.time_zone == "Europe/Berlin"
    # In Berlin it was June by then; but May was invoiced as a month of UTC.
    assert billing_periods(account, Period(MAY.start, BERLIN_JUNE_END)) == [
        MAY,
        Period(MAY.end, BERLIN_JUNE_END),
    ]
    assert cost_by_sandbox(account.pk, MAY).raw_cost == Fraction(11)
    assert cost_by_sandbox(account.pk, Period(MAY.end, BERLIN_JUNE_END)).raw_cost == 0
    assert schedule_in(account, MAY).whole(MAY.start) == MAY


def test_closed_periods_without_an_invoice_are_whole_ones() -> None:
    account = open_account()
    close_may(account)
    assert not Invoice.objects.exists()
    july = Period(JUNE.end, datetime(2026, 8, 1, tzinfo=UTC))
    assert billing_periods(account, Period(MAY.start, july.end)) == [MAY, JUNE, july]
    assert billing_periods(account, Period(NOON, NOON + WINDOW)) == [MAY]
    assert billing_periods(account, Period(OPENED - WINDOW, OPENED)) == []


def test_closed_time_without_an_invoice_is_not_cut_into_slivers() -> None:
    account = open_account()
    services.change_cycle(account.pk, now=NOON, time_zone="Asia/Tokyo")
    close_may(account)
    assert billing_periods(account, MAY) == [MAY]


def test_time_before_the_first_period_costs_nothing() -> None:
    account = tiered_account()
    Price.objects.update(minimum=Decimal(5))
    before = Period(OPENED - timedelta(days=30), OPENED)
    assert cost_by_sandbox(account.pk, before).raw_cost == 0


def test_other_accounts_have_no_part_in_it() -> None:
    account = tiered_account()
    use(account, "a", NOON, cpu_s=100)
    record_usage(open_account("Eve").pk, NOON, cpu_s=10_000)
    assert by_key(cost_by_sandbox(account.pk, MAY)) == {"a": Fraction(1)}


def test_usage_that_was_invoiced_and_is_gone_is_not_passed_over() -> None:
    account = tiered_account()
    use(account, "a", NOON, cpu_s=100)
    close_may(account)
    UsageRecord.objects.all().delete()
    with pytest.raises(SpanRefusedError, match=r"not kept any more. Ask from 2026-06-01") as error:
        cost_by_sandbox(account.pk, MAY)
    assert error.value.field == "start"
    assert cost_by_sandbox(account.pk, JUNE).raw_cost == 0


@pytest.mark.parametrize(
    ("span", "field"),
    [
        (Period(NOON + timedelta(minutes=1), NOON + WINDOW), "start"),
        (Period(NOON, NOON + timedelta(seconds=1)), "end"),
    ],
)
def test_a_span_that_cuts_a_window_is_refused(span: Period, field: str) -> None:
    with pytest.raises(SpanRefusedError, match=f"{field}: It has to be at a quarter of an hour"):
        cost_by_sandbox(open_account().pk, span)


def test_a_name_that_no_label_can_have_is_refused() -> None:
    with pytest.raises(LabelNameError):
        cost_by_label(open_account().pk, MAY, name="no name")


# The API


def costs(account: Account, query: str) -> Any:
    key = services.issue_api_key(account.pk, name="test", now=NOON).key
    return Client().get(f"/api/v1/usage/costs?{query}", headers={"Authorization": f"Bearer {key}"})


def test_costs_are_shown_as_text_the_highest_first() -> None:
    account = tiered_account()
    use(account, "a", NOON, cpu_s=500)
    use(account, "b", NOON + WINDOW, cpu_s=1500, memory_gb_s=10)
    answer = costs(account, "start=2026-05-01T00:00:00Z&end=2026-06-01T02:00:00%2B02:00")
    assert answer.status_code == 200
    assert answer.json() == {
        "period": {"start": "2026-05-01T00:00:00Z", "end": "2026-06-01T00:00:00Z"},
        "currency": "USD",
        "raw_cost": "11.2",
        "without_usage": "0",
        "costs": [
            {
                "key": "b",
                "cost": "8.45",
                "cost_by_meter": {"cpu": "8.25", "memory": "0.2"},
            },
            {"key": "a", "cost": "2.75", "cost_by_meter": {"cpu": "2.75"}},
        ],
        "others": {"keys": 0, "cost": "0", "cost_by_meter": {}},
    }


def test_keys_past_the_most_are_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("billing.cost_queries.MOST_KEYS", 1)
    account = tiered_account()
    use(account, "a", NOON, cpu_s=300)
    use(account, "b", NOON + WINDOW, cpu_s=200, memory_gb_s=1)
    use(account, "c", NOON + 2 * WINDOW, cpu_s=100)
    body = costs(account, "start=2026-05-01T00:00:00Z&end=2026-06-01T00:00:00Z").json()
    assert [cost["key"] for cost in body["costs"]] == ["a"]
    assert body["others"] == {
        "keys": 2,
        "cost": "3.02",
        "cost_by_meter": {"cpu": "3", "memory": "0.02"},
    }
    assert body["raw_cost"] == "6.02"


def test_costs_are_shown_by_label_and_what_has_none_under_null() -> None:
    account = tiered_account()
    use(account, "a", NOON, cpu_s=100, labels={"team": "x"})
    use(account, "b", NOON + WINDOW, cpu_s=200)
    span = "start=2026-05-01T00:00:00Z&end=2026-06-01T00:00:00Z"
    body = costs(account, f"{span}&group_by=label&label=team").json()
    assert [(cost["key"], cost["cost"]) for cost in body["costs"]] == [(None, "2"), ("x", "1")]


@pytest.mark.parametrize(
    ("query", "field", "says"),
    [
        ("end=2026-06-01T00:00:00Z", "start", "required"),
        ("start=2026-05-01T00:00:00Z", "end", "required"),
        ("start=2026-05-01&end=2026-06-01T00:00:00Z", "start", "no offset"),
        ("start=yesterday&end=2026-06-01T00:00:00Z", "start", "format"),
        ("start=2026-05-01T00:00:00&end=2026-06-01T00:00:00Z", "start", "no offset"),
        ("start=1999-05-01T00:00:00Z&end=1999-06-01T00:00:00Z", "start", "2000 or later"),
        ("start=2026-05-01T00:00:00Z&end=9999-12-31T23:45:00-01:00", "end", "range"),
        ("start=2999-05-01T00:00:00Z&end=2999-06-01T00:00:00Z", "start", "ahead"),
        ("start=2026-05-01T00:00:00Z&end=2026-05-01T00:00:00Z", "end", "after start"),
        ("start=2026-05-01T00:00:00Z&end=2026-08-01T00:15:00Z", "end", "92 days"),
        ("start=2026-05-01T00:01:00Z&end=2026-06-01T00:00:00Z", "start", "quarter"),
        ("start=2026-05-01T00:00:00Z&end=2026-06-01T00:00:01Z", "end", "quarter"),
        ("start=2026-05-01T00:00:00Z&end=2026-06-01T00:00:00Z&group_by=x", "group_by", "valid"),
        ("start=2026-05-01T00:00:00Z&end=2026-06-01T00:00:00Z&group_by=label", "label", "Give"),
        ("start=2026-05-01T00:00:00Z&end=2026-06-01T00:00:00Z&label=team", "label", "only then"),
        (
            "start=2026-05-01T00:00:00Z&end=2026-06-01T00:00:00Z&group_by=label&label=no+name",
            "label",
            "a name is",
        ),
    ],
)
def test_a_question_that_is_no_good_names_the_field(query: str, field: str, says: str) -> None:
    answer = costs(open_account(), query)
    assert answer.status_code == 400
    ((named, (message,)),) = errors_of(answer).items()
    assert named == field
    assert says in message


def test_costs_are_not_shown_without_a_key(set_clock: Callable[[datetime], None]) -> None:
    set_clock(NOON + GRACE)
    assert Client().get("/api/v1/usage/costs").status_code == 401
