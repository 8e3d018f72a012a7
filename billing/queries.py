from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Count, F, OuterRef, Prefetch, Q, QuerySet, Subquery

import metering.queries
from billing.costs import CostBreakdown, break_down_cost, cost_by_meter
from billing.facts import period_facts, read_terms
from billing.forecast import forecast_usage
from billing.models import (
    Account,
    CreditNote,
    Invoice,
    InvoiceLine,
    InvoiceTransition,
    Plan,
    PriceBookVersion,
    Subscription,
    UnbilledLateUsage,
    UnpricedUsage,
)
from billing.money import Money
from billing.rating import UnpricedUsage as Unpriced
from billing.statement import Statement, state_period
from metering.meters import Meter
from metering.period import Period
from metering.settled import SpanUsage, usage_so_far


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a period comes to if it goes on at its own rate so far. Usage is in stored units."""

    usage: Mapping[Meter, int]
    cost_by_meter: Mapping[Meter, Fraction]
    cost: CostBreakdown
    total_amount: Money
    remaining_credits: Money


@dataclass(frozen=True, slots=True)
class CurrentUsage:
    """What an account used and what it costs, in the period so far. Usage is in stored units."""

    period: Period
    # The newest reading that is counted. None: nothing was measured yet.
    as_of: datetime | None
    plan: Plan
    usage: Mapping[Meter, int]
    cost_by_meter: Mapping[Meter, Fraction]
    cost: CostBreakdown
    total_amount: Money
    remaining_credits: Money
    remaining_prepaid: Money
    forecast: Forecast
    coverage: metering.queries.Coverage
    unpriced: tuple[Unpriced, ...]


def invoices_named(name: str) -> QuerySet[Invoice]:
    """Return the invoice with this number or, for a draft, id: one or none."""
    is_one = Q(number=name)
    if name.isdecimal():
        is_one |= Q(pk=int(name))
    return Invoice.objects.filter(is_one)


def accounts_with(account_ids: Collection[UUID]) -> set[UUID]:
    """Return those of the ids that are accounts'."""
    return set(Account.objects.filter(pk__in=account_ids).values_list("pk", flat=True))


def current_usage(account_id: UUID, *, now: datetime) -> CurrentUsage:
    """Return usage, cost and forecast of the account's billing period that contains `now`.

    It is what the period's invoice would say. Raises Account.DoesNotExist.
    """
    with one_snapshot():
        account = Account.objects.get(pk=account_id)
        terms = read_terms([account])
        measured: list[SpanUsage] = []

        def used(spans: Sequence[tuple[UUID, Period]]) -> list[dict[Meter, int]]:
            measured.extend(usage_so_far(spans))
            return [one.usage for one in measured]

        period = terms.period_containing(account, now)
        facts = period_facts(account, period, terms=terms, used=used)
        statement = state_period(facts)
        ahead = state_period(
            replace(facts, usage=forecast_usage(facts.usage, now=now, since=account.opened_at))
        )
        return CurrentUsage(
            period=facts.period,
            as_of=metering.queries.newest_reading_at(account_id),
            plan=terms.plan_at(account, now),
            usage=statement.rating.usage,
            cost_by_meter=cost_by_meter(statement.rating),
            cost=break_down_cost(statement),
            total_amount=statement.totals.total_amount,
            remaining_credits=statement.remaining_credits,
            remaining_prepaid=statement.remaining_prepaid,
            forecast=_forecast(ahead),
            # The spans of prices are all of the period.
            coverage=metering.queries.Coverage(
                running_ms=sum(one.running_ms for one in measured),
                measured_ms=sum(one.measured_ms for one in measured),
            ),
            unpriced=statement.rating.unpriced,
        )


def preview_period(account: Account, period: Period) -> Statement:
    """Return what the account's `period` comes to as known now: what drafting would write."""
    with one_snapshot():
        return state_period(period_facts(account, period))


def invoices_of(account_id: UUID) -> QuerySet[Invoice]:
    """Return an account's invoices, drafts too, newest period first."""
    return Invoice.objects.filter(account_id=account_id)


@dataclass(frozen=True, slots=True)
class InvoiceState:
    """What may still change of an invoice that is final: its state, and what corrects it.

    The rows that tell of it are only ever added to.
    """

    status: str
    last_transition: int | None
    last_credit_note: int | None

    @property
    def token(self) -> str:
        """What is another one whenever something changed."""
        return f"{self.status}:{self.last_transition}:{self.last_credit_note}"


