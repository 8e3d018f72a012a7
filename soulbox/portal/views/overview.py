from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from uuid import UUID

from django.http import HttpRequest, HttpResponse

from billing.models import Budget
from billing.money import Money, decimals_of
from billing.queries import CurrentUsage, current_usage
from billing.totals import NegativeTotalError
from metering.meters import Meter
from payments.dunning_queries import standing_of
from soulbox.portal.days import DayCosts, cost_of_days, share_of
from soulbox.portal.pages import MemberView
from soulbox.portal.words import METER_NAMES, money_words, percent_words, quantity_words

_MOMENT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class BudgetBar:
    """A budget, and how much of it the period has reached. `filled` is 0 to 100."""

    name: str
    amount: Money
    spent: Money
    percent: str
    filled: int
    is_over: bool


class Overview(MemberView):
    """What the account uses and what it costs, in this billing period."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show it."""
        del request
        try:
            current = current_usage(self.account_id, now=self.now)
        except NegativeTotalError:
            # A person looks at such an account; its page does not fail for that.
            return self.page("portal/overview_waits.html")
        days = cost_of_days(self.account_id, current, self.zone, now=self.now)
        return self.page(
            "portal/overview.html",
            current=current,
            currency=self.account.currency,
            usage=_usage_rows(current),
            last_day=current.period.end - _MOMENT,
            on_top=current.total_amount - current.cost.final_cost,
            days=days,
            day_names=[METER_NAMES[meter] for meter in days.meters],
            chart=_chart(days),
            coverage=_coverage(current),
            budgets=budget_bars(self.account_id, current.total_amount),
            standing=standing_of(self.account_id),
            unpriced=[METER_NAMES[one.meter] for one in current.unpriced],
        )


def budget_bars(account_id: UUID, spent: Money) -> list[BudgetBar]:
    """Return the account's active budgets against what is spent."""
    budgets = Budget.objects.filter(account_id=account_id, is_active=True).order_by("amount")
    return [_bar(budget, spent) for budget in budgets]


def _bar(budget: Budget, spent: Money) -> BudgetBar:
    amount = Money(budget.amount, spent.currency)
    share = share_of(spent, amount)
    return BudgetBar(
        name=budget.name,
        amount=amount,
        spent=spent,
        percent=percent_words(share),
        filled=min(100, int(share * 100)),
        is_over=share >= 1,
    )


def _usage_rows(current: CurrentUsage) -> list[tuple[str, str, str]]:
    """Return each used meter's name, quantity and cost."""
    currency = current.total_amount.currency
    return [
        (
            METER_NAMES[meter],
            quantity_words(meter, current.usage[meter]),
            money_words(Money.rounded(current.cost_by_meter[meter], currency))
            if meter in current.cost_by_meter
            else "Not charged",
        )
        for meter in Meter
        if current.usage.get(meter)
    ]


def _coverage(current: CurrentUsage) -> str:
    coverage = current.coverage
    if not coverage.running_ms:
        return ""
    return percent_words(Fraction(coverage.measured_ms, coverage.running_ms))


def _chart(days: DayCosts) -> dict[str, object]:
    """Return what the chart is drawn from: amounts as text, and where each meter's colour is."""
    return {
        "currency": days.currency,
        "decimals": decimals_of(days.currency),
        "days": [day.isoformat() for day in days.days],
        "meters": [
            {
                "name": METER_NAMES[meter],
                "colour": f"--meter-{meter.value.replace('_', '-')}",
                "amounts": [str(days.amounts[day][at]) for day in days.days],
            }
            for at, meter in enumerate(days.meters)
        ],
    }
