"""Reads what periods' own figures depend on out of the tables, for the pure core to state.

Many accounts at once: a fixed number of queries, however many they are. What an account's open
period takes over from closed ones is added by `billing.facts`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TypeAlias
from uuid import UUID

from django.db.models import Q, QuerySet, Sum

from billing.account_terms import Terms, read_terms, schedule_of, subscribed, subscriptions_in
from billing.credits import (
    Credit,
    CreditKind,
    prepaid_credit_for,
    unearned_part,
    usage_credit_for,
)
from billing.discount_rules import active_rules, first_day, holding_rules
from billing.fees import Interval, Subscribed, earned_credits, year_of
from billing.lifecycle import NOT_FINAL
from billing.models import Account, CreditGrant, InvoiceDiscount, Subscription
from billing.models import DiscountRule as DiscountRuleRow
from billing.money import Money
from billing.periods import Schedule, cover, windows_from
from billing.price_books import PricedSpan, priced_spans, read_books, use_spans
from billing.rating import PricedUsage
from billing.statement import PeriodFacts
from metering.meters import Meter
from metering.period import Period
from metering.totals import usage_of_spans

UsedInSpans: TypeAlias = Callable[[Sequence[tuple[UUID, Period]]], Sequence[Mapping[Meter, int]]]
"""Returns what each account used in its span, in their order, in base units."""


@dataclass(frozen=True, slots=True)
class AccountPeriod:
    """A period of an account, to be stated.

    `schedule` is how the account's time was cut then; None: as it is cut now.
    """

    account: Account
    period: Period
    schedule: Schedule | None = None


def own_facts(account: Account, period: Period, *, schedule: Schedule | None = None) -> PeriodFacts:
    """Return what `own_facts_of` does, of one period. Raises ValueError."""
    [facts] = own_facts_of([AccountPeriod(account, period, schedule)])
    if isinstance(facts, Exception):
        raise facts
    return facts


def own_facts_of(
    wanted: Sequence[AccountPeriod],
    *,
    terms: Terms | None = None,
    used: UsedInSpans = usage_of_spans,
) -> list[PeriodFacts | ValueError]:
    """Return what the figures of each period depend on, as known now, in their order.

    Nothing that closed periods leave to it is among them. `terms` are those of the accounts,
    where somebody has read them; `used` says what was used in spans of accounts.

    The error in place of the facts, where something of that account is no good.
    """
    if not wanted:
        return []
    terms = terms or _terms_of(wanted)
    reading = _read(wanted, terms)
    facts: list[PeriodFacts | ValueError] = []
    for one, usage in zip(wanted, priced_usage_of(wanted, terms=terms, used=used), strict=True):
        if isinstance(usage, ValueError):
            facts.append(usage)
            continue
        try:
            facts.append(reading.facts(one, usage))
        except ValueError as fault:
            facts.append(fault)
    return facts


def priced_usage_of(
    wanted: Sequence[AccountPeriod],
    *,
    terms: Terms | None = None,
    used: UsedInSpans = usage_of_spans,
) -> list[tuple[PricedUsage, ...] | ValueError]:
    """Return the usage of each period as `own_facts_of` has it: all that its raw cost takes."""
    if not wanted:
        return []
    terms = terms or _terms_of(wanted)
    books = {row.price_book_id or row.plan.price_book_id for row in terms.rows()}
    versions = read_books({*books, terms.default_plan.price_book_id}, _span_of(wanted))
    spans: list[list[PricedSpan] | ValueError] = []
    for one in wanted:
        try:
            spans.append(priced_spans(one.account.pk, _books_in(one, terms), versions, one.period))
        except ValueError as fault:
            spans.append(fault)
    good = [span for found in spans if isinstance(found, list) for span in found]
    priced = iter(use_spans(good, used))
    return [
        found if isinstance(found, ValueError) else tuple(next(priced) for _ in found)
        for found in spans
    ]


@dataclass(frozen=True, slots=True)
class _Reading:
    """What was read for some accounts, to be put together account by account."""

    terms: Terms
    rules: Sequence[DiscountRuleRow]
    grants: Mapping[UUID, Sequence[CreditGrant]]
    granted: frozenset[tuple[int | None, datetime | None]]

    def facts(self, one: AccountPeriod, usage: tuple[PricedUsage, ...]) -> PeriodFacts:
        """Return the facts of the period. Raises ValueError when a rule is no good."""
        account, period = one.account, one.period
        rows = self.terms.rows_in(account, period)
        schedule = one.schedule or self.terms.schedule_of(account)
        terms = {row.pk: subscribed(row, account.currency) for row in rows}
        grants = self.grants.get(account.pk, ())
        held = [
            _credit(grant, account, period, terms.get(grant.subscription_id or 0), schedule)
            for grant in grants
            if _is_eligible(grant, period)
        ]
        if period.start >= account.open_period_start:
            held += [
                credit
                for row in rows
                if (row.pk, period.start) not in self.granted
                and (credit := _credit_to_come(row, terms[row.pk], period, schedule))
            ]
        return PeriodFacts(
            period=period,
            schedule=schedule,
            currency=account.currency,
            tax=account.tax,
            subscriptions=tuple(terms.values()),
            usage=usage,
            rules=holding_rules(
                self.rules,
                account,
                {row.plan_id for row in rows} or {self.terms.default_plan.pk},
                first_day(period, schedule),
            ),
            credits_held=tuple(held),
            year_discounts=_year_discounts(account, terms.values(), period, schedule),
        )


def _span_of(wanted: Sequence[AccountPeriod]) -> Period:
    """Return the time that all of these periods, and the accounts' open ones, lie in or end."""
    return Period(
        min(min(one.period.start, one.account.open_period_start) for one in wanted),
        max(one.period.end for one in wanted),
    )


