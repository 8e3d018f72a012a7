from __future__ import annotations

import json
from decimal import Decimal
from io import StringIO
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.test.utils import CaptureQueriesContext

from billing import services
from billing.credits import CreditKind
from billing.fees import Interval
from billing.models import Account, DiscountRule, Invoice, Plan, Price, PriceBook
from billing.money import Money
from billing.rating import Unpriced
from billing.services import Gift
from billing.totals import Tax
from billing.what_if import (
    Comparison,
    WhatIfRefusedError,
    accounts_asked,
    add_up,
    ask,
    compare,
    find_worst,
)
from metering.meters import Meter
from metering.models import UsageRecord
from metering.period import Period
from tests.billing.price_lists import add_tiered_price, make_book
from tests.billing.usage import (
    GRACE,
    JUNE,
    MAY,
    NOON,
    OPENED,
    open_account,
    read_streams_until,
    record_first_invoice,
    record_usage,
)

pytestmark = pytest.mark.django_db

USD_240 = 20_000_000
"""So many seconds of cpu are 240.00 at the default prices."""
USD_12 = 1_000_000


@pytest.fixture(autouse=True)
def _no_discounts() -> None:
    """Take away the rules that migrations make: these sums have their own."""
    DiscountRule.objects.all().delete()


def usd(amount: str) -> Money:
    return Money(Decimal(amount), "USD")


def close(account: Account, *periods: Period) -> list[Invoice | None]:
    closed = []
    for period in periods:
        read_streams_until(period.end + GRACE)
        draft = services.draft_invoice(account.pk, period=period, now=period.end)
        closed.append(services.finalise_invoice(draft.pk, now=period.end + GRACE))
    account.refresh_from_db()
    return closed


def compared(account: Account, **asked: Any) -> Comparison:
    found = compare(account, ask(**{"months": 1} | asked))
    assert found is not None
    return found


def plan_costs(one: Comparison) -> dict[str, Money]:
    return {code: side.cost for code, side in one.plans.items()}


@pytest.mark.parametrize(
    ("cpu_s", "costs", "cheapest"),
    [
        # 0.27 of usage; the credits of the larger plans pay it.
        (None, {"developer": "0.27", "professional": "99", "team": "299"}, "developer"),
        # 240 of usage: 240, 99 + 140, 299.
        (USD_240, {"developer": "240", "professional": "239", "team": "299"}, "professional"),
        # 600 of usage: 600, 99 + 500, 299 + 300; of equals the first.
        (
            USD_240 * 5 // 2,
            {"developer": "600", "professional": "599", "team": "599"},
            "professional",
        ),
        # 612 of usage: 612, 99 + 512, 299 + 312.
        (
            USD_240 * 5 // 2 + USD_12,
            {"developer": "612", "professional": "611", "team": "611"},
            None,
        ),
    ],
)
def test_a_month_under_each_plan_on_offer(
    cpu_s: int | None, costs: dict[str, str], cheapest: str | None
) -> None:
    account = open_account(plan_code="professional")
    if cpu_s is None:
        record_first_invoice(account.pk)
    else:
        record_usage(account.pk, cpu_s=cpu_s)
    close(account, MAY)
    one = compared(account, plan_code="team")
    assert plan_costs(one) == {code: usd(cost) for code, cost in costs.items()}
    assert one.as_it_is.cost == usd(costs["professional"])
    assert one.other is not None
    assert one.other.cost == usd(costs["team"])
    assert one.difference == usd(costs["team"]) - usd(costs["professional"])
    if cheapest:
        assert one.cheapest == (cheapest, usd(costs[cheapest]))


@pytest.mark.parametrize("plan_code", ["developer", "professional", "team"])
def test_the_plan_an_account_is_on_changes_nothing(plan_code: str) -> None:
    account = open_account(plan_code=plan_code)
    Account.objects.update(tax_rate=Decimal("0.19"))
    account.refresh_from_db()
    DiscountRule.objects.create(
        name="Plan",
        kind="volume",
        scope="plan",
        plan=Plan.objects.get(code=plan_code),
        percent=Decimal(7),
    )
    record_usage(account.pk, cpu_s=USD_240 * 2 + 1, memory_gb_s=1_234_567)
    invoice = close(account, MAY)[0]
    one = compared(account, plan_code=plan_code)
    assert one.other is not None
    assert invoice is not None
    assert one.other.cost == one.as_it_is.cost == Money(invoice.total_amount, "USD")
    assert one.difference == usd("0")


