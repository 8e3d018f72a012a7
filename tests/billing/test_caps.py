from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.conf import settings
from django.core import mail
from django.db import transaction

from billing import services
from billing.models import Account, Budget, BudgetCap, BudgetState, Event, MailMessage
from billing.services import budgets, caps
from billing.services.caps import enforcement_time, overshoot_bound
from billing.signals import account_capped, account_uncapped
from metering.models import LifeReading
from metering.period import to_ms
from soulbox.celery import app
from tests.billing.mail import open_with_owner, send_waiting
from tests.billing.test_budgets import budget_of, use
from tests.billing.usage import JUNE, NOON

SECOND = timedelta(seconds=1)

pytestmark = pytest.mark.django_db


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What the signals say."""
    heard: list[str] = []

    def capped(**_said: Any) -> None:
        heard.append("capped")

    def uncapped(**_said: Any) -> None:
        heard.append("uncapped")

    account_capped.connect(capped)
    account_uncapped.connect(uncapped)
    yield heard
    account_capped.disconnect(capped)
    account_uncapped.disconnect(uncapped)


def read(account: Account, seconds: int) -> None:
    """Say that the newest reading was so many seconds after noon."""
    LifeReading.objects.filter(life__sandbox__account_id=account.pk).update(
        read_ms=to_ms(NOON + seconds * SECOND)
    )


def look(seconds: int = 0) -> int:
    return len(services.look_at_caps(NOON + seconds * SECOND))


def capped_account(cents: int = 120) -> tuple[Account, Budget]:
    account = open_with_owner()
    budget = budget_of(account, hard_cap=True)
    use(account, cents)
    look()
    return account, budget


def test_a_cost_that_reaches_a_hard_cap_caps_the_account_once(
    said: list[str], django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        account, budget = capped_account()
        for seconds in (15, 30):
            read(account, seconds)
            look(seconds)
    cap = BudgetCap.objects.get()
    assert (cap.account, cap.budget, cap.capped_at) == (account, budget, NOON)
    assert (cap.amount, cap.cost_at_cap, cap.overshoot) == (1, Decimal("1.20"), Decimal("0.20"))
    assert said == ["capped"]
    events = Event.objects.order_by("created_at", "type").values_list("type", flat=True)
    assert list(events) == ["budget.capped", "budget.reached"]
    assert Event.objects.get(type="budget.capped").data["overshoot"] == "0.20"
    send_waiting(NOON)
    send_waiting(NOON)
    (sent,) = [each for each in mail.outbox if each.subject.startswith("Hard cap")]
    assert sent.subject == "Hard cap reached: Sandboxes"
    for fact in ("Hard cap: 1.00 USD", "Cost: 1.20 USD", "Above the cap: 0.20 USD"):
        assert fact in sent.body.splitlines()


@pytest.mark.parametrize(
    ("cents", "said", "is_capped"),
    [
        (96, {"hard_cap": True}, False),
        (108, {"hard_cap": True}, True),
        (120, {"hard_cap": False}, False),
        (120, {"hard_cap": True, "is_active": False}, False),
    ],
)
def test_what_caps(cents: int, said: dict[str, bool], is_capped: bool) -> None:  # noqa: FBT001 - pytest names it
    account = open_with_owner()
    budget_of(account, "1.08", **said)
    use(account, cents)
    look()
    services.tell_reached_budgets(NOON)
    assert BudgetCap.objects.exists() is is_capped


def test_what_is_used_after_the_cap_is_measured() -> None:
    account, _ = capped_account()
    use(account, 36, 1)
    read(account, 60)
    look(60)
    cap = BudgetCap.objects.get()
    assert (cap.cost_at_cap, cap.latest_cost) == (Decimal("1.20"), Decimal("1.56"))
    assert (cap.overshoot, cap.latest_at) == (Decimal("0.56"), NOON + 60 * SECOND)
    assert cap.lifted_at is None


@pytest.mark.parametrize(
    ("change", "because"),
    [
        ({"amount": Decimal(2)}, "raised"),
        ({"hard_cap": False}, "removed"),
        ({"is_active": False}, "removed"),
    ],
)
def test_a_cap_that_is_raised_or_removed_is_lifted(change: dict[str, Any], because: str) -> None:
    _, budget = capped_account()
    # Its sandboxes are stopped, so nothing new is read.
    Budget.objects.filter(pk=budget.pk).update(**change)
    assert look(15) == 1
    assert look(30) == 0
    cap = BudgetCap.objects.get()
    assert (cap.lifted_at, cap.lifted_because) == (NOON + 15 * SECOND, because)
    lifted = Event.objects.get(type="budget.cap_lifted")
    assert (lifted.data["lifted_because"], lifted.data["overshoot"]) == (because, "0.20")
    assert MailMessage.objects.filter(kind=MailMessage.Kind.BUDGET_CAP_LIFTED).count() == 1


def test_a_budget_that_becomes_a_hard_cap_under_its_cost_caps_at_the_next_look() -> None:
    account = open_with_owner()
    budget = budget_of(account)
    use(account, 120)
    services.tell_reached_budgets(NOON)
    assert look(15) == 0
    Budget.objects.filter(pk=budget.pk).update(hard_cap=True)
    assert look(30) == 1
    assert BudgetCap.objects.get().capped_at == NOON + 30 * SECOND


def test_a_cap_that_is_raised_too_little_holds() -> None:
    account, budget = capped_account()
    Budget.objects.filter(pk=budget.pk).update(amount=Decimal("1.1"))
    assert look(15) == 0
    read(account, 15)
    look(15)
    assert BudgetCap.objects.get().lifted_at is None


def test_credit_that_lowers_the_cost_lifts_a_cap() -> None:
    account, _ = capped_account()
    gift = services.Gift(services_kind(), Decimal(1), "Sorry", "S-1")
    services.grant_credit(account.pk, gift, now=NOON + SECOND)
    assert look(15) == 1
    assert look(30) == 0
    assert BudgetCap.objects.get().lifted_because == "cost_fell"


def services_kind() -> Any:
    from billing.credits import CreditKind  # noqa: PLC0415 - beside its one use

    return CreditKind.PROMOTIONAL


def test_the_next_period_lifts_a_cap_and_may_reach_it_again() -> None:
    account, _ = capped_account()
    services.look_at_caps(JUNE.start)
    assert BudgetCap.objects.get().lifted_because == "period_ended"
    use(account, 120, 24 * 25)
    services.look_at_caps(JUNE.start + timedelta(days=5))
    assert BudgetCap.objects.filter(lifted_at=None, period_start=JUNE.start).count() == 1


def test_only_budgets_with_something_new_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    account, _ = capped_account(12)
    other = open_with_owner("Bob", "bob@example.com")
    budget_of(other, hard_cap=True)
    assert look(15) == 1  # the new budget
    monkeypatch.setattr(budgets, "state_period", lambda _facts: pytest.fail("it was compared"))
    assert look(30) == 0
    monkeypatch.undo()
    read(account, 40)
    assert look(45) == 1


def test_a_sweep_goes_on_with_what_it_has_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "BUDGETS_AT_ONCE", 1)
    account = open_with_owner()
    for name in "ABC":
        budget_of(account, name=name, hard_cap=True)
    looked: set[int] = set()
    for _ in range(3):
        (one,) = services.look_at_caps(NOON, but=looked)
        looked.add(one)
    assert services.look_at_caps(NOON, but=looked) == []
    assert len(looked) == 3


def test_the_rate_is_that_of_the_last_minutes_and_bounds_the_overshoot() -> None:
    account = open_with_owner()
    budget = budget_of(account, "10", hard_cap=True)
    use(account, 12)
    look()
    use(account, 48, 1)
    read(account, 360)
    look(360)
    # 0.48 USD in 6 minutes.
    state = BudgetState.objects.get(budget=budget)
    assert state.burn_rate == Decimal("4.8")
    use(account, 960, 2)
    read(account, 600)
    look(600)
    cap = BudgetCap.objects.get()
    # 9.60 USD in 4 minutes: faster than what was known.
    assert cap.burn_rate == Decimal(144)
    seconds = enforcement_time().total_seconds()
    assert seconds == settings.METERING_INTERVAL_S + 15 + 15 + 20
    assert overshoot_bound(cap.burn_rate) == round(Decimal(144) * int(seconds) / 3600, 4)


def test_the_bound_counts_with_the_times_of_the_schedule() -> None:
    schedule = app.conf.beat_schedule
    assert schedule["aggregate"]["schedule"] == caps.AGGREGATING.total_seconds()
    assert schedule["look at caps"]["schedule"] == caps.LOOKING.total_seconds()
    hook_timeout_s = 5
    assert schedule["sweep dunning"]["schedule"] + hook_timeout_s == caps.ASKING.total_seconds()


def test_an_amount_of_money_is_told_of_once_a_period() -> None:
    account = open_with_owner()
    budget = budget_of(account, "10", alert_amounts=[Decimal("0.5"), Decimal(1), Decimal(20)])
    use(account, 120)
    for minutes in (0, 5):
        services.tell_reached_budgets(NOON + timedelta(minutes=minutes))
    event = Event.objects.get()
    assert event.type == "usage.threshold"
    assert event.data == {
        "budget": {"id": budget.pk, "name": "Sandboxes", "amount": "10.00", "hard_cap": False},
        "currency": "USD",
        "cost": "1.20",
        "period": {"start": "2026-05-01T00:00:00Z", "end": "2026-06-01T00:00:00Z"},
        "threshold_amount": "1.00",
    }
    assert MailMessage.objects.get().subject == "1.00 USD of a budget reached: Sandboxes"


def test_an_event_goes_with_the_e_mail_that_says_the_same() -> None:
    account = open_with_owner()
    budget_of(account, "1.20")
    use(account, 60)
    with transaction.atomic():
        services.tell_reached_budgets(NOON)
    event = Event.objects.get()
    assert event.subject_key == MailMessage.objects.get().subject_key
    assert (event.type, event.data["threshold_percent"], event.data["percent"]) == (
        "budget.reached",
        50,
        "50.0",
    )
