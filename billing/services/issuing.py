"""Gives invoices their final figures, what they rest on and are printed with, and a number."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from operator import attrgetter

from django.conf import settings

from billing.conservation_queries import hash_of_evidence
from billing.copying import copy_in, copy_values, update_rows
from billing.credits import CreditKind
from billing.models import (
    Account,
    Invoice,
    InvoiceEvidence,
    InvoiceLine,
    InvoiceTransition,
)
from billing.models.invoices import Series
from billing.parties import as_json, buyer_of, seller_party
from billing.periods import Cycle
from billing.services.conserving import Issue, LineEvidence, refuse_unconserved_issues
from billing.services.counting import count_amounts
from billing.services.credit_moves import move_credits_of_late_usage
from billing.services.credits import Gift, grant_credit, use_credits
from billing.services.lifecycle import Because
from billing.services.numbering import take_numbers
from billing.services.statements import FIGURES, replace_statements
from billing.usage_evidence import Evidence
from metering.log_lines import log_committed
from metering.meters import Meter
from metering.period import WINDOW

logger = logging.getLogger(__name__)

# What an evidence row keeps: the field of LifeEvidence, and its column.
_EVIDENCE = {
    "sandbox_id": "sandbox_id",
    "life_id": "life_id",
    "container_id": "container_id",
    "started_at": "started_at",
    "record_count": "window_count",
    "first_window": "first_window",
    "last_window": "last_window",
    "sample_count": "sample_count",
    "quantity": "quantity",
    "opening": "opening",
    "closing": "closing",
    "applied_ms": "applied_ms",
    "measured_ms": "measured_ms",
    "records_hash": "records_hash",
}
_life_values = attrgetter(*_EVIDENCE)
NOTHING_DUE = "Nothing is due"
_PRINTED = (
    *("seller", "buyer", "tax_name", "payment_terms", "time_zone", "anchor_day"),
    *("issued_on", "due_on", "evidence_hash", "top_up"),
)
_FINAL = ("number", "status", "finalised_at", "paid_at", "waiting_for")


def issue_invoices(
    issues: Sequence[Issue],
    *,
    because: Because,
    now: datetime,
    before_numbering: Callable[[], None],
) -> None:
    """Make drafts final, in a fixed number of queries, inside the caller's transaction.

    `before_numbering` is done in between, because numbers come last: their counter stays locked
    to the commit, for everybody. Raises SomeFailedError naming the accounts whose invoices do not
    add up.
    """
    for issue in issues:
        cycle = issue.statement.facts.schedule.cycle_at(issue.invoice.period_end - WINDOW)
        print_on(issue.invoice, issue.account, cycle, now=now)
    rows = replace_statements([(i.invoice, i.statement) for i in issues], now=now)
    shown = [
        list(_evidence_of(of_invoice.lines, issue.evidence))
        for issue, of_invoice in zip(issues, rows, strict=True)
    ]
    for issue, of_invoice in zip(issues, shown, strict=True):
        issue.invoice.evidence_hash = hash_of_evidence(life.records_hash for _, life in of_invoice)
    refuse_unconserved_issues(issues, rows, shown, now=now)
    copy_values(
        InvoiceEvidence,
        ["line_id", *_EVIDENCE.values()],
        ((line.pk, *_life_values(life)) for of_invoice in shown for line, life in of_invoice),
    )
    _settle_credits(issues, now=now)
    before_numbering()
    invoices = [issue.invoice for issue in issues]
    give_numbers(invoices, because=because, now=now)


def print_on(invoice: Invoice, account: Account, cycle: Cycle, *, now: datetime) -> None:
    """Copy what is printed beside the figures: it may be different tomorrow."""
    invoice.seller = as_json(
        seller_party(
            name=settings.SELLER_NAME,
            address=settings.SELLER_ADDRESS,
            tax_id=settings.SELLER_TAX_ID,
        )
    )
    invoice.buyer = as_json(buyer_of(account.name, account.address, account.tax_id))
    invoice.tax_name = settings.SELLER_TAX_NAME
    invoice.payment_terms = settings.SELLER_PAYMENT_TERMS
    invoice.time_zone, invoice.anchor_day = cycle.zone.key, cycle.anchor_day
    invoice.issued_on = now.astimezone(settings.SELLER_TIME_ZONE).date()
    invoice.due_on = invoice.issued_on + timedelta(days=settings.SELLER_PAYMENT_TERMS_DAYS)


def _evidence_of(lines: Sequence[InvoiceLine], evidence: Evidence) -> Iterator[LineEvidence]:
    for line in lines:
        if line.kind == InvoiceLine.Kind.USAGE:
            for life in evidence[line.period, Meter(line.meter)]:
                yield line, life


def _settle_credits(issues: Sequence[Issue], *, now: datetime) -> None:
    """Use the credits that statements draw on; keep remainders below zero as prepaid credit."""
    for issue in issues:
        if moves := issue.statement.facts.carried.credit_moves:
            move_credits_of_late_usage(issue.account, issue.invoice, moves, now=now)
    use_credits(
        [(i.invoice, (*i.statement.credits_used, *i.statement.prepaid_used)) for i in issues],
        now=now,
    )
    for issue in issues:
        if credited := issue.statement.totals.credited:
            start = issue.invoice.period_start
            rest = Gift(
                kind=CreditKind.PREPAID,
                amount=credited.amount,
                reason=f"Remainder of the invoice for the period from {start:%Y-%m-%d}",
                reference=f"invoice:{issue.invoice.pk}:remainder",
            )
            grant_credit(issue.account.pk, rest, now=now)


def give_numbers(
    invoices: Sequence[Invoice], *, because: Because, now: datetime, paid_because: str = ""
) -> None:
    """Give invoices the next numbers, and make them final. The last step of a transaction."""
    if invoices:
        numbers = take_numbers(Series.INVOICE, len(invoices), now=now)
        numbered = list(zip(invoices, numbers, strict=True))
        make_final(numbered, because=because, now=now, paid_because=paid_because)


def make_final(
    numbered: Sequence[tuple[Invoice, str]],
    *,
    because: Because,
    now: datetime,
    paid_because: str = "",
) -> None:
    """Give invoices their numbers, figures and final states, in one statement.

    A constraint wants number and state together, and a trigger lets nothing follow. An invoice
    with nothing due is paid, and so are all with `paid_because`.
    """
    transitions = []
    for invoice, number in numbered:
        invoice.number, invoice.finalised_at, invoice.waiting_for = number, now, ""
        steps = [(Invoice.Status.PENDING, because.reason)]
        if paid_because or not invoice.amount_due:
            steps.append((Invoice.Status.PAID, paid_because or NOTHING_DUE))
            invoice.paid_at = now
        for status, reason in steps:
            transitions.append(
                InvoiceTransition(
                    invoice=invoice,
                    from_status=invoice.status,
                    to_status=status,
                    reason=reason,
                    by_id=because.user_id,
                    at=now,
                )
            )
            invoice.status = status
    final = [invoice for invoice, _ in numbered]
    update_rows(final, [*FIGURES, *_PRINTED, *_FINAL])
    copy_in(transitions)
    count_amounts(final)
    for invoice in final:
        log_committed(
            logger,
            "invoice finalised",
            invoice_id=invoice.pk,
            number=invoice.number,
            account_id=invoice.account_id,
            amount_due=f"{invoice.amount_due:.2f}",
            currency=invoice.currency,
        )