def invoice_state(account_id: UUID, invoice_id: int) -> InvoiceState | None:
    """Return how an invoice of the account stands; None where there is none."""
    row = (
        invoices_of(account_id)
        .filter(pk=invoice_id)
        .annotate(
            last_transition=_newest(InvoiceTransition.objects.all()),
            last_credit_note=_newest(CreditNote.objects.all()),
        )
        .values_list("status", "last_transition", "last_credit_note")
        .first()
    )
    return None if row is None else InvoiceState(*row)


def whole_invoice(account_id: UUID, invoice_id: int) -> Invoice:
    """Return an invoice of the account with all that is shown of it. Raises Invoice.DoesNotExist.

    In one snapshot, so that its figures and its lines belong together.
    """
    with one_snapshot():
        return (
            invoices_of(account_id)
            .prefetch_related("lines__parts", "applied_discounts", "credit_notes")
            .get(pk=invoice_id)
        )


def lines_of(account_id: UUID, invoice_id: int) -> QuerySet[InvoiceLine]:
    """Return the lines of an invoice of the account, each with its invoice and its parts."""
    return (
        InvoiceLine.objects.filter(invoice=invoice_id, invoice__account=account_id)
        .select_related("invoice")
        .prefetch_related("parts")
    )


def credit_notes_of(account_id: UUID) -> QuerySet[CreditNote]:
    """Return the credit notes of an account's invoices, each with its invoice."""
    return CreditNote.objects.filter(invoice__account_id=account_id).select_related("invoice")


def offered_plans(*, now: datetime) -> QuerySet[Plan]:
    """Return the plans that customers may see, with the prices in force in `current_versions`."""
    in_force = (
        PriceBookVersion.objects.filter(effective_from__lte=now)
        .filter(Q(effective_to__isnull=True) | Q(effective_to__gt=now))
        .prefetch_related("prices__tiers")
    )
    return (
        Plan.objects.filter(is_offered=True)
        .select_related("price_book")
        .prefetch_related(
            Prefetch("price_book__versions", queryset=in_force, to_attr="current_versions")
        )
    )


def subscriptions_around(
    account_id: UUID, *, now: datetime
) -> tuple[Subscription | None, Subscription | None]:
    """Return what the account is on, and what it is to be on next, each with its plan."""
    rows = list(
        Subscription.objects.filter(account=account_id)
        .filter(Q(expires_at__isnull=True) | Q(expires_at__gt=now))
        .select_related("plan")
        .order_by("started_at")
    )
    current = next((row for row in rows if row.started_at <= now), None)
    following = next((row for row in rows if row.started_at > now), None)
    return current, following


def unpriced_counts() -> list[tuple[str, str, int]]:
    """Return for each meter and reason how many accounts have unpriced usage in an open period."""
    rows = (
        UnpricedUsage.objects.filter(billing_period_start__gte=F("account__open_period_start"))
        .values("meter", "reason")
        .annotate(accounts=Count("account", distinct=True))
        .order_by("meter", "reason")
    )
    return [(row["meter"], row["reason"], row["accounts"]) for row in rows]


def unbilled_late_counts() -> list[tuple[str, str, int]]:
    """Return for each meter and reason how many accounts have late usage that nobody can bill."""
    rows = (
        UnbilledLateUsage.objects.values("meter", "reason")
        .annotate(accounts=Count("account", distinct=True))
        .order_by("meter", "reason")
    )
    return [(row["meter"], row["reason"], row["accounts"]) for row in rows]


@contextmanager
def one_snapshot() -> Iterator[None]:
    """Let all reads inside see one moment, so that usage and `as_of` belong together.

    Inside a caller's transaction, the caller's isolation holds.
    """
    is_outermost = not connection.in_atomic_block
    with transaction.atomic():
        if is_outermost:
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield


def _forecast(ahead: Statement) -> Forecast:
    return Forecast(
        usage=ahead.rating.usage,
        cost_by_meter=cost_by_meter(ahead.rating),
        cost=break_down_cost(ahead),
        total_amount=ahead.totals.total_amount,
        remaining_credits=ahead.remaining_credits,
    )


def _newest(rows: QuerySet[Any]) -> Subquery:
    """Return the newest of an invoice's rows, as a subquery of invoices."""
    of_invoice = rows.filter(invoice=OuterRef("pk")).order_by("-pk")
    return Subquery(of_invoice.values("pk")[:1])
