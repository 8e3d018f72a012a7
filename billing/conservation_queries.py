"""Reads the rows of many invoices at once, to see whether they add up."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, Protocol, TypeVar

from django.conf import settings
from django.db import connection
from django.db.models import Count, F, Sum

from billing.conservation import ConservationStatement, InvoiceRows, state_conservation
from billing.credits import CreditKind
from billing.models import (
    CreditEntry,
    Invoice,
    InvoiceDiscount,
    InvoiceEvidence,
    InvoiceLine,
    InvoiceLinePart,
    InvoiceMismatch,
)
from metering.counter_steps import Measured, counter_steps
from metering.meters import Meter

NOT_STATED: Final = (Invoice.Kind.SUBSCRIPTION,)
"""A mirror says what its provider reckoned; that is not ours to reckon again."""

K = TypeVar("K", bound=Hashable)


class CounterRow(Protocol):
    """What one life used of a counter, and between which ends."""

    @property
    def life_id(self) -> int: ...  # noqa: D102 - the columns of evidence, by their names
    @property
    def first_window(self) -> datetime: ...  # noqa: D102
    @property
    def last_window(self) -> datetime: ...  # noqa: D102
    @property
    def quantity(self) -> Decimal | int: ...  # noqa: D102
    @property
    def opening(self) -> Decimal | int | None: ...  # noqa: D102
    @property
    def closing(self) -> Decimal | int | None: ...  # noqa: D102


def conservation_of(
    invoice_ids: Collection[int], *, now: datetime
) -> dict[int, ConservationStatement]:
    """Return the sums of each of these invoices, by its key; mirrors are left out.

    A fixed number of queries. Of a draft, what its rows say so far.
    """
    invoices = Invoice.objects.filter(pk__in=invoice_ids).exclude(kind__in=NOT_STATED)
    rows = rows_of(list(invoices.order_by("pk")), now=now)
    return {invoice_id: state_conservation(of_invoice) for invoice_id, of_invoice in rows.items()}


def rows_of(invoices: Sequence[Invoice], *, now: datetime) -> dict[int, InvoiceRows]:
    """Return the saved rows of the invoices by their keys; figures are those of the instances.

    So an invoice that is being issued can be looked at before it has its number: with its
    evidence sealed, it is what the ledger says that paid it, and of a draft what it says itself.
    """
    lines = _by_invoice(InvoiceLine.objects.filter(invoice__in=invoices).order_by("position"))
    places = {
        line.pk: (invoice_id, line.position) for invoice_id in lines for line in lines[invoice_id]
    }
    meters = {line.pk: line.meter for of_invoice in lines.values() for line in of_invoice}
    parts = _by_position(
        InvoiceLinePart.objects.filter(line__invoice__in=invoices).order_by("position"), places
    )
    found = list(InvoiceEvidence.objects.filter(line__invoice__in=invoices).order_by("pk"))
    evidence = _by_position(found, places)
    hashes: defaultdict[int, list[str]] = defaultdict(list)
    for row in found:
        hashes[places[row.line_id][0]].append(row.records_hash)
    discounts = _by_invoice(InvoiceDiscount.objects.filter(invoice__in=invoices))
    used = _used(invoices)
    unexplained = unexplained_lines(
        [(places[row.line_id], Meter(meters[row.line_id]), row) for row in found], now=now
    )
    return {
        invoice.pk: InvoiceRows(
            figures=invoice,
            lines=lines.get(invoice.pk, []),
            parts=parts[invoice.pk],
            discounts=discounts.get(invoice.pk, []),
            evidence=evidence[invoice.pk] if invoice.evidence_hash else None,
            credits_used=used[invoice.pk, False] if _is_paid(invoice) else invoice.credits_used,
            prepaid_used=used[invoice.pk, True] if _is_paid(invoice) else invoice.prepaid_used,
            unexplained=frozenset(
                position for invoice_id, position in unexplained if invoice_id == invoice.pk
            ),
            is_sealed=invoice.evidence_hash in ("", hash_of_evidence(hashes[invoice.pk])),
        )
        for invoice in invoices
    }


@dataclass(frozen=True, slots=True)
class EvidenceSum:
    """What all evidence of one line comes to. Counters are None where one of its rows has none."""

    lives: int
    quantity: Decimal
    opening: Decimal | None
    closing: Decimal | None
    applied_ms: int
    measured_ms: int


def summed_rows_of(
    invoice: Invoice, lines: Sequence[InvoiceLine], *, now: datetime
) -> tuple[InvoiceRows, dict[int, EvidenceSum]]:
    """Return what `rows_of` does of one invoice, and the sums of its evidence by line's position.

    `lines` are all of it, with their parts. The database sums the evidence of each line, of
    which there may be a row for every life, and reckons its seal; a row is only read where its
    counter does not say its quantity.
    """
    used = _used([invoice])
    sums = _evidence_sums(invoice) if invoice.evidence_hash else {}
    positions = {line.pk: line.position for line in lines}
    meters = {line.pk: line.meter for line in lines}
    odd = (
        InvoiceEvidence.objects.filter(line__invoice=invoice, opening__isnull=False)
        .exclude(quantity=F("closing") - F("opening"))
        .filter(last_window__gte=_steps_kept_since(now))
    )
    unexplained = unexplained_lines(
        [(positions[row.line_id], Meter(meters[row.line_id]), row) for row in odd], now=now
    )
    rows = InvoiceRows(
        figures=invoice,
        lines=lines,
        parts={line.position: list(line.parts.all()) for line in lines},
        discounts=list(invoice.applied_discounts.all()),
        evidence={at: [one] for at, one in sums.items()} if invoice.evidence_hash else None,
        credits_used=used[invoice.pk, False] if _is_paid(invoice) else invoice.credits_used,
        prepaid_used=used[invoice.pk, True] if _is_paid(invoice) else invoice.prepaid_used,
        unexplained=frozenset(unexplained),
        is_sealed=invoice.evidence_hash in ("", _seal_of(invoice)),
    )
    return rows, sums


def _evidence_sums(invoice: Invoice) -> dict[int, EvidenceSum]:
    rows = (
        InvoiceEvidence.objects.filter(line__invoice=invoice)
        .values_list("line__position")
        .annotate(
            Count("pk"),
            Sum("quantity"),
            Sum("opening"),
            Sum("closing"),
            Sum("applied_ms"),
            Sum("measured_ms"),
            Count("opening"),
        )
        .order_by()
    )
    return {
        position: EvidenceSum(
            lives,
            quantity,
            opening if counted == lives else None,
            closing if counted == lives else None,
            int(applied_ms),
            int(measured_ms),
        )
        for position, lives, quantity, opening, closing, applied_ms, measured_ms, counted in rows
    }


def _seal_of(invoice: Invoice) -> str:
    """Return what `hash_of_evidence` does of the invoice's rows, reckoned by the database."""
    with connection.cursor() as cursor:
        cursor.execute(_SEAL, [invoice.pk])
        seal: str = cursor.fetchone()[0]
    return seal


