"""What closed periods would have cost under another plan or other prices. Writes nothing.

Both sides are stated by the function that states invoices, from the usage as it was measured.
Promotional and prepaid credit is left out on both, so that figures compare; a plan's monthly
credits count on both. Costs are with fees and tax, whoever collects them. A year's fee counts in
the period whose invoice asks for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from uuid import UUID

from django.db.models import QuerySet

import metering.queries
from billing.credits import Credit, CreditKind
from billing.discount_rules import rules_for
from billing.facts import period_facts, subscriptions_in
from billing.fees import Subscribed, earned_credits
from billing.history import (
    UsageNotKeptError,
    invoiced_usage,
    last_closed_periods,
    refuse_lost_usage,
    schedule_in,
)
from billing.models import Account, Plan, PriceBook
from billing.money import Money
from billing.price_books import priced_usage
from billing.queries import one_snapshot
from billing.rating import BY_DESIGN, PricedUsage, Rating, Unpriced, rate_usage
from billing.statement import PeriodFacts, Statement, state_period
from metering.meters import Meter
from metering.period import Period

MOST_MONTHS = 24
WORST = 10


class WhatIfRefusedError(ValueError):
    """The question cannot be answered; `argument` names what is no good."""

    def __init__(self, argument: str, message: str) -> None:
        super().__init__(f"{argument} {message}")
        self.argument = argument


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: the last so many closed periods under another plan, other prices or both.

    With neither, only the plans on offer are compared.
    """

    months: int
    plan: Plan | None
    price_book: PriceBook | None
    offered: tuple[Plan, ...]
    account_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class LeftUnpriced:
    """Usage that a side has no price for, in base units."""

    meter: Meter
    reason: Unpriced
    quantity: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the periods cost on one side, and the usage that is not in it.

    `unpriced` has the usage that a price is missing for, and what is priced as it is and is not
    on this side; not what a price book leaves out on purpose on both.
    """

    cost: Money
    unpriced: tuple[LeftUnpriced, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """One account's periods as they are, under what is asked, and under the plans on offer.

    `other` is None when nothing is asked, or it is a plan of another currency. `left_out` counts
    periods whose usage is not kept in full any more.
    """

    account_id: UUID
    name: str
    periods: tuple[Period, ...]
    left_out: int
    as_it_is: Outcome
    other: Outcome | None
    plans: Mapping[str, Outcome]

    @property
    def difference(self) -> Money | None:
        """What the other costs more; below zero, less."""
        return self.other.cost - self.as_it_is.cost if self.other else None

    @property
    def cheapest(self) -> tuple[str, Money] | None:
        """The cheapest plan on offer that prices all usage, the first of equals, and its cost."""
        priced = [(code, side.cost) for code, side in self.plans.items() if not side.unpriced]
        return min(priced, key=lambda plan: plan[1].amount, default=None)


@dataclass(frozen=True, slots=True)
class Total:
    """The accounts of one currency together, those that have both sides."""

    currency: str
    accounts: int
    as_it_is: Money
    other: Money
    difference: Money


@dataclass(frozen=True, slots=True)
class Terms:
    """A period on one side: its facts without credit, and the rollover of each subscription."""

    facts: PeriodFacts
    rollover: tuple[int, ...]


def ask(
    *,
    months: int,
    plan_code: str | None = None,
    price_book_code: str | None = None,
    account_id: UUID | None = None,
) -> Question:
    """Return the question. Raises WhatIfRefusedError naming the argument that is no good."""
    if not 1 <= months <= MOST_MONTHS:
        raise WhatIfRefusedError("--months", f"is {months}. Use 1 to {MOST_MONTHS}.")
    plan = book = None
    if plan_code is not None:
        plan = Plan.objects.filter(code=plan_code).first()
        if plan is None:
            raise WhatIfRefusedError("--plan", f"{plan_code}: {_known('plan', Plan.objects.all())}")
        if plan.monthly_fee is None:
            raise WhatIfRefusedError(
                "--plan", f"{plan_code} has no monthly fee to compare with. Name one that has."
            )
    if price_book_code is not None:
        book = PriceBook.objects.filter(code=price_book_code).first()
        if book is None:
            known = _known("price book", PriceBook.objects.all())
            raise WhatIfRefusedError("--price-book", f"{price_book_code}: {known}")
    if account_id is not None and not Account.objects.filter(pk=account_id).exists():
        raise WhatIfRefusedError("--account", f"{account_id}: there is no such account.")
    offered = Plan.objects.filter(is_offered=True, monthly_fee__isnull=False)
    return Question(months, plan, book, tuple(offered), account_id)


def accounts_asked(question: Question) -> QuerySet[Account]:
    """Return the accounts to compare, by name."""
    accounts = Account.objects.all()
    return accounts.filter(pk=question.account_id) if question.account_id else accounts


def compare(account: Account, question: Question) -> Comparison | None:
    """Return the account's last closed periods compared; None when there is no usage in them."""
    with one_snapshot():
        own, left_out = _own_terms(account, question.months)
        if not left_out and not any(span.usage for terms in own for span in terms.facts.usage):
            return None
        as_it_is = state_in_turn(own)
        # Most plans share a price book.
        usage_at = cache(partial(_usage_at, account))
        plans = {
            plan.code: _outcome(account, _under(account, own, usage_at, plan), as_it_is)
            for plan in question.offered
            if plan.currency == account.currency
        }
        other = None
        if question.price_book or (question.plan and question.plan.currency == account.currency):
            terms = _under(account, own, usage_at, question.plan, question.price_book)
            other = _outcome(account, terms, as_it_is)
    return Comparison(
        account_id=account.pk,
        name=account.name,
        periods=tuple(terms.facts.period for terms in own),
        left_out=left_out,
        as_it_is=Outcome(cost_of(as_it_is, account.currency), _left_unpriced(as_it_is)),
        other=other,
        plans=plans,
    )


