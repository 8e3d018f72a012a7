from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core import mail
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from billing import services, tasks
from billing.models import Account, Budget, MailMessage
from billing.services.budgets import BUDGETS_AT_ONCE
from metering.models import UsageRecord
from tests.billing.mail import open_with_owner, send_waiting
from tests.billing.usage import JUNE, NOON, record_usage

pytestmark = pytest.mark.django_db

# 0.12 USD by the seeded prices of cpu.
TWELVE_CENTS = 10_000


def budget_of(account: Account, amount: str = "1", **said: Any) -> Budget:
    fields = {"name": "Sandboxes", "amount": Decimal(amount), **said}
    return Budget.objects.create(account=account, **fields)


def use(account: Account, cents: int, number: int = 0) -> None:
    """Use cpu for so many cents, a multiple of 12, in a window of its own."""
    at = NOON + timedelta(hours=number)
    record_usage(account.pk, at, cpu_s=TWELVE_CENTS * cents // 12)


def subjects() -> list[str]:
    rows = MailMessage.objects.order_by("created_at").values_list("subject", flat=True)
    return list(rows)


def test_a_reached_threshold_is_told_of_in_full() -> None:
    account = open_with_owner()
    Account.objects.filter(pk=account.pk).update(tax_rate=Decimal("0.25"))
    budget_of(account, "3")
    use(account, 144)
    services.tell_reached_budgets(NOON)
    send_waiting(NOON)
    (sent,) = mail.outbox
    assert sent.subject == "50 % of a budget reached: Sandboxes"
    lines = sent.body.splitlines()
    assert lines[0] == '50 % of the budget "Sandboxes" is reached.'
    # With tax, as `usage/current` has it in total_amount.
    for fact in (
        "Amount: 3.00 USD",
        "Cost so far: 1.80 USD (60.0 %)",
        "Period: 1 May 2026, 00:00 to 1 June 2026, 00:00 (UTC)",
        "Nothing is stopped: the budget only tells.",
    ):
        assert fact in lines


@pytest.mark.parametrize(
    ("cents", "told"), [(0, None), (48, None), (60, 50), (72, 50), (84, 80), (108, 100), (600, 100)]
)
def test_of_several_thresholds_the_highest_is_told_of(cents: int, told: int | None) -> None:
    account = open_with_owner()
    budget_of(account, "1.05" if cents == 84 else "1")
    if cents == 60:
        Budget.objects.update(amount=Decimal("1.20"))
    if cents:
        use(account, cents)
    services.tell_reached_budgets(NOON)
    assert subjects() == ([f"{told} % of a budget reached: Sandboxes"] if told else [])


def test_each_threshold_is_told_of_once_a_period_whatever_the_cost_does() -> None:
    account = open_with_owner()
    budget_of(account)
    minutes = iter(range(5, 600, 5))

    def look() -> int:
        services.tell_reached_budgets(NOON + timedelta(minutes=next(minutes)))
        return MailMessage.objects.count()

    use(account, 60)
    assert [look(), look()] == [1, 1]
    use(account, 24, 1)
    assert [look(), look()] == [2, 2]
    # Records are brought up to date: the cost falls, and comes back.
    UsageRecord.objects.update(cpu_ns=0, closing_cpu_ns=0)
    assert look() == 2
    UsageRecord.objects.update(cpu_ns=42 * 10**12, closing_cpu_ns=42 * 10**12)
    assert look() == 3
    assert [subject.split(" %")[0] for subject in subjects()] == ["50", "80", "100"]
    # Another period begins at nothing.
    record_usage(account.pk, JUNE.start + timedelta(days=1), cpu_s=5 * TWELVE_CENTS)
    services.tell_reached_budgets(JUNE.start + timedelta(days=2))
    assert subjects()[3:] == ["50 % of a budget reached: Sandboxes"]


def test_another_amount_is_another_budget_to_reach() -> None:
    account = open_with_owner()
    budget = budget_of(account)
    use(account, 120)
    services.tell_reached_budgets(NOON)
    Budget.objects.filter(pk=budget.pk).update(amount=2)
    services.tell_reached_budgets(NOON + timedelta(minutes=5))
    assert [subject.split(" %")[0] for subject in subjects()] == ["100", "50"]


def test_a_budget_that_is_not_active_tells_nothing() -> None:
    account = open_with_owner()
    budget_of(account, is_active=False)
    use(account, 120)
    services.tell_reached_budgets(NOON)
    assert subjects() == []


def test_the_budget_left_alone_longest_comes_first() -> None:
    account = open_with_owner()
    Budget.objects.bulk_create(
        Budget(account=account, name=str(hours), amount=1, looked_at=NOON - timedelta(hours=hours))
        for hours in range(1, BUDGETS_AT_ONCE + 2)
    )
    assert services.tell_reached_budgets(NOON) is True
    left = Budget.objects.exclude(looked_at=NOON)
    assert [budget.name for budget in left] == ["1"]
    assert services.tell_reached_budgets(NOON) is False
    assert not Budget.objects.exclude(looked_at=NOON).exists()


def test_one_bad_account_stops_only_itself() -> None:
    bad, good = open_with_owner("Bad"), open_with_owner("Good", "good@example.com")
    for account in (bad, good):
        budget_of(account)
        use(account, 120)
    Account.objects.filter(pk=bad.pk).update(currency="EUR")  # has no prices
    services.tell_reached_budgets(NOON)
    told = MailMessage.objects.values_list("account__name", flat=True)
    assert "Good" in told
    assert "Bad" not in told
    assert Budget.objects.filter(looked_at=NOON).count() == 2


def test_the_task_looks_at_all(set_clock: Callable[[datetime], None]) -> None:
    set_clock(NOON)
    account = open_with_owner()
    use(account, 120)
    for number in range(BUDGETS_AT_ONCE + 5):
        budget_of(account, name=f"{number:03}", thresholds=[100])
    tasks.tell_reached_budgets()
    assert MailMessage.objects.count() == BUDGETS_AT_ONCE + 5


def test_more_accounts_are_not_more_reading_of_facts() -> None:
    counts = []
    for number in (1, 8):
        for each in range(number):
            account = open_with_owner(f"Ada {number}", f"ada{number}.{each}@example.com")
            budget_of(account)
        with CaptureQueriesContext(connection) as queries:
            services.tell_reached_budgets(NOON + timedelta(minutes=number))
        counts.append(len(queries))
    assert counts[1] == counts[0]


@pytest.mark.parametrize(
    ("said", "constraint"),
    [
        ({"amount": "0"}, "budget_is_above_0"),
        ({"thresholds": []}, "budget_has_thresholds_above_0"),
        ({"thresholds": [0, 50]}, "budget_has_thresholds_above_0"),
    ],
)
def test_a_budget_that_says_nothing_is_refused(said: dict[str, Any], constraint: str) -> None:
    account = open_with_owner()
    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        budget_of(account, **said)