def test_the_book_an_account_pays_by_changes_nothing() -> None:
    account = open_account(plan_code="team")
    record_usage(account.pk, cpu_s=USD_240 * 2 + 1)
    close(account, MAY)
    one = compared(account, price_book_code="default")
    assert one.difference == usd("0")


def test_as_it_is_is_what_the_invoices_said() -> None:
    account = open_account(plan_code="professional")
    record_usage(account.pk, cpu_s=USD_240)
    services.subscribe(account.pk, plan_code="team", now=NOON)
    record_usage(account.pk, JUNE.start, cpu_s=USD_240 * 2)
    invoices = close(account, MAY, JUNE)
    one = compared(account, months=2)
    assert one.periods == (MAY, JUNE)
    assert one.as_it_is.cost.amount == sum(i.total_amount for i in invoices if i)
    assert compared(account, months=1).periods == (JUNE,)
    assert compared(account, months=24).periods == (MAY, JUNE)


def test_as_it_is_stays_what_was_invoiced_after_a_change_of_time_zone() -> None:
    account = open_account(plan_code="professional")
    record_first_invoice(account.pk)
    services.change_cycle(account.pk, now=NOON, time_zone="Asia/Tokyo")
    close(account, MAY)
    assert account.time_zone == "Asia/Tokyo"
    one = compared(account, plan_code="team")
    assert (one.as_it_is.cost, one.difference) == (usd("99"), usd("200"))


def test_a_trial_and_agreed_terms_are_as_it_is_and_not_under_the_plan() -> None:
    account = open_account()
    book = make_book("agreed", account=account, cpu="0.00001")
    services.subscribe(
        account.pk,
        plan_code="enterprise",
        now=OPENED,
        agreed=services.AgreedTerms(
            fee=Decimal(50), price_book=book, commitment_minimum=Decimal(300), commitment_months=12
        ),
    )
    # 200 of usage at the agreed price, lifted to 300; 240 at the default one.
    record_usage(account.pk, cpu_s=USD_240)
    close(account, MAY)
    one = compared(account, plan_code="professional")
    assert one.as_it_is.cost == usd("350")
    assert one.difference == usd("239") - usd("350")
    # The fee stays, 240 are lifted to 300 as well.
    assert compared(account, price_book_code="default").difference == usd("0")


def test_promotional_and_prepaid_credit_count_on_neither_side() -> None:
    account = open_account()
    for kind in (CreditKind.PROMOTIONAL, CreditKind.PREPAID):
        gift = Gift(kind=kind, amount=Decimal(30), reason="hello", reference=kind)
        services.grant_credit(account.pk, gift, now=OPENED)
    record_usage(account.pk, cpu_s=USD_240)
    invoice = close(account, MAY)[0]
    assert invoice is not None
    assert (invoice.credits_used, invoice.prepaid_used) == (Decimal(30), Decimal(30))
    one = compared(account, plan_code="professional")
    assert (one.as_it_is.cost, one.difference) == (usd("240"), usd("-1"))


def test_credit_that_rolls_over_pays_the_next_period() -> None:
    Plan.objects.create(
        code="saver",
        name="Saver",
        price_book=PriceBook.objects.get(code="default"),
        monthly_fee=Decimal(10),
        monthly_credits=Decimal(100),
        credit_rollover_periods=1,
    )
    account = open_account()
    record_usage(account.pk, cpu_s=USD_12)
    record_usage(account.pk, JUNE.start, cpu_s=15 * USD_12)
    close(account, MAY, JUNE)
    # May: 10, and 88 of 100 credits are left. June: 10 + 180 − 180 of 188.
    assert plan_costs(compared(account, months=2))["saver"] == usd("20")
    # June alone: 10 + 180 − 100.
    assert plan_costs(compared(account, months=1))["saver"] == usd("90")


def test_rules_of_the_other_plan_hold_under_it() -> None:
    DiscountRule.objects.create(
        name="Team",
        kind="volume",
        scope="plan",
        plan=Plan.objects.get(code="team"),
        percent=Decimal(50),
    )
    account = open_account()
    record_usage(account.pk, cpu_s=USD_240 * 5)
    close(account, MAY)
    one = compared(account, plan_code="team")
    # 1200 as it is; 299 + 600 − 300.
    assert (one.as_it_is.cost, one.difference) == (usd("1200"), usd("-601"))


