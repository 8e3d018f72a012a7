"""Where the accounts in arrears stand, for finance: a page of cases at a time, and their sums."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db.models import (
    Case,
    Count,
    DecimalField,
    F,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    Sum,
    Value,
    When,
)
from django.db.models.functions import Coalesce, Greatest

from billing.models import CreditNote
from billing.money import MOST_DECIMALS, Money
from billing.outstanding import UNPAID
from payments.dunning_queries import current_schedule, done_step
from payments.dunning_schedule import Step
from payments.failures import failure_words
from payments.models import (
    Allocation,
    Customer,
    DunningCase,
    PaymentAttempt,
    PaymentMethod,
)

_NONE = Decimal(0)
_AMOUNT: DecimalField[Decimal, Decimal] = DecimalField(max_digits=20, decimal_places=MOST_DECIMALS)
_DAY = timedelta(days=1)
_UNDER_WAY = ("pending", "unknown", "processing")


@dataclass(frozen=True, slots=True)
class Age:
    """Cases by whole days since the first failure, from `first` to `last`; no last: all older."""

    name: str
    label: str
    first: int
    last: int | None

    def holds(self, now: datetime) -> Q:
        """Return the condition of the cases of that age at a moment."""
        started = Q(opened_at__lte=now - self.first * _DAY) if self.first else Q()
        if self.last is None:
            return started
        return started & Q(opened_at__gt=now - (self.last + 1) * _DAY)


AGES = (
    Age("3", "up to 3 days", 0, 3),
    Age("7", "4 to 7 days", 4, 7),
    Age("14", "8 to 14 days", 8, 14),
    Age("28", "15 to 28 days", 15, 28),
    Age("over", "over 28 days", 29, None),
)


@dataclass(frozen=True, slots=True)
class Debt:
    """What is known of one case: `days` are whole ones since the first failure."""

    owed: Money
    days: int
    # In words; empty: nothing was tried.
    last_failure: str
    card: PaymentMethod | None
    standing: str
    next_step: Step | None


@dataclass(frozen=True, slots=True)
class Sums:
    """What the cases of one currency come to, and by age."""

    cases: int
    owed: Money
    by_age: Sequence[Money]


def with_owed(cases: QuerySet[DunningCase]) -> QuerySet[DunningCase]:
    """Return the cases with what `payments.owed.owed` says of their invoices as `owed`."""
    invoice = {"invoice": OuterRef("invoice")}
    credited = CreditNote.objects.filter(**invoice).order_by().values("invoice")
    paid = Allocation.objects.filter(**invoice).order_by().values("invoice")
    nothing = Value(_NONE, _AMOUNT)
    rest = (
        F("invoice__amount_due")
        - Coalesce(Subquery(credited.annotate(sum=Sum("off_due")).values("sum")), nothing)
        - Coalesce(Subquery(paid.annotate(sum=Sum("amount")).values("sum")), nothing)
    )
    return cases.annotate(
        owed=Case(
            When(invoice__status__in=UNPAID, then=Greatest(rest, nothing)),
            default=nothing,
            output_field=_AMOUNT,
        )
    )


def debts(cases: Iterable[DunningCase], *, now: datetime) -> dict[int, Debt]:
    """Return by its key what is known of each case, in four queries however many there are.

    The cases are `with_owed`, with their invoices.
    """
    cases = list(cases)
    accounts = {case.invoice.account_id for case in cases}
    failures = _last_failures([case.invoice_id for case in cases])
    cards = {
        card.account_id: card
        for card in PaymentMethod.objects.filter(account__in=accounts, is_default=True)
    }
    standings = dict(
        Customer.objects.filter(account__in=accounts).values_list("account", "standing")
    )
    schedule = current_schedule()
    return {
        case.pk: Debt(
            # Annotated by `with_owed`.
            owed=Money(case.owed, case.invoice.currency),  # type: ignore[attr-defined]
            days=(now - case.opened_at) // _DAY,
            last_failure=failures.get(case.invoice_id, ""),
            card=cards.get(case.invoice.account_id),
            standing=standings.get(case.invoice.account_id, Customer.Standing.ACTIVE),
            next_step=None if case.closed_at else schedule.next_step(done_step(case)),
        )
        for case in cases
    }


def sums_by_currency(cases: QuerySet[DunningCase], *, now: datetime) -> Mapping[str, Sums]:
    """Return by currency what the cases come to, in one query."""
    ages: dict[str, Any] = {
        f"age_{age.name}": Sum("owed", filter=age.holds(now), default=_NONE) for age in AGES
    }
    rows: Iterable[Any] = (
        with_owed(cases)
        .order_by()
        .values("invoice__currency")
        .annotate(cases=Count("pk"), all=Sum("owed", default=_NONE), **ages)
        .order_by("invoice__currency")
    )
    return {
        currency: Sums(
            cases=row["cases"],
            owed=Money(row["all"], currency),
            by_age=[Money(row[name], currency) for name in ages],
        )
        for row in rows
        if (currency := str(row["invoice__currency"]))
    }


def accounts_by_standing() -> dict[str, int]:
    """Return how many accounts stand how, those without a customer's row not among them."""
    counts = dict(Customer.objects.order_by().values_list("standing").annotate(Count("pk")))
    return {standing.value: counts.get(standing.value, 0) for standing in Customer.Standing}


def _last_failures(invoice_ids: Sequence[int]) -> dict[int, str]:
    of_invoice = "collection__parts__invoice"
    last = (
        PaymentAttempt.objects.filter(**{f"{of_invoice}__in": invoice_ids})
        .order_by(of_invoice, "-pk")
        .distinct(of_invoice)
    )
    told = last.values_list(of_invoice, "status", "failure_code", "decline_code")
    return {row[0]: _told(*row[1:]) for row in told}


def _told(status: str, code: str, decline_code: str) -> str:
    if status in _UNDER_WAY:
        return "It is being tried."
    if status == PaymentAttempt.Status.ACTION_REQUIRED:
        return "The customer has to confirm it at the provider."
    if not code and not decline_code:
        return ""
    return f"{failure_words(code, decline_code)} ({decline_code or code})"
