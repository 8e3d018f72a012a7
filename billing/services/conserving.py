"""Refuses to issue invoices that do not add up, from the counters to the total."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TypeVar
from uuid import UUID

from billing.conservation import InvoiceRows, NotConservedError, refuse_unconserved
from billing.conservation_queries import unexplained_lines
from billing.credits import Draw
from billing.models import Account, Invoice, InvoiceLine
from billing.services.statements import StatementRows
from billing.statement import Statement
from billing.usage_evidence import Evidence
from metering.evidence import LifeEvidence
from metering.meters import Meter

T = TypeVar("T")

LineEvidence = tuple[InvoiceLine, LifeEvidence]
"""A usage line and what one life used for it."""


class SomeFailedError(Exception):
    """Accounts failed, with what. The caller rolls back: the others are done without them."""

    def __init__(self, failed: Sequence[tuple[UUID, Exception]]) -> None:
        super().__init__("; ".join(f"{key}: {error}" for key, error in failed))
        self.failed = failed


@dataclass(frozen=True, slots=True)
class Issue:
    """An invoice to be issued: its row is there, as a draft, and its account's is locked."""

    account: Account
    invoice: Invoice
    statement: Statement
    evidence: Evidence


def refuse_unconserved_issues(
    issues: Sequence[Issue],
    rows: Sequence[StatementRows],
    evidence: Sequence[Sequence[LineEvidence]],
    *,
    now: datetime,
) -> None:
    """Raise SomeFailedError naming the accounts whose invoices do not add up.

    One query at most: the rows are those that were just written.
    """
    unexplained = unexplained_lines(
        (
            ((issue.invoice.pk, line.position), Meter(line.meter), life)
            for issue, of_invoice in zip(issues, evidence, strict=True)
            for line, life in of_invoice
        ),
        now=now,
    )
    failed: list[tuple[UUID, Exception]] = []
    for issue, of_invoice, shown in zip(issues, rows, evidence, strict=True):
        key = issue.invoice.pk
        try:
            refuse_unconserved(
                InvoiceRows(
                    figures=issue.invoice,
                    lines=of_invoice.lines,
                    parts=_by_position((part.line, part) for part in of_invoice.parts),
                    discounts=of_invoice.discounts,
                    evidence=_by_position(shown),
                    credits_used=_sum(issue.statement.credits_used),
                    prepaid_used=_sum(issue.statement.prepaid_used),
                    unexplained=frozenset(place for of, place in unexplained if of == key),
                )
            )
        except NotConservedError as error:
            failed.append((issue.account.pk, error))
    if failed:
        raise SomeFailedError(failed)


def _by_position(rows: Iterable[tuple[InvoiceLine, T]]) -> Mapping[int, Sequence[T]]:
    by_position: dict[int, list[T]] = {}
    for line, row in rows:
        by_position.setdefault(line.position, []).append(row)
    return by_position


def _sum(draws: Sequence[Draw]) -> Decimal:
    return sum((drawn.amount.amount for drawn in draws), start=Decimal(0))
