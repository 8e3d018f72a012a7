"""Where dunning stands: read by its services, by notices and by the API."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from billing.models import Account, Invoice
from billing.money import Money
from billing.outstanding import UNPAID
from billing.queries import invoices_of
from payments.dunning_schedule import BEFORE_ALL, RETRY, SUSPEND, Schedule, Step
from payments.models import Collection, Customer, DunningCase, DunningStep, PaymentAttempt
from payments.owed import owed, paid_of


@dataclass(frozen=True, slots=True)
class PaymentState:
    """How it stands with the payment of an invoice."""

    status: str
    currency: str
    owed: Money
    paid: Money
    last_attempt: PaymentAttempt | None
    next_try_at: datetime | None
    suspends_at: datetime | None
    payment_url: str | None


@dataclass(frozen=True, slots=True)
class StandingState:
    """How an account stands with us; `since` is empty where it always stood so."""

    standing: str
    since: datetime | None
    currency: str
    owed: Money


def payment_state(account_id: UUID, invoice_id: int) -> PaymentState | None:
    """Return how it stands with the payment of one of the account's invoices; None: not its."""
    invoice = invoices_of(account_id).filter(pk=invoice_id).first()
    if invoice is None:
        return None
    due = owed(invoice)
    return PaymentState(
        status=invoice.status,
        currency=invoice.currency,
        owed=due,
        paid=paid_of(invoice),
        last_attempt=last_attempt(invoice),
        next_try_at=next_step_at(invoice, RETRY),
        suspends_at=next_step_at(invoice, SUSPEND),
        payment_url=(payment_page(invoice) or None) if due else None,
    )


def standing_of(account_id: UUID) -> StandingState:
    """Return how an account stands with us. Raises Account.DoesNotExist."""
    account = Account.objects.get(pk=account_id)
    customer = Customer.objects.filter(pk=account_id).first()
    unpaid = account.invoices.filter(status__in=UNPAID)
    return StandingState(
        standing=customer.standing if customer else Customer.Standing.ACTIVE,
        since=customer.standing_since if customer else None,
        currency=account.currency,
        owed=Money.total((owed(invoice) for invoice in unpaid), account.currency),
    )


def current_schedule() -> Schedule:
    """Return the schedule as staff has it now."""
    rows = DunningStep.objects.values_list("after_days", "action")
    return Schedule.of(Step(after_days, action) for after_days, action in rows)


def done_step(case: DunningCase) -> Step:
    """Return the last step of the case that was taken."""
    return Step(case.done_days, case.done_action) if case.done_action else BEFORE_ALL


def next_step_at(invoice: Invoice, action: str) -> datetime | None:
    """Return when the schedule next does this about an invoice, if it does."""
    case = DunningCase.objects.filter(invoice=invoice, closed_at__isnull=True).first()
    if case is None:
        return None
    return current_schedule().next_at(done_step(case), opened_at=case.opened_at, action=action)


def last_attempt(invoice: Invoice) -> PaymentAttempt | None:
    """Return the newest attempt to have the invoice paid, whatever became of it."""
    attempts = PaymentAttempt.objects.filter(collection__parts__invoice=invoice)
    return attempts.select_related("collection").order_by("-pk").first()


def payment_page(invoice: Invoice) -> str:
    """Return the provider's page where the customer can pay the invoice; empty: there is none."""
    pages = Collection.objects.filter(
        parts__invoice=invoice, parts__is_live=True, status=Collection.Status.OPEN, void_reason=""
    ).values_list("hosted_url", flat=True)
    return pages.first() or ""
