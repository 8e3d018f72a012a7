"""What customers do with their budgets: make, change, remove."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from django.db import transaction

from billing.models import Account, Budget, BudgetCap
from billing.models.messages import MOST_PERCENT, default_thresholds
from billing.money import Money
from billing.services.accounts import lock_account, refuse_closing
from billing.services.caps import OPEN, lift_cap

MOST_BUDGETS: Final = 20
"""Of an account: each is compared with what is spent, again and again."""
MOST_MARKS: Final = 20
"""Percentages of a budget that are told of, and amounts."""
LONGEST_NAME: Final = 100
_TOO_MUCH: Final = Decimal(10) ** 16


class BudgetRefusedError(ValueError):
    """The budget cannot be as asked for. `field` names what is wrong, the message the way out."""

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class BudgetChange:
    """What is to be different; None: as it is, and of a new budget as most have it.

    Amounts are in the account's currency.
    """

    name: str | None = None
    amount: Decimal | None = None
    thresholds: Sequence[int] | None = None
    alert_amounts: Sequence[Decimal] | None = None
    hard_cap: bool | None = None
    is_active: bool | None = None


def create_budget(account_id: UUID, terms: BudgetChange) -> Budget:
    """Keep another budget, compared from the next sweep on. Its name is its own in the account.

    Raises BudgetRefusedError, AccountClosingError, Account.DoesNotExist.
    """
    with transaction.atomic():
        account = lock_account(account_id)
        refuse_closing(account)
        if account.budgets.count() >= MOST_BUDGETS:
            raise BudgetRefusedError(
                f"An account has at most {MOST_BUDGETS} budgets. Change or remove one."
            )
        budget = Budget(account=account, name="", thresholds=default_thresholds())
        _apply(budget, terms)
        budget.save(force_insert=True)
    return budget


def change_budget(
    account_id: UUID, budget_id: int, change: BudgetChange, *, now: datetime
) -> Budget:
    """Change what is given of a budget; a cap that does not hold any more is lifted. Repeatable.

    Raises BudgetRefusedError, Budget.DoesNotExist.
    """
    with transaction.atomic():
        account = lock_account(account_id)
        budget = Budget.objects.get(pk=budget_id, account=account)
        budget.account = account
        _apply(budget, change)
        budget.save(
            update_fields=[
                "name",
                "amount",
                "thresholds",
                "alert_amounts",
                "hard_cap",
                "is_active",
            ]
        )
        if ending := _ending(budget):
            lift_cap(budget, ending, now=now)
    return budget


def remove_budget(account_id: UUID, budget_id: int, *, now: datetime) -> None:
    """Compare a budget no more, and lift its cap. Raises Budget.DoesNotExist."""
    with transaction.atomic():
        account = lock_account(account_id)
        budget = Budget.objects.get(pk=budget_id, account=account)
        budget.account = account
        lift_cap(budget, BudgetCap.Ending.REMOVED, now=now)
        budget.delete()


def _ending(budget: Budget) -> BudgetCap.Ending | None:
    """Return why the budget's cap holds no more, as far as its cost is known; else None."""
    if not (budget.is_active and budget.hard_cap):
        return BudgetCap.Ending.REMOVED
    cap = OPEN.filter(budget=budget).first()
    is_raised = cap is not None and budget.amount > max(cap.amount, cap.latest_cost)
    return BudgetCap.Ending.RAISED if is_raised else None


def _apply(budget: Budget, change: BudgetChange) -> None:
    """Set what is given. Raises BudgetRefusedError, naming the first field that is no good."""
    account = budget.account
    if change.name is not None:
        budget.name = _checked_name(budget, change.name)
    elif not budget.name:
        raise BudgetRefusedError("Give the budget a name.", field="name")
    if change.amount is not None:
        _refuse_amount("amount", change.amount, account)
        budget.amount = change.amount
    elif budget.amount is None:
        raise BudgetRefusedError("Give the budget an amount.", field="amount")
    if change.thresholds is not None:
        budget.thresholds = _checked_percentages(change.thresholds)
    if change.alert_amounts is not None:
        budget.alert_amounts = _checked_amounts(change.alert_amounts, account)
    if change.hard_cap is not None:
        budget.hard_cap = change.hard_cap
    if change.is_active is not None:
        budget.is_active = change.is_active


def _checked_name(budget: Budget, said: str) -> str:
    name = said.strip()
    if not 1 <= len(name) <= LONGEST_NAME:
        raise BudgetRefusedError(f"Use 1 to {LONGEST_NAME} characters.", field="name")
    # The account is locked, so nobody takes the name meanwhile.
    if Budget.objects.filter(account=budget.account, name=name).exclude(pk=budget.pk).exists():
        raise BudgetRefusedError("Another budget has this name.", field="name")
    return name


def _checked_percentages(thresholds: Sequence[int]) -> list[int]:
    if not 1 <= len(set(thresholds)) <= MOST_MARKS:
        raise BudgetRefusedError(f"Give 1 to {MOST_MARKS} percentages.", field="thresholds")
    if any(not 1 <= threshold <= MOST_PERCENT for threshold in thresholds):
        raise BudgetRefusedError(f"Use percentages from 1 to {MOST_PERCENT}.", field="thresholds")
    return sorted(set(thresholds))


def _checked_amounts(amounts: Sequence[Decimal], account: Account) -> list[Decimal]:
    if len(set(amounts)) > MOST_MARKS:
        raise BudgetRefusedError(f"Give at most {MOST_MARKS} amounts.", field="alert_amounts")
    for amount in amounts:
        _refuse_amount("alert_amounts", amount, account)
    return sorted(set(amounts))


def _refuse_amount(field: str, amount: Decimal, account: Account) -> None:
    if not amount.is_finite() or amount <= 0:
        raise BudgetRefusedError("Use an amount above 0.", field=field)
    if amount >= _TOO_MUCH:
        raise BudgetRefusedError("Use an amount of at most 16 digits.", field=field)
    if Money(amount, account.currency).times(Decimal(1)).amount != amount:
        raise BudgetRefusedError(
            f"{amount} has more decimals than {account.currency}.", field=field
        )