def _terms_of(wanted: Sequence[AccountPeriod]) -> Terms:
    accounts = {one.account.pk: one.account for one in wanted}
    return read_terms(accounts.values(), since=_span_of(wanted).start)


def _books_in(one: AccountPeriod, terms: Terms) -> list[tuple[Period, int]]:
    """Return the price book that holds in each part of the period."""
    return cover(
        one.period,
        [
            (windows, row.price_book_id or row.plan.price_book_id)
            for row in terms.rows_in(one.account, one.period)
            if (windows := windows_from(row.started_at, row.expires_at or one.period.end))
        ],
        between=terms.default_plan.price_book_id,
    )


def _read(wanted: Sequence[AccountPeriod], terms: Terms) -> _Reading:
    accounts = {one.account.pk for one in wanted}
    grants, granted = _read_grants(accounts, _span_of(wanted), {one.period.start for one in wanted})
    return _Reading(terms=terms, rules=list(active_rules(accounts)), grants=grants, granted=granted)


def _read_grants(
    accounts: Iterable[UUID], span: Period, starts: Collection[datetime]
) -> tuple[dict[UUID, list[CreditGrant]], frozenset[tuple[int | None, datetime | None]]]:
    """Return the grants that may pay, and of what was granted for periods which start then."""
    grants = CreditGrant.objects.filter(_may_pay(span) | Q(period_start__in=starts))
    held: dict[UUID, list[CreditGrant]] = {}
    granted = set()
    for grant in _with_balances(grants.filter(account__in=accounts)):
        if grant.period_start in starts:
            granted.add((grant.subscription_id, grant.period_start))
        if _has_something_left(grant):
            held.setdefault(grant.account_id, []).append(grant)
    return held, frozenset(granted)


def _may_pay(span: Period) -> Q:
    """Say which grants may pay for some part of `span`, if they have something left."""
    begun = Q(effective_at__lt=span.end)
    return begun & (Q(expires_at__isnull=True) | Q(expires_at__gt=span.start))


def _with_balances(grants: QuerySet[CreditGrant]) -> QuerySet[CreditGrant]:
    return grants.annotate(
        balance=Sum("entries__amount"),
        granted=Sum("entries__amount", filter=Q(entries__kind__in=["grant", "revoke"])),
    )


