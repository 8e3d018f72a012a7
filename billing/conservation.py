"""Whether an invoice is what was measured: from the counters to what is due, sum by sum.

counters = windows = rated quantity, meter by meter; what was rated = Σ lines; and the totals. Every
sum is reckoned here anew, from the rows and by no function that made them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import MAX_PREC, Context, Decimal
from fractions import Fraction
from typing import Final, Protocol

from billing.charges import PartKind
from billing.line_costs import LineRow, PartCost, PartRow, line_costs
from billing.money import decimals_of, rounded_units

USAGE: Final = "usage"
FEES: Final = ("fee", "unused_fee", "fee_discount", "true_up")
ANNUAL_FEE: Final = "annual_fee"
USAGE_FEE: Final = "usage_fee"
# Parts of these kinds are quantities of the meter, and together all of the line's.
_QUANTITIES: Final = (PartKind.FREE, PartKind.UNITS, PartKind.PERCENT)
_ALL_IN_PARTS: Final = ("per_unit", "graduated", "volume", "percentage")
_EXACT: Final = Context(prec=MAX_PREC)
_NOTHING: Final = Decimal(0)


class NotConservedError(Exception):
    """An invoice is not what was measured, or does not add up; the message says where."""


class Figures(Protocol):
    """An invoice's figures, as its row has them."""

    @property
    def number(self) -> str | None: ...  # noqa: D102 - the columns of an invoice, by their names
    @property
    def currency(self) -> str: ...  # noqa: D102
    @property
    def tax_rate(self) -> Decimal: ...  # noqa: D102
    @property
    def tax_is_inclusive(self) -> bool: ...  # noqa: D102
    @property
    def subscription_fee(self) -> Decimal: ...  # noqa: D102
    @property
    def usage_fee(self) -> Decimal: ...  # noqa: D102
    @property
    def discounts(self) -> Decimal: ...  # noqa: D102
    @property
    def credits_used(self) -> Decimal: ...  # noqa: D102
    @property
    def adjustments(self) -> Decimal: ...  # noqa: D102
    @property
    def tax(self) -> Decimal: ...  # noqa: D102
    @property
    def credited(self) -> Decimal: ...  # noqa: D102
    @property
    def top_up(self) -> Decimal: ...  # noqa: D102
    @property
    def total_amount(self) -> Decimal: ...  # noqa: D102
    @property
    def prepaid_used(self) -> Decimal: ...  # noqa: D102
    @property
    def amount_due(self) -> Decimal: ...  # noqa: D102


class InvoiceLineRow(LineRow, Protocol):
    """A line as its row has it."""

    @property
    def position(self) -> int: ...  # noqa: D102
    @property
    def amount(self) -> Decimal: ...  # noqa: D102
    @property
    def discount(self) -> Decimal: ...  # noqa: D102


class DiscountRow(Protocol):
    """An applied discount as its row has it."""

    @property
    def base(self) -> str: ...  # noqa: D102
    @property
    def amount(self) -> Decimal: ...  # noqa: D102


class EvidenceRow(Protocol):
    """What one life used, in base units, and between which counters: None where there are none."""

    @property
    def quantity(self) -> Decimal | int: ...  # noqa: D102
    @property
    def opening(self) -> Decimal | int | None: ...  # noqa: D102
    @property
    def closing(self) -> Decimal | int | None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class InvoiceRows:
    """An invoice's rows, saved or about to be.

    `lines` are all of them in their order. `parts` and `evidence` are by the line's position;
    `evidence` is None for an invoice from before it was kept. `credits_used` and `prepaid_used`
    are what the ledger's entries say, above zero. `unexplained` are the positions of lines with
    counters whose ends do not explain the quantity. `is_sealed` says that the evidence is what the
    invoice's hash was made of.
    """

    figures: Figures
    lines: Sequence[InvoiceLineRow]
    parts: Mapping[int, Sequence[PartRow]]
    discounts: Sequence[DiscountRow]
    evidence: Mapping[int, Sequence[EvidenceRow]] | None
    credits_used: Decimal
    prepaid_used: Decimal
    unexplained: frozenset[int] = frozenset()
    is_sealed: bool = True


