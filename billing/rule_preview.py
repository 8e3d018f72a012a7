"""What a discount rule would have changed in the accounts' last closed periods. Writes nothing.

Both sides are stated by the function that states invoices, from the usage as it was measured and
by the rules of now; on one of them the rule is added, or takes the place of what it was. Monthly
credits count on both, promotional and prepaid credit on neither.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Q, QuerySet, Sum

from billing.discount_rules import first_day, holding_rules
from billing.facts import DEFAULT_PLAN, AccountPeriod, facts_of
from billing.history import (
    BILLING_A_PERIOD,
    UsageNotKeptError,
    refuse_lost_usage,
    schedule_in,
)
from billing.lifecycle import NOT_FINAL
from billing.models import Account, DiscountRule, Invoice, InvoiceLine, Plan, Subscription
from billing.money import Money
from billing.queries import one_snapshot
from billing.statement import PeriodFacts, Statement
from billing.totals import NegativeTotalError
from billing.what_if import Terms, cost_of, state_in_turn
from metering.meters import Meter
from metering.period import Period

MOST_ACCOUNTS = 2_000
TIME_LIMIT_S = 8.0
"""No further accounts are begun after it."""
ACCOUNTS_AT_ONCE = 25
LAST_MONTH = timedelta(days=62)
"""A closed period that ended longer ago is nobody's last month."""


@dataclass(frozen=True, slots=True)
class Side:
    """What a period comes to: its discounts, and its cost with fees and tax."""

    discounts: Money
    cost: Money


@dataclass(frozen=True, slots=True)
class Effect:
    """An account whose last closed period would have come to something else."""

    account_id: UUID
    name: str
    period: Period
    before: Side
    after: Side


@dataclass(frozen=True, slots=True)
class CurrencyEffect:
    """All accounts of a currency that were stated, changed or not."""

    currency: str
    accounts: int
    changed: int
    before: Side
    after: Side


@dataclass(frozen=True, slots=True)
class RulePreview:
    """The effect on those that could be stated.

    Of the `touchable` accounts, which the rule may be for, `stated` were stated in the time
    there is, the highest usage fees first; `left_out` of the others could not be.
    """

    touchable: int
    stated: int
    left_out: int
    effects: Sequence[Effect]
    totals: Sequence[CurrencyEffect]

    @property
    def is_cut_off(self) -> bool:
        """Whether there were more accounts than there was time for."""
        return self.stated + self.left_out < self.touchable


def preview_rule(
    rule: DiscountRule, *, now: datetime, clock: Callable[[], float] = time.monotonic
) -> RulePreview:
    """Return what the rule, saved or not, would have changed; `rule.pk` is whose place it takes."""
    deadline = clock() + TIME_LIMIT_S
    both: list[Effect] = []
    left_out = 0
    with one_snapshot():
        invoices = _last_invoices(rule, now=now)
        default_plan = Plan.objects.get(code=DEFAULT_PLAN)
        chosen = invoices[:MOST_ACCOUNTS]
        for at in range(0, len(chosen), ACCOUNTS_AT_ONCE):
            if clock() > deadline:
                break
            some = chosen[at : at + ACCOUNTS_AT_ONCE]
            stated = list(_state(rule, some, default_plan))
            left_out += len(some) - len(stated)
            both += stated
    changed = [effect for effect in both if effect.before != effect.after]
    changed.sort(key=lambda effect: (effect.after.cost - effect.before.cost).amount)
    return RulePreview(len(invoices), len(both), left_out, changed, list(_add_up(both)))


def _last_invoices(rule: DiscountRule, *, now: datetime) -> list[Invoice]:
    """Return the last final invoice of each account the rule, or what it was, may be for."""
    versions = [rule]
    if former := DiscountRule.objects.filter(pk=rule.pk).first():
        versions.append(former)
    accounts = Q(pk__in=[])
    for version in versions:
        accounts |= _may_be_for(version)
    last = (
        Invoice.objects.filter(
            account__in=Account.objects.filter(accounts),
            kind__in=BILLING_A_PERIOD,
            period_end__gt=now - LAST_MONTH,
        )
        .exclude(status__in=NOT_FINAL)
        .select_related("account")
        .order_by("account_id", "-period_start", "-id")
        .distinct("account_id")
    )
    return sorted(last, key=lambda invoice: (-invoice.usage_fee, invoice.account_id))