def _has_something_left(grant: CreditGrant) -> bool:
    # Of no entry the sum is nothing.
    return (annotated(grant, "balance") or 0) > 0


def _year_discounts(
    account: Account, subscriptions: Iterable[Subscribed], period: Period, schedule: Schedule
) -> dict[int, Money]:
    """Return what invoices took off the years that began before `period` and are ended in it."""
    taken: dict[int, Money] = {}
    for terms in subscriptions:
        ends_here = terms.end is not None and period.start < terms.end <= period.end
        if not ends_here or terms.end is None or terms.interval is not Interval.ANNUAL:
            continue
        year = year_of(terms, terms.end - timedelta(seconds=1), schedule)
        if year and year.start < period.start and terms.subscription_id:
            amounts = (
                InvoiceDiscount.objects.filter(
                    base=InvoiceDiscount.Base.ANNUAL_FEE,
                    base_amount=terms.fee.amount,
                    invoice__account=account,
                    invoice__period_start__lte=year.start,
                    invoice__period_end__gt=year.start,
                )
                .exclude(invoice__status__in=NOT_FINAL)
                .values_list("amount", flat=True)
            )
            taken[terms.subscription_id] = Money(sum(amounts, Decimal(0)), account.currency)
    return taken


def _is_eligible(grant: CreditGrant, period: Period) -> bool:
    return grant.effective_at < period.end and (
        grant.expires_at is None or grant.expires_at > period.start
    )


def _credit(
    grant: CreditGrant,
    account: Account,
    period: Period,
    subscription: Subscribed | None,
    schedule: Schedule,
) -> Credit:
    """Return what is left of a grant, less what its subscription turns out not to earn."""
    currency = account.currency
    balance = Money(annotated(grant, "balance"), currency)
    if subscription and grant.period_start == period.start:
        # Granted ahead for a whole period that the subscription may not have covered.
        earned = earned_credits(subscription, period=period, schedule=schedule)
        granted = Money(annotated(grant, "granted"), currency)
        balance -= unearned_part(granted=granted, earned=earned, balance=balance)
    return Credit(
        credit_id=grant.pk,
        kind=CreditKind(grant.kind),
        balance=balance,
        effective_at=grant.effective_at,
        expires_at=grant.expires_at,
        priority=grant.priority,
    )


def _credit_to_come(
    row: Subscription, terms: Subscribed, period: Period, schedule: Schedule
) -> Credit | None:
    """Return the monthly credit of `period` that is earned and not granted yet, if any."""
    earned = earned_credits(terms, period=period, schedule=schedule)
    if not earned:
        return None
    return Credit(
        credit_id=None,
        kind=CreditKind.MONTHLY,
        balance=earned,
        effective_at=period.start,
        expires_at=credit_expiry(row, period, schedule),
    )


def annotated(grant: CreditGrant, name: str) -> Decimal:
    """Return an amount that a query added to a grant."""
    amount: Decimal = getattr(grant, name)
    return amount


def credits_held(account: Account, period: Period) -> list[Credit]:
    """Return the granted credits that may pay for `period`, in the order they are used."""
    schedule = schedule_of(account)
    terms = {
        row.pk: subscribed(row, account.currency) for row in subscriptions_in(account.pk, period)
    }
    held = [
        _credit(grant, account, period, terms.get(grant.subscription_id or 0), schedule)
        for grant in _with_balances(CreditGrant.objects.filter(_may_pay(period), account=account))
        if _has_something_left(grant)
    ]
    return [*usage_credit_for(held, period), *prepaid_credit_for(held, period)]


def credit_expiry(row: Subscription, period: Period, schedule: Schedule) -> datetime:
    """Return the end of the last period that a monthly credit of `period` may pay for."""
    last = period
    for _ in range(row.credit_rollover_periods):
        last = schedule.starting(last.end)
    return last.end
