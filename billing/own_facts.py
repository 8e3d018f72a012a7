"""Reads what periods' own figures depend on out of the tables, for the pure core to state.

Many accounts at once: a fixed number of queries, however many they are. What an account's open
period takes over from closed ones is added by `billing.facts`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db.models import Q, QuerySet, Sum

from billing.credits import (
    Credit,
    CreditKind,
    prepaid_credit_for,
    unearned_part,
    usage_credit_for,
)
from billing.discount_rules import active_rules, first_day, holding_rules
from billing.fees import Commitment, Interval, Subscribed, earned_credits, year_of
from billing.followed_periods import followed_by
from billing.lifecycle import NOT_FINAL
from billing.models import Account, CreditGrant, InvoiceDiscount, Plan, Subscription
from billing.models import DiscountRule as DiscountRuleRow
from billing.money import Money
from billing.periods import Followed, Schedule, cover, windows_from
from billing.price_books import Books, PricedSpan, priced_spans, read_books, use_spans
from billing.rating import PricedUsage
from billing.statement import PeriodFacts
from metering.period import Period

DEFAULT_PLAN = "developer"
"""The plan whose prices hold for an account without a subscription."""


R = TypeVar("R", Subscription, CreditGrant)


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


def own_facts_of(wanted: Sequence[AccountPeriod]) -> list[PeriodFacts | ValueError]:
    """Return what the figures of each period depend on, as known now, in their order.

    Nothing that closed periods leave to it is among them.

    The error in place of the facts, where something of that account is no good.
    """
    if not wanted:
        return []
    reading = _read(wanted)
    spans: list[list[PricedSpan] | ValueError] = []
    for one in wanted:
        try:
            spans.append(
                priced_spans(one.account.pk, reading.books_in(one), reading.versions, one.period)
            )
        except ValueError as fault:
            spans.append(fault)
    used = iter(use_spans([span for good in spans if isinstance(good, list) for span in good]))
    facts: list[PeriodFacts | ValueError] = []
    for one, found in zip(wanted, spans, strict=True):
        if isinstance(found, ValueError):
            facts.append(found)
            continue
        usage = tuple(next(used) for _ in found)
        try:
            facts.append(reading.facts(one, usage))
        except ValueError as fault:
            facts.append(fault)
    return facts


@dataclass(frozen=True, slots=True)
class _Reading:
    """What was read for some accounts, to be put together account by account."""

    subscriptions: Mapping[UUID, Sequence[Subscription]]
    followed: Mapping[UUID, tuple[Followed, ...]]
    rules: Sequence[DiscountRuleRow]
    grants: Mapping[UUID, Sequence[CreditGrant]]
    granted: frozenset[tuple[int | None, datetime | None]]
    versions: Books
    default_plan: Plan

    def rows_in(self, one: AccountPeriod) -> list[Subscription]:
        """Return the subscriptions that share time with the period."""
        period = one.period
        return [
            row
            for row in self.subscriptions.get(one.account.pk, ())
            if row.started_at < period.end
            and (row.expires_at is None or row.expires_at > period.start)
        ]

    def books_in(self, one: AccountPeriod) -> list[tuple[Period, int]]:
        """Return the price book that holds in each part of the period."""
        return cover(
            one.period,
            [
                (windows, row.price_book_id or row.plan.price_book_id)
                for row in self.rows_in(one)
                if (windows := windows_from(row.started_at, row.expires_at or one.period.end))
            ],
            between=self.default_plan.price_book_id,
        )

    def facts(self, one: AccountPeriod, usage: tuple[PricedUsage, ...]) -> PeriodFacts:
        """Return the facts of the period. Raises ValueError when a rule is no good."""
        account, period = one.account, one.period
        rows = self.rows_in(one)
        schedule = one.schedule or _schedule(
            account, self.subscriptions.get(account.pk, ()), self.followed.get(account.pk, ())
        )
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
                {row.plan_id for row in rows} or {self.default_plan.pk},
                first_day(period, schedule),
            ),
            credits_held=tuple(held),
            year_discounts=_year_discounts(account, terms.values(), period, schedule),
        )


def _read(wanted: Sequence[AccountPeriod]) -> _Reading:
    accounts = {one.account.pk for one in wanted}
    span = Period(
        min(min(one.period.start, one.account.open_period_start) for one in wanted),
        max(one.period.end for one in wanted),
    )
    subscriptions = _by_account(
        Subscription.objects.filter(account__in=accounts)
        .filter(Q(expires_at__isnull=True) | Q(expires_at__gt=span.start))
        .select_related("plan")
        .order_by("started_at")
    )
    rows = [row for of_account in subscriptions.values() for row in of_account]
    default_plan = Plan.objects.get(code=DEFAULT_PLAN)
    books = {row.price_book_id or row.plan.price_book_id for row in rows}
    return _Reading(
        subscriptions=subscriptions,
        followed=followed_by(accounts),
        rules=list(active_rules(accounts)),
        grants=_by_account(_held_grants(accounts, span)),
        granted=frozenset(
            CreditGrant.objects.filter(
                account__in=accounts, period_start__in={one.period.start for one in wanted}
            ).values_list("subscription_id", "period_start")
        ),
        versions=read_books({*books, default_plan.price_book_id}, span),
        default_plan=default_plan,
    )


def _by_account(rows: Iterable[R]) -> dict[UUID, list[R]]:
    by_account: defaultdict[UUID, list[R]] = defaultdict(list)
    for row in rows:
        by_account[row.account_id].append(row)
    return dict(by_account)


def _held_grants(accounts: Iterable[UUID], span: Period) -> QuerySet[CreditGrant]:
    """Return the grants with something left that may pay for some part of `span`."""
    return (
        CreditGrant.objects.filter(account__in=accounts, effective_at__lt=span.end)
        .filter(Q(expires_at__isnull=True) | Q(expires_at__gt=span.start))
        .annotate(
            balance=Sum("entries__amount"),
            granted=Sum("entries__amount", filter=Q(entries__kind__in=["grant", "revoke"])),
        )
        .filter(balance__gt=0)
    )


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


def _schedule(
    account: Account, rows: Iterable[Subscription], followed: tuple[Followed, ...]
) -> Schedule:
    cuts = [row.expires_at for row in rows if row.ends_period]
    # Of an account that is closed, whatever it was on.
    cuts.append(account.ends_at)
    return Schedule(
        cycle=account.cycle,
        next_cycle=account.next_cycle,
        changes_at=account.cycle_changes_at,
        cuts=tuple(cut for cut in cuts if cut and cut > account.open_period_start),
        followed=followed,
    )


def schedule_of(account: Account) -> Schedule:
    """Return how the account's time is cut into periods from its open one on."""
    return schedules_of([account])[account.pk]