_SEAL = """
    SELECT encode(sha256(convert_to(
        coalesce(string_agg(records_hash, E'\\n' ORDER BY evidence.id), ''), 'UTF8')), 'hex')
      FROM billing_invoiceevidence evidence
      JOIN billing_invoiceline line ON line.id = evidence.line_id
     WHERE line.invoice_id = %s
"""


def hash_of_evidence(records_hashes: Iterable[str]) -> str:
    """Return what an invoice's evidence is sealed with, from its rows' hashes in their order."""
    return hashlib.sha256("\n".join(records_hashes).encode()).hexdigest()


def unexplained_lines(rows: Iterable[tuple[K, Meter, CounterRow]], *, now: datetime) -> set[K]:
    """Return the keys of rows whose quantity does not come from their counter.

    It is the difference of the counter's ends, more by what the counter fell in between, and less
    by where it stood at a first sample. Those facts are dropped after a while; a row from before
    is taken for explained. One query at most, and none where no counter fell.
    """
    kept_since = _steps_kept_since(now)
    odd = [
        (key, Measured(row.life_id, meter, row.first_window, row.last_window), difference)
        for key, meter, row in rows
        if (difference := _difference(row)) and row.last_window >= kept_since
    ]
    if not odd:
        return set()
    steps = counter_steps([measured for _, measured, _ in odd])
    return {
        key
        for (key, _, difference), step in zip(odd, steps, strict=True)
        if not -step.unbilled <= difference <= step.fell
    }


def mismatch_count() -> int:
    """Return how many final invoices did not add up at the last look."""
    return InvoiceMismatch.objects.count()


def _steps_kept_since(now: datetime) -> datetime:
    return now - timedelta(days=settings.METERING_USAGE_RETENTION_D)


def _is_paid(invoice: Invoice) -> bool:
    """Return whether the credit that it uses is in the ledger by now."""
    return bool(invoice.number or invoice.evidence_hash)


def _difference(row: CounterRow) -> int:
    if row.opening is None or row.closing is None:
        return 0
    return int(row.quantity) - (int(row.closing) - int(row.opening))


R = TypeVar("R", InvoiceLine, InvoiceDiscount)
P = TypeVar("P", InvoiceLinePart, InvoiceEvidence)


def _by_invoice(rows: Iterable[R]) -> dict[int, list[R]]:
    found: defaultdict[int, list[R]] = defaultdict(list)
    for row in rows:
        found[row.invoice_id].append(row)
    return dict(found)


def _by_position(
    rows: Iterable[P], places: Mapping[int, tuple[int, int]]
) -> defaultdict[int, dict[int, list[P]]]:
    """Return what hangs on lines by the invoice's key and the line's position."""
    found: defaultdict[int, dict[int, list[P]]] = defaultdict(dict)
    for row in rows:
        invoice_id, position = places[row.line_id]
        found[invoice_id].setdefault(position, []).append(row)
    return found


def _used(invoices: Sequence[Invoice]) -> Mapping[tuple[int, bool], Decimal]:
    """Return what the ledger says paid each invoice: by its key and whether it was prepaid."""
    used: defaultdict[tuple[int, bool], Decimal] = defaultdict(Decimal)
    sums = (
        CreditEntry.objects.filter(invoice__in=invoices, kind=CreditEntry.Kind.USE)
        .values_list("invoice_id", "grant__kind")
        .annotate(total=Sum("amount"))
        .order_by()
    )
    for invoice_id, kind, total in sums:
        used[invoice_id or 0, kind == CreditKind.PREPAID] -= total
    return used