def test_other_prices_with_tiers_count_by_period() -> None:
    book = make_book("tiered")
    add_tiered_price(
        book, Meter.CPU, [("1000000", "0.0001", "0"), (None, "0.00001", "0")], "graduated"
    )
    account = open_account(plan_code="professional")
    record_usage(account.pk, cpu_s=3_000_000)
    record_usage(account.pk, JUNE.start, cpu_s=1_000_000)
    close(account, MAY, JUNE)
    # 99 − 0 as it is each time: 36 and 12 are paid by credits. Tiered: 120 and 100.
    one = compared(account, months=2, price_book_code="tiered")
    assert (one.as_it_is.cost, one.difference) == (usd("198"), usd("20"))


def test_a_plan_at_another_books_prices_is_both() -> None:
    make_book("dear", cpu="0.00003")
    account = open_account()
    record_usage(account.pk, cpu_s=USD_240)
    close(account, MAY)
    one = compared(account, plan_code="professional", price_book_code="dear")
    # 99 + 600 − 100.
    assert one.other is not None
    assert one.other.cost == usd("599")


def test_usage_that_the_other_prices_leave_out_is_shown() -> None:
    make_book("cpu-only", cpu="0.000012")
    account = open_account()
    record_usage(account.pk, cpu_s=USD_12, memory_gb_s=500, disk_write_bytes=7)
    close(account, MAY)
    one = compared(account, price_book_code="cpu-only")
    assert one.as_it_is.unpriced == ()
    assert one.other is not None
    assert [(u.meter, u.reason) for u in one.other.unpriced] == [
        (Meter.MEMORY, Unpriced.METER_NOT_CHARGED)
    ]


def test_a_book_without_prices_in_force_prices_nothing_and_says_so() -> None:
    book = PriceBook.objects.create(code="empty", name="Empty")
    Plan.objects.create(code="void", name="Void", price_book=book, monthly_fee=Decimal(0))
    account = open_account()
    record_usage(account.pk, cpu_s=USD_12)
    close(account, MAY)
    one = compared(account, price_book_code="empty")
    assert one.other is not None
    assert one.other.cost == usd("0")
    assert [(u.meter, u.reason, u.quantity) for u in one.other.unpriced] == [
        (Meter.CPU, Unpriced.NO_PRICES_IN_FORCE, USD_12 * 10**9)
    ]
    # It costs nothing, and only for the want of prices.
    assert plan_costs(one)["void"] == usd("0")
    assert one.cheapest == ("developer", usd("12"))


def test_a_plan_of_another_currency_is_not_compared() -> None:
    account = services.open_account(name="Aiko", now=OPENED, currency="JPY", tax=Tax())
    Price.objects.create(
        version=PriceBook.objects.get(code="default").versions.get(),
        meter=Meter.CPU,
        currency="JPY",
        unit_price=Decimal("0.002"),
    )
    record_usage(account.pk, cpu_s=USD_12)
    close(account, MAY)
    one = compared(account, plan_code="team")
    assert (one.other, one.difference, one.cheapest) == (None, None, None)
    assert one.as_it_is.cost == Money(Decimal(2000), "JPY")
    assert add_up([one]) == []


def test_accounts_without_usage_or_closed_periods_are_left_out() -> None:
    fresh, idle = open_account("Fresh"), open_account("Idle", plan_code="team")
    record_usage(fresh.pk, JUNE.start, cpu_s=1)
    close(idle, MAY)
    question = ask(months=3)
    assert [compare(account, question) for account in (fresh, idle)] == [None, None]
    assert list(accounts_asked(ask(months=1, account_id=idle.pk))) == [idle]


def test_a_period_whose_usage_is_gone_is_left_out_and_counted() -> None:
    account = open_account(plan_code="professional")
    record_usage(account.pk, cpu_s=USD_240)
    close(account, MAY)
    UsageRecord.objects.all().delete()
    record_usage(account.pk, JUNE.start, cpu_s=USD_12)
    close(account, JUNE)
    one = compared(account, months=2)
    assert (one.periods, one.left_out, one.as_it_is.cost) == ((JUNE,), 1, usd("99"))


def test_an_annual_fee_counts_where_its_year_starts() -> None:
    Plan.objects.filter(code="professional").update(annual_fee=Decimal(990))
    account = open_account()
    services.subscribe(account.pk, plan_code="professional", now=OPENED, interval=Interval.ANNUAL)
    record_usage(account.pk, cpu_s=USD_12)
    record_usage(account.pk, JUNE.start, cpu_s=USD_12)
    close(account, MAY, JUNE)
    assert compared(account, months=2).as_it_is.cost == usd("990")
    assert compared(account, months=1).as_it_is.cost == usd("0")