def _may_be_for(rule: DiscountRule) -> Q:
    of_currency = Q(currency=rule.currency)
    match rule.scope:
        case DiscountRule.Scope.ACCOUNT:
            return of_currency & Q(pk=rule.account_id)
        case DiscountRule.Scope.PLAN if rule.plan and rule.plan.code != DEFAULT_PLAN:
            subscribed = Subscription.objects.filter(plan=rule.plan)
            return of_currency & Q(pk__in=subscribed.values("account"))
    # The default plan is that of accounts without a subscription.
    return of_currency


def _state(rule: DiscountRule, invoices: Sequence[Invoice], default: Plan) -> Iterator[Effect]:
    """Yield both sides of each account's period, but of those that cannot be stated any more."""
    wanted = [
        AccountPeriod(invoice.account, invoice.period, schedule_in(invoice.account, invoice.period))
        for invoice in invoices
    ]
    invoiced = _invoiced(invoices)
    for invoice, facts in zip(invoices, facts_of(wanted), strict=True):
        if isinstance(facts, ValueError):
            continue
        try:
            before, after = _stated(facts), _stated(_under(facts, rule, invoice.account, default))
            refuse_lost_usage(before.rating, invoiced.get(invoice.pk, {}))
        except (UsageNotKeptError, NegativeTotalError, ValueError):
            continue
        account = invoice.account
        yield Effect(account.pk, account.name, facts.period, _side(before), _side(after))


def _under(facts: PeriodFacts, rule: DiscountRule, account: Account, default: Plan) -> PeriodFacts:
    """Return the facts with the rule among the others, in place of what it was."""
    holding = holding_rules(
        [rule] if rule.is_active else [],
        account,
        {one.plan_id for one in facts.subscriptions if one.plan_id} or {default.pk},
        first_day(facts.period, facts.schedule),
    )
    # A new rule has no key, and the others all have one.
    others = (one for one in facts.rules if one.rule_id != rule.pk)
    return replace(facts, rules=(*others, *holding))


def _stated(facts: PeriodFacts) -> Statement:
    without_credit = replace(facts, credits_held=())
    [statement] = state_in_turn([Terms(without_credit, (0,) * len(facts.subscriptions))])
    return statement


def _side(statement: Statement) -> Side:
    currency = statement.facts.currency
    off_fees = Money.total((discount.amount for discount in statement.fee_discounts), currency)
    return Side(statement.totals.discounts + off_fees, cost_of([statement], currency))


def _invoiced(invoices: Sequence[Invoice]) -> Mapping[int, Mapping[Meter, int]]:
    """Return what the invoices charged for by meter, in base units."""
    rows: QuerySet[InvoiceLine, tuple[int, str, int]] = (
        InvoiceLine.objects.filter(
            invoice__in=invoices, kind=InvoiceLine.Kind.USAGE, quantity__gt=0
        )
        .values_list("invoice_id", "meter")
        .annotate(total=Sum("quantity"))
        .order_by()
    )
    usage: defaultdict[int, dict[Meter, int]] = defaultdict(dict)
    for invoice_id, meter, total in rows:
        usage[invoice_id][Meter(meter)] = int(total)
    return usage


def _add_up(effects: Iterable[Effect]) -> Iterator[CurrencyEffect]:
    by_currency: defaultdict[str, list[Effect]] = defaultdict(list)
    for effect in effects:
        by_currency[effect.before.cost.currency].append(effect)
    for currency, of in sorted(by_currency.items()):
        yield CurrencyEffect(
            currency,
            len(of),
            sum(effect.before != effect.after for effect in of),
            _sum([effect.before for effect in of], currency),
            _sum([effect.after for effect in of], currency),
        )


def _sum(sides: Sequence[Side], currency: str) -> Side:
    return Side(
        Money.total((side.discounts for side in sides), currency),
        Money.total((side.cost for side in sides), currency),
    )