def state_in_turn(terms: Sequence[Terms]) -> list[Statement]:
    """State periods one after the other, each with the monthly credits it has by then.

    What a period leaves of a credit that rolls over may pay for the next.
    """
    statements: list[Statement] = []
    held: list[Credit] = []
    for number, period in enumerate(terms):
        facts = period.facts
        for subscription, rollover in zip(facts.subscriptions, period.rollover, strict=True):
            last = number + rollover
            earned = earned_credits(subscription, period=facts.period, schedule=facts.schedule)
            held.append(
                Credit(
                    credit_id=len(held),
                    kind=CreditKind.MONTHLY,
                    balance=earned,
                    effective_at=facts.period.start,
                    # Past the last period that is asked about, its expiry does not matter.
                    expires_at=terms[last].facts.period.end if last < len(terms) else None,
                )
            )
        statement = state_period(replace(facts, credits_held=tuple(held)))
        for drawn in statement.credits_used:
            if drawn.credit_id is not None:
                credit = held[drawn.credit_id]
                held[drawn.credit_id] = replace(credit, balance=credit.balance - drawn.amount)
        statements.append(statement)
    return statements


def cost_of(statements: Iterable[Statement], currency: str) -> Money:
    """Return what the statements come to, a remainder below zero counted as such."""
    return Money.total(
        (statement.totals.total_amount - statement.totals.credited for statement in statements),
        currency,
    )


def add_up(comparisons: Iterable[Comparison]) -> list[Total]:
    """Return the totals by currency of the comparisons that have both sides."""
    by_currency: dict[str, list[tuple[Money, Money]]] = {}
    for one in comparisons:
        if one.other:
            sides = (one.as_it_is.cost, one.other.cost)
            by_currency.setdefault(one.as_it_is.cost.currency, []).append(sides)
    totals = []
    for currency, sides_of in sorted(by_currency.items()):
        as_it_is = Money.total((before for before, _ in sides_of), currency)
        other = Money.total((after for _, after in sides_of), currency)
        totals.append(Total(currency, len(sides_of), as_it_is, other, other - as_it_is))
    return totals


def find_worst(comparisons: Iterable[Comparison]) -> list[Comparison]:
    """Return of each currency those that would pay more, the most first, WORST of them at most."""
    dearer = [one for one in comparisons if one.difference and one.difference.amount > 0]
    worst: list[Comparison] = []
    for currency in sorted({one.as_it_is.cost.currency for one in dearer}):
        of_currency = [one for one in dearer if one.as_it_is.cost.currency == currency]
        worst += sorted(of_currency, key=_by_difference)[:WORST]
    return worst