def test_totals_and_the_worst_are_told_by_currency() -> None:
    for number in range(12):
        account = open_account(f"Account {number:02}")
        record_usage(account.pk, cpu_s=USD_12 * (number + 1))
        close(account, MAY)
    make_book("double", cpu="0.000024")
    question = ask(months=1, price_book_code="double")
    found = [one for account in accounts_asked(question) if (one := compare(account, question))]
    # 12 × (1 + … + 12) = 936.
    assert [(t.accounts, t.as_it_is, t.other, t.difference) for t in add_up(found)] == [
        (12, usd("936"), usd("1872"), usd("936"))
    ]
    worst = find_worst(found)
    assert [one.name for one in worst] == [f"Account {n:02}" for n in range(11, 1, -1)]


# The command


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("what_if", *arguments, stdout=out)
    return out.getvalue()


def test_the_command_answers_in_json_with_decimals_as_text() -> None:
    account = open_account("[Ada]", plan_code="professional")
    record_usage(account.pk, cpu_s=USD_240)
    close(account, MAY)
    answer = json.loads(run("--months=1", "--plan=team", "--json"), parse_float=str)
    assert answer == {
        "months": 1,
        "plan": "team",
        "price_book": None,
        "accounts": [
            {
                "account": str(account.pk),
                "name": "[Ada]",
                "currency": "USD",
                "periods": [
                    {"start": "2026-05-01T00:00:00+00:00", "end": "2026-06-01T00:00:00+00:00"}
                ],
                "periods_left_out": 0,
                "as_it_is": "239.00",
                "other": "299.00",
                "difference": "60.00",
                "cheapest_plan": "professional",
                "cheapest": "239.00",
                "plans": {"developer": "240.00", "professional": "239.00", "team": "299.00"},
                "unpriced_as_it_is": [],
                "unpriced": [],
            }
        ],
        "totals": [
            {
                "currency": "USD",
                "accounts": 1,
                "as_it_is": "239.00",
                "other": "299.00",
                "difference": "60.00",
            }
        ],
        "worst": [
            {
                "account": str(account.pk),
                "name": "[Ada]",
                "currency": "USD",
                "difference": "60.00",
            }
        ],
    }
    assert "[Ada]" in run("--months=1", "--plan=team")
    assert "+60.00" in run("--months=1", "--plan=team")


def test_the_command_compares_the_plans_on_offer_by_itself() -> None:
    assert "No account has a closed period" in run("--months=1")
    account = open_account()
    record_usage(account.pk, cpu_s=USD_240)
    close(account, MAY)
    answer = json.loads(run("--months=24", f"--account={account.pk}", "--json"))
    assert (answer["accounts"][0]["other"], answer["accounts"][0]["cheapest"]) == (None, "239.00")
    assert "professional" in run("--months=1")


def test_the_command_writes_nothing() -> None:
    account = open_account(plan_code="professional")
    record_usage(account.pk, cpu_s=USD_240)
    close(account, MAY)
    with CaptureQueriesContext(connection) as queries:
        run("--months=3", "--plan=team", "--price-book=default")
    verbs = {query["sql"].split()[0] for query in queries.captured_queries}
    assert verbs <= {"SELECT", "SAVEPOINT", "RELEASE", "DECLARE"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--months=0"], "argument --months: '0': give a whole number from 1 to 24."),
        (["--months=25"], "argument --months: '25': give a whole number from 1 to 24."),
        (["--months=many"], "argument --months: 'many': give a whole number"),
        ([], "the following arguments are required: --months"),
        (["--months=1", "--plan=nope"], "--plan nope: there is no such plan. There are: develop"),
        (["--months=1", "--plan=enterprise"], "--plan enterprise has no monthly fee"),
        (["--months=1", "--price-book=nope"], "--price-book nope: there is no such price book."),
        (["--months=1", "--account=7"], "argument --account: '7' is not an id."),
        (["--months=1", f"--account={uuid4()}"], "there is no such account."),
    ],
)
def test_what_cannot_be_answered_names_the_argument(arguments: list[str], says: str) -> None:
    with pytest.raises(CommandError) as refused:
        run(*arguments)
    assert says in str(refused.value)


def test_a_refusal_names_its_argument() -> None:
    with pytest.raises(WhatIfRefusedError) as refused:
        ask(months=0)
    assert refused.value.argument == "--months"