@dataclass(frozen=True, slots=True)
class MeterStatement:
    """One meter's quantities in base units: between the counters, in the windows, and rated.

    `counters` is None where the meter is no counter. `steps` is what falls of the counters and
    what stood on them at first add to that or take off it. `measured` is None where no evidence
    was kept. `parts` is what the lines' parts count, where they count everything.
    """

    meter: str
    counters: int | None
    steps: int
    measured: int | None
    rated: int
    parts: int | None
    is_explained: bool

    @property
    def holds(self) -> bool:
        """Whether all that is known is the same quantity."""
        known = (self.measured, self.parts)
        return self.is_explained and all(one is None or one == self.rated for one in known)


@dataclass(frozen=True, slots=True)
class Equation:
    """A figure of the invoice and what it should be."""

    name: str
    figure: Decimal
    should_be: Decimal

    @property
    def holds(self) -> bool:
        """Whether they are the same amount."""
        return self.figure == self.should_be


@dataclass(frozen=True, slots=True)
class ConservationStatement:
    """All sums of one invoice."""

    number: str | None
    currency: str
    has_evidence: bool
    is_sealed: bool
    meters: tuple[MeterStatement, ...]
    equations: tuple[Equation, ...]

    @property
    def holds(self) -> bool:
        """Whether everything adds up."""
        return not self.mismatches

    @property
    def mismatches(self) -> tuple[str, ...]:
        """What does not add up, in words."""
        quantities = (
            f"{m.meter}: measured {m.measured}, rated {m.rated}, in parts {m.parts}"
            + ("" if m.is_explained else ", and the counters do not explain it")
            for m in self.meters
            if not m.holds
        )
        amounts = (
            f"{e.name}: is {e.figure:f}, should be {e.should_be:f}"
            for e in self.equations
            if not e.holds
        )
        sealed = () if self.is_sealed else ("evidence: it is not what its hash was made of",)
        return (*sealed, *quantities, *amounts)


def state_conservation(rows: InvoiceRows) -> ConservationStatement:
    """Return the sums of one invoice."""
    return ConservationStatement(
        number=rows.figures.number,
        currency=rows.figures.currency,
        has_evidence=rows.evidence is not None,
        is_sealed=rows.is_sealed,
        meters=tuple(_meters(rows)),
        equations=(*_sums(rows), *_lines(rows), *_totals(rows.figures)),
    )


def refuse_unconserved(rows: InvoiceRows) -> None:
    """Raise NotConservedError where something of an invoice does not add up."""
    if mismatches := state_conservation(rows).mismatches:
        raise NotConservedError("; ".join(mismatches))


def _meters(rows: InvoiceRows) -> Iterator[MeterStatement]:
    by_meter: defaultdict[str, list[InvoiceLineRow]] = defaultdict(list)
    for line in rows.lines:
        if line.kind == USAGE:
            by_meter[line.meter].append(line)
    for meter, lines in by_meter.items():
        evidence = (
            None
            if rows.evidence is None
            else [row for line in lines for row in rows.evidence.get(line.position, ())]
        )
        measured = None if evidence is None else sum(int(row.quantity) for row in evidence)
        counters = _between_counters(evidence or ())
        yield MeterStatement(
            meter=meter,
            counters=counters,
            steps=0 if counters is None or measured is None else measured - counters,
            measured=measured,
            rated=sum(int(line.quantity) for line in lines),
            parts=_in_parts(lines, rows.parts),
            is_explained=not any(line.position in rows.unexplained for line in lines),
        )


