"""Workers that look at the same budgets at once, while these are changed, or taken away."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from multiprocessing import get_context
from typing import Any

import pytest

from billing import services
from billing.credits import CreditKind
from billing.models import Budget, BudgetCap, BudgetState, Event, MailMessage
from billing.services import budgets, caps
from billing.services.budget_thresholds import Spent
from payments.models import PlatformRequest
from payments.services import capping
from payments.services.capping import follow_cap, follow_caps
from tests.billing.mail import open_with_owner
from tests.billing.test_budgets import budget_of, use
from tests.billing.test_caps import capped_account
from tests.billing.usage import JUNE, NOON
from tests.races.test_members import without_a_lock
from tests.races.workers import WORKERS, run_at_once

pytestmark = pytest.mark.django_db(transaction=True)

LATER = NOON + timedelta(seconds=15)
fork = get_context("fork")


def look(_worker: int) -> None:
    services.look_at_caps(NOON)
    services.tell_reached_budgets(NOON)


def costly_account() -> Budget:
    account = open_with_owner()
    budget = budget_of(account, hard_cap=True)
    use(account, 120)
    return budget


def meet_before(monkeypatch: pytest.MonkeyPatch, place: object, name: str) -> None:
    """Let two workers wait for each other before a step that only one of them is to reach."""
    step: Callable[..., Any] = getattr(place, name)
    meeting = fork.Barrier(2)

    def wait_and_step(*args: Any, **said: Any) -> Any:
        meeting.wait(20)
        return step(*args, **said)

    monkeypatch.setattr(place, name, wait_and_step)


def told(event_type: str) -> tuple[int, int]:
    """Return how often an event was written, and its e-mail."""
    kind = event_type.replace(".", "_")
    return (
        Event.objects.filter(type=event_type).count(),
        MailMessage.objects.filter(kind=kind).count(),
    )


def test_ten_who_look_at_once_cap_and_tell_once() -> None:
    costly_account()
    assert run_at_once(look) == [0] * WORKERS
    assert BudgetCap.objects.count() == 1
    assert told("budget.capped") == told("budget.reached") == (1, 1)


def test_without_the_accounts_lock_two_cap_and_one_of_them_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    costly_account()
    monkeypatch.setattr(caps, "lock_account", without_a_lock)
    meet_before(monkeypatch, caps, "_cap")
    statuses = run_at_once(lambda _: services.look_at_caps(NOON), workers=2)
    assert sorted(statuses) == [0, 1]


def lifts_of(work: Callable[[int], object]) -> int:
    """Let two workers do something at once; return how often a cap was lifted."""
    lifts = fork.Value("i", 0)
    lift = caps._lift

    def lift_and_count(*args: Any, **said: Any) -> None:
        with lifts.get_lock():
            lifts.value += 1
        lift(*args, **said)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(caps, "_lift", lift_and_count)
        assert run_at_once(work, workers=2) == [0, 0]
    assert not BudgetCap.objects.filter(lifted_at=None).exists()
    return int(lifts.value)


def test_a_cap_that_a_sweep_and_the_customer_lift_is_lifted_once() -> None:
    _, budget = capped_account()

    def work(number: int) -> None:
        change = services.BudgetChange(hard_cap=False)
        services.change_budget(budget.account_id, budget.pk, change, now=LATER)
        if number:
            services.look_at_caps(LATER)

    assert lifts_of(work) == 1
    assert told("budget.cap_lifted") == (1, 1)


def test_a_cap_that_two_sweeps_lift_is_lifted_once() -> None:
    _, budget = capped_account()
    Budget.objects.filter(pk=budget.pk).update(hard_cap=False)
    assert lifts_of(lambda _: services.look_at_caps(LATER)) == 1
    assert told("budget.cap_lifted") == (1, 1)


def test_without_the_accounts_lock_it_is_lifted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    _, budget = capped_account()
    Budget.objects.filter(pk=budget.pk).update(hard_cap=False)
    monkeypatch.setattr(caps, "lock_account", without_a_lock)
    # Between the look at the cap and what follows.
    meet_before(monkeypatch, caps, "looked_at_since")
    assert lifts_of(lambda _: services.look_at_caps(LATER)) == 2


def test_a_budget_that_is_removed_while_ten_look_leaves_nobody_capped() -> None:
    budget = costly_account()

    def work(number: int) -> None:
        if number == 0:
            services.remove_budget(budget.account_id, budget.pk, now=NOON)
        else:
            look(number)

    assert run_at_once(work) == [0] * WORKERS
    assert not Budget.objects.exists()
    assert not BudgetState.objects.exists()
    assert not BudgetCap.objects.filter(lifted_at=None).exists()
    assert told("budget.capped") == told("budget.cap_lifted")


def test_a_budget_that_is_removed_between_look_and_cap_caps_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    budget = costly_account()
    enforce = caps._enforce

    def remove_and_enforce(*args: Any, **said: Any) -> None:
        with suppress(Budget.DoesNotExist):
            services.remove_budget(budget.account_id, budget.pk, now=NOON)
        enforce(*args, **said)

    monkeypatch.setattr(caps, "_enforce", remove_and_enforce)
    services.look_at_caps(NOON)
    assert not BudgetCap.objects.exists()


def test_who_looked_before_a_credit_does_not_cap_again(monkeypatch: pytest.MonkeyPatch) -> None:
    account, _ = capped_account()
    keep = budgets._keep

    def grant_and_keep(states: Any, *, now: Any) -> None:
        # Another worker sees a credit, and lifts, before this one writes down what it saw.
        monkeypatch.undo()
        gift = services.Gift(CreditKind.PROMOTIONAL, Decimal(1), "Sorry", "S-1")
        services.grant_credit(account.pk, gift, now=LATER)
        services.look_at_caps(LATER + timedelta(seconds=1))
        keep(states, now=now)

    monkeypatch.setattr(budgets, "_keep", grant_and_keep)
    services.tell_reached_budgets(LATER)
    assert BudgetCap.objects.get().lifted_because == "cost_fell"
    assert BudgetState.objects.get().looked_at == LATER + timedelta(seconds=1)


def test_who_looked_in_the_last_period_does_not_cap_in_this_one() -> None:
    account, budget = capped_account()
    services.look_at_caps(JUNE.start)
    assert BudgetCap.objects.get().lifted_because == "period_ended"
    before = budgets._spent_by([account], now=NOON)[account.pk]
    stale = {account.pk: Spent(before.period, before.total)}
    caps.enforce_caps([budget], stale, {budget.pk: Decimal(0)}, now=LATER)
    assert BudgetCap.objects.count() == 1


def test_ten_who_follow_a_cap_ask_the_platform_once() -> None:
    capped_account()
    assert run_at_once(lambda _: follow_caps(NOON)) == [0] * WORKERS
    assert PlatformRequest.objects.count() == 1


def test_without_the_accounts_lock_two_ask_and_one_of_them_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    account, _ = capped_account()
    monkeypatch.setattr(capping, "lock_account", without_a_lock)
    meet_before(monkeypatch, capping, "ask_platform")
    statuses = run_at_once(lambda _: follow_cap(account.pk, now=NOON), workers=2)
    assert sorted(statuses) == [0, 1]