def schedules_of(accounts: Collection[Account]) -> dict[UUID, Schedule]:
    """Return what `schedule_of` does for each account, by the same queries for all of them."""
    cutting = _by_account(Subscription.objects.filter(account__in=accounts, ends_period=True))
    followed = followed_by([account.pk for account in accounts])
    return {
        account.pk: _schedule(account, cutting.get(account.pk, ()), followed.get(account.pk, ()))
        for account in accounts
    }


def period_containing(account: Account, moment: datetime) -> Period:
    """Return the account's billing period that `moment` falls into."""
    return schedule_of(account).following(account.open_period, moment)


def credits_held(account: Account, period: Period) -> list[Credit]:
    """Return the granted credits that may pay for `period`, in the order they are used."""
    schedule = schedule_of(account)
    terms = {
        row.pk: subscribed(row, account.currency) for row in subscriptions_in(account.pk, period)
    }
    held = [
        _credit(grant, account, period, terms.get(grant.subscription_id or 0), schedule)
        for grant in _held_grants([account.pk], period)
    ]
    return [*usage_credit_for(held, period), *prepaid_credit_for(held, period)]


def subscriptions_in(account_id: UUID, period: Period) -> QuerySet[Subscription]:
    """Return the subscriptions that share time with `period`, in order."""
    return (
        Subscription.objects.filter(account_id=account_id, started_at__lt=period.end)
        .filter(Q(expires_at__isnull=True) | Q(expires_at__gt=period.start))
        .select_related("plan")
        .order_by("started_at")
    )


def subscribed(row: Subscription, currency: str) -> Subscribed:
    """Return a subscription's terms."""
    commitment = None
    if row.commitment_minimum is not None and row.commitment_months is not None:
        minimum = Money(row.commitment_minimum, currency)
        commitment = Commitment(minimum, row.commitment_months, row.started_at)
    return Subscribed(
        plan=row.plan.name,
        start=row.started_at,
        end=row.expires_at,
        fee=Money(row.fee, currency),
        monthly_credits=Money(row.monthly_credits, currency),
        interval=Interval(row.interval),
        trial_end=row.trial_ends_at,
        commitment=commitment,
        ends_period=row.ends_period,
        subscription_id=row.pk,
        plan_id=row.plan_id,
        zone=ZoneInfo(row.time_zone) if row.time_zone else None,
        provider_collects=row.provider_collects,
    )


def credit_expiry(row: Subscription, period: Period, schedule: Schedule) -> datetime:
    """Return the end of the last period that a monthly credit of `period` may pay for."""
    last = period
    for _ in range(row.credit_rollover_periods):
        last = schedule.starting(last.end)
    return last.end