def _between_counters(evidence: Iterable[EvidenceRow]) -> int | None:
    ends = [(row.opening, row.closing) for row in evidence]
    if not ends or any(opening is None or closing is None for opening, closing in ends):
        return None
    return sum(int(closing or 0) - int(opening or 0) for opening, closing in ends)


def _in_parts(
    lines: Sequence[InvoiceLineRow], parts: Mapping[int, Sequence[PartRow]]
) -> int | None:
    total = _NOTHING
    for line in lines:
        if of_line := parts.get(line.position):
            if line.charge not in _ALL_IN_PARTS:
                return None
            counted = [part.quantity for part in of_line if part.kind in _QUANTITIES]
            total = _EXACT.add(total, _sum(counted))
        else:
            total = _EXACT.add(total, line.quantity)
    # Half a base unit more or less would be a mistake too.
    return int(total) if total == int(total) else -1


def _sums(rows: InvoiceRows) -> Iterator[Equation]:
    figures, lines = rows.figures, rows.lines
    amounts: defaultdict[str, list[Decimal]] = defaultdict(list)
    for line in lines:
        amounts[line.kind].append(line.amount)
    usage_discounts = _sum(d.amount for d in rows.discounts if d.base == USAGE_FEE)
    annual_discounts = _sum(d.amount for d in rows.discounts if d.base == ANNUAL_FEE)
    yield Equation(
        "subscription_fee",
        figures.subscription_fee,
        _sum(a for kind in FEES for a in amounts[kind]),
    )
    yield Equation("usage_fee", figures.usage_fee, _sum(amounts[USAGE]))
    yield Equation("adjustments", figures.adjustments, _sum(amounts["adjustment"]))
    yield Equation("top_up", figures.top_up, _sum(amounts["top_up"]))
    yield Equation("discounts", figures.discounts, usage_discounts)
    yield Equation("discounts of lines", figures.discounts, _sum(line.discount for line in lines))
    yield Equation("discounts on fees", -_sum(amounts["fee_discount"]), annual_discounts)
    yield Equation("credits_used", figures.credits_used, rows.credits_used)
    yield Equation("prepaid_used", figures.prepaid_used, rows.prepaid_used)


def _lines(rows: InvoiceRows) -> Iterator[Equation]:
    """Yield each line's amount against its exact cost, rounded once."""
    costs = line_costs([(line, rows.parts.get(line.position, ())) for line in rows.lines])
    for line, parts in zip(rows.lines, costs, strict=True):
        if parts is not None:
            yield Equation(
                f"line {line.position}", line.amount, _rounded(parts, rows.figures.currency)
            )


def _rounded(parts: Sequence[PartCost], currency: str) -> Decimal:
    cost = sum((part.cost for part in parts), start=Fraction(0))
    units = rounded_units(cost.numerator, cost.denominator, currency)
    return _EXACT.scaleb(Decimal(units), -decimals_of(currency))


def _totals(figures: Figures) -> Iterator[Equation]:
    taxable = _sum(
        (
            figures.subscription_fee,
            figures.usage_fee,
            -figures.discounts,
            -figures.credits_used,
            figures.adjustments,
        )
    )
    rate = Fraction(figures.tax_rate)
    tax = Fraction(taxable) * (rate / (1 + rate) if figures.tax_is_inclusive else rate)
    units = rounded_units(tax.numerator, tax.denominator, figures.currency)
    yield Equation(
        "tax", figures.tax, _EXACT.scaleb(Decimal(units), -decimals_of(figures.currency))
    )
    on_top = _NOTHING if figures.tax_is_inclusive else figures.tax
    total = _sum((taxable, figures.credited, figures.top_up, on_top))
    yield Equation("total_amount", figures.total_amount, total)
    yield Equation("amount_due", figures.amount_due, _sum((total, -figures.prepaid_used)))


def _sum(amounts: Iterable[Decimal]) -> Decimal:
    total = _NOTHING
    for amount in amounts:
        total = _EXACT.add(total, amount)
    return total
