from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from billing import services
from billing.models import Account, Budget, BudgetCap
from billing.services.ended_caps import MEASURED_FOR
from tests.billing.test_budgets import use
from tests.billing.test_caps import capped_account, look
from tests.billing.test_late_usage import SECOND, become_late
from tests.billing.usage import AFTER_MAY, JUNE, NOON, bill, record_usage

pytestmark = pytest.mark.django_db

AFTER_JUNE = JUNE.end + timedelta(hours=1)


def overshoot() -> Decimal:
    return BudgetCap.objects.get().overshoot


def test_use_after_the_last_look_is_in_the_overshoot_once_the_period_is_drafted() -> None:
    account, _ = capped_account(120)
    use(account, 36, 1)
    services.look_at_caps(JUNE.start)
    assert overshoot() == Decimal("0.20")
    assert services.measure_ended_caps(JUNE.start) == 0
    bill(account)
    assert [services.measure_ended_caps(AFTER_MAY) for _ in range(2)] == [1, 0]
    cap = BudgetCap.objects.get()
    assert (cap.overshoot, cap.latest_at) == (Decimal("0.56"), AFTER_MAY)


@pytest.mark.parametrize(
    ("tax", "is_inclusive", "expected"),
    [("0", False, "1.40"), ("0.25", False, "2.00"), ("0.25", True, "1.40")],
)
def test_late_usage_on_the_next_invoice_is_in_the_overshoot(
    tax: str,
    is_inclusive: bool,  # noqa: FBT001 - pytest names it
    expected: str,
) -> None:
    account, _ = capped_account(120)
    Account.objects.filter(pk=account.pk).update(
        tax_rate=Decimal(tax), tax_is_inclusive=is_inclusive
    )
    account.refresh_from_db()
    services.look_at_caps(JUNE.start)
    bill(account)
    # 1.20 of late usage, on an invoice that has usage of its own.
    become_late(account, 100_000 * SECOND)
    record_usage(account.pk, NOON + timedelta(days=31), cpu_s=500_000)
    june = bill(account, JUNE)
    assert june.adjustments == Decimal("1.20")
    assert [services.measure_ended_caps(AFTER_JUNE) for _ in range(2)] == [1, 0]
    assert overshoot() == Decimal(expected)


def test_a_cap_that_was_lifted_before_keeps_the_cost_of_then() -> None:
    account, budget = capped_account(120)
    Budget.objects.filter(pk=budget.pk).update(hard_cap=False)
    look(15)
    use(account, 120, 1)
    bill(account)
    assert services.measure_ended_caps(AFTER_MAY) == 0
    assert overshoot() == Decimal("0.20")


def test_a_cap_of_long_ago_is_left_alone() -> None:
    account, _ = capped_account(120)
    use(account, 36, 1)
    services.look_at_caps(JUNE.start)
    bill(account)
    assert services.measure_ended_caps(JUNE.start + MEASURED_FOR) == 0
    assert services.measure_ended_caps(AFTER_MAY) == 1
