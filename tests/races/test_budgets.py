"""Budgets that are made at the same moment, for the last place that an account has."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from multiprocessing import get_context
from uuid import UUID

import pytest

from billing import services
from billing.models import Account, Budget
from billing.services import BudgetChange, BudgetRefusedError, own_budgets
from billing.services.own_budgets import MOST_BUDGETS
from tests.billing.usage import open_account
from tests.races.workers import run_at_once

pytestmark = pytest.mark.django_db(transaction=True)


def without_a_lock(account_id: UUID) -> Account:
    return Account.objects.get(pk=account_id)


def two_take_the_last_place() -> int:
    """Let two make a budget where one more may be; return how many there are."""
    account = open_account()

    def terms(name: str) -> BudgetChange:
        return BudgetChange(name=name, amount=Decimal(5))

    Budget.objects.bulk_create(
        [Budget(account=account, name=str(at), amount=5) for at in range(MOST_BUDGETS - 1)]
    )

    def make(number: int) -> None:
        with suppress(BudgetRefusedError):
            services.create_budget(account.pk, terms(f"of {number}"))

    assert run_at_once(make, workers=2) == [0, 0]
    return Budget.objects.count()


def test_of_two_for_the_last_place_one_is_refused() -> None:
    assert two_take_the_last_place() == MOST_BUDGETS


def test_without_the_accounts_lock_there_is_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    applied: Callable[[Budget, BudgetChange], None] = own_budgets._apply
    meeting = get_context("fork").Barrier(2)

    def apply_and_wait(budget: Budget, change: BudgetChange) -> None:
        applied(budget, change)
        meeting.wait(20)

    monkeypatch.setattr(own_budgets, "lock_account", without_a_lock)
    monkeypatch.setattr(own_budgets, "_apply", apply_and_wait)
    assert two_take_the_last_place() == MOST_BUDGETS + 1