def _by_difference(one: Comparison) -> tuple[object, ...]:
    return (-one.difference.amount if one.difference else 0, one.name, one.account_id)


def _own_terms(account: Account, months: int) -> tuple[list[Terms], int]:
    """Return the account's periods as they are, and how many are left out for lost usage."""
    periods = last_closed_periods(account, months)
    if not periods:
        return [], 0
    span = Period(periods[0].start, periods[-1].end)
    invoiced = invoiced_usage(account.pk, span)
    if not invoiced and not metering.queries.usage_totals(account.pk, span):
        return [], 0
    terms, left_out = [], 0
    for period in periods:
        facts = period_facts(account, period, schedule=schedule_in(account, period))
        # A fee is a cost, whoever collects it.
        subscriptions = tuple(replace(s, provider_collects=False) for s in facts.subscriptions)
        facts = replace(facts, subscriptions=subscriptions, credits_held=())
        rating = rate_usage(facts.usage, currency=facts.currency)
        if _is_kept(rating, invoiced.get(period.start, {})):
            rollover: dict[int | None, int] = dict(
                subscriptions_in(account.pk, period).values_list("pk", "credit_rollover_periods")
            )
            terms.append(
                Terms(facts, tuple(rollover[s.subscription_id] for s in facts.subscriptions))
            )
        else:
            left_out += 1
    return terms, left_out


def _is_kept(rating: Rating, invoiced: Mapping[Meter, int]) -> bool:
    try:
        refuse_lost_usage(rating, invoiced)
    except UsageNotKeptError:
        return False
    return True


def _under(
    account: Account,
    own: Sequence[Terms],
    usage_at: Callable[[Period, int], tuple[PricedUsage, ...]],
    plan: Plan | None,
    book: PriceBook | None = None,
) -> list[Terms]:
    """Return the periods on a plan from start to end, at a book's prices, or both.

    None keeps the account's own subscriptions; a plan without a book brings its own prices.
    """
    book_id = book.pk if book else plan.price_book_id if plan else None
    changed = []
    for terms in own:
        facts, rollover = terms.facts, terms.rollover
        if book_id is not None:
            facts = replace(facts, usage=usage_at(facts.period, book_id))
        if plan and plan.monthly_fee is not None:
            subscription = Subscribed(
                plan=plan.name,
                start=facts.period.start,
                end=None,
                fee=Money(plan.monthly_fee, account.currency),
                monthly_credits=Money(plan.monthly_credits, account.currency),
            )
            rules = rules_for(account, {plan.pk}, facts.period, facts.schedule)
            facts = replace(facts, subscriptions=(subscription,), rules=rules)
            rollover = (plan.credit_rollover_periods,)
        changed.append(Terms(facts, rollover))
    return changed


def _usage_at(account: Account, period: Period, book_id: int) -> tuple[PricedUsage, ...]:
    return priced_usage(account, [(period, book_id)], period)


def _outcome(account: Account, terms: Sequence[Terms], as_it_is: Sequence[Statement]) -> Outcome:
    statements = state_in_turn(terms)
    priced = {line.meter for statement in as_it_is for line in statement.rating.lines}
    return Outcome(cost_of(statements, account.currency), _left_unpriced(statements, priced))


def _left_unpriced(
    statements: Sequence[Statement], priced: Collection[Meter] = ()
) -> tuple[LeftUnpriced, ...]:
    """Return what no price was found for by mistake, or of the meters `priced` for any reason."""
    left: Counter[tuple[Meter, Unpriced]] = Counter()
    for statement in statements:
        for unpriced in statement.rating.unpriced:
            if unpriced.reason not in BY_DESIGN or unpriced.meter in priced:
                left[unpriced.meter, unpriced.reason] += unpriced.quantity
    return tuple(LeftUnpriced(*key, quantity) for key, quantity in left.items())


def _known(noun: str, rows: QuerySet[Plan] | QuerySet[PriceBook]) -> str:
    codes = ", ".join(sorted(rows.values_list("code", flat=True)[:20]))
    return f"there is no such {noun}. There are: {codes}."
