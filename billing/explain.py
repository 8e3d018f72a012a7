"""Where an invoice line comes from: as values, and the sums that show it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from fractions import Fraction

from billing.line_costs import PartCost
from billing.money import Money
from metering.evidence import LifeEvidence
from metering.period import Period

SANDBOXES_AT_A_TIME = 100
LIVES_OF_A_SANDBOX = 50
"""So many lives of a sandbox are told; the rest is in its quantity."""


@dataclass(frozen=True, slots=True)
class Check:
    """A sum that is shown: what the parts come to, and what the whole is said to be."""

    name: str
    parts: Fraction
    whole: Fraction

    @property
    def holds(self) -> bool:
        """Whether they are the same."""
        return self.parts == self.whole


@dataclass(frozen=True, slots=True)
class ExplainedLife:
    """What one life used, in base units, and what that was read from.

    `steps` is what is between the quantity and the counter's two ends: what it fell in between
    adds to it, where it stood at first is taken off. None where there is no counter.
    """

    life: LifeEvidence

    @property
    def steps(self) -> int | None:
        """The quantity less the difference of the counter's ends."""
        if self.life.opening is None or self.life.closing is None:
            return None
        return self.life.quantity - (self.life.closing - self.life.opening)


@dataclass(frozen=True, slots=True)
class ExplainedSandbox:
    """What one sandbox used, in base units, and what it bears of the line's exact cost."""

    sandbox_id: str
    quantity: int
    cost: Fraction
    life_count: int
    lives: tuple[ExplainedLife, ...]


@dataclass(frozen=True, slots=True)
class OtherSandboxes:
    """What the sandboxes on other pages used and bear together."""

    count: int
    quantity: int
    cost: Fraction


@dataclass(frozen=True, slots=True)
class Sandboxes:
    """A page of a line's sandboxes by id; `next_after` asks for the next one, if there is one.

    `without_usage` is what is due without any usage, as a minimum is.
    """

    count: int
    page: tuple[ExplainedSandbox, ...]
    others: OtherSandboxes
    without_usage: Fraction
    next_after: str | None


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of the time in which the meter applied was measured."""

    applied_ms: int
    measured_ms: int


@dataclass(frozen=True, slots=True)
class PriceVersion:
    """The version of a price book that was in force, and the book's name as it is now."""

    book: str
    effective_from: datetime
    effective_to: datetime | None


@dataclass(frozen=True, slots=True)
class DiscountShare:
    """What one rule took off, and what this line bears of it."""

    name: str
    percent: Decimal
    fixed_amount: Money
    base: Money
    amount: Money
    share: Money


@dataclass(frozen=True, slots=True)
class CreditPaid:
    """What one grant paid of the invoice."""

    kind: str
    name: str
    amount: Money


@dataclass(frozen=True, slots=True)
class LateWindow:
    """Late usage that an adjustment is for, in base units."""

    sandbox_id: str
    window_start: datetime
    quantity: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where a line comes from, down to the counters, and what becomes of it, up to the total.

    `exact_cost` is before rounding and `rounding` what rounding added; None where the line is
    no price times a quantity. `is_kept` says that the evidence was kept with the invoice, and is
    not what the usage records say now. `sums` is whether every check holds.
    """

    invoice_id: int
    number: str | None
    currency: str
    position: int
    kind: str
    description: str
    basis: str
    period: Period
    meter: str
    charge: str
    unit: str
    base_unit: str
    unit_size: int
    quantity: int
    price_version: PriceVersion | None
    parts: tuple[PartCost, ...]
    exact_cost: Fraction | None
    rounding: Fraction | None
    amount: Money
    is_kept: bool
    sandboxes: Sandboxes | None
    coverage: Coverage | None
    late_usage: tuple[LateWindow, ...]
    discounts: tuple[DiscountShare, ...]
    discount: Money
    credits: tuple[CreditPaid, ...]
    checks: tuple[Check, ...]

    @property
    def sums(self) -> bool:
        """Whether everything adds up."""
        return all(check.holds for check in self.checks)


def share_out(
    lives: Sequence[LifeEvidence], *, quantity: int, cost: Fraction, after: str = ""
) -> Sandboxes:
    """Return a page of sandboxes, the first after `after`, with their shares of the line's cost.

    `quantity` and `cost` are the line's; each share is the cost × what was used ÷ the quantity.
    """
    by_sandbox: defaultdict[str, list[LifeEvidence]] = defaultdict(list)
    for life in lives:
        by_sandbox[life.sandbox_id].append(life)
    cost_of_one = cost / quantity if quantity else Fraction(0)
    names = sorted(by_sandbox)
    later = [name for name in names if name > after]
    shown = later[:SANDBOXES_AT_A_TIME]
    told = set(shown)
    others = [name for name in names if name not in told]
    used_by_others = sum(life.quantity for name in others for life in by_sandbox[name])
    page = []
    for name in shown:
        used = sum(life.quantity for life in by_sandbox[name])
        lives_told = tuple(map(ExplainedLife, by_sandbox[name][:LIVES_OF_A_SANDBOX]))
        page.append(
            ExplainedSandbox(name, used, cost_of_one * used, len(by_sandbox[name]), lives_told)
        )
    return Sandboxes(
        count=len(names),
        page=tuple(page),
        others=OtherSandboxes(len(others), used_by_others, cost_of_one * used_by_others),
        without_usage=Fraction(0) if quantity else cost,
        next_after=shown[-1] if len(later) > len(shown) else None,
    )


def checks_of(sandboxes: Sandboxes, *, quantity: int, cost: Fraction) -> tuple[Check, Check]:
    """Return the sums over all that is told of the sandboxes: of quantities, and of costs."""
    others = sandboxes.others
    used = sum(one.quantity for one in sandboxes.page) + others.quantity
    costs = sum((one.cost for one in sandboxes.page), start=others.cost + sandboxes.without_usage)
    return (
        Check("quantity of all sandboxes", Fraction(used), Fraction(quantity)),
        Check("exact cost of all sandboxes", costs, cost),
    )


def coverage_of(lives: Iterable[LifeEvidence]) -> Coverage | None:
    """Return how much was measured of the time the meter applied; None where it has no time."""
    applied = measured = 0
    for life in lives:
        applied += life.applied_ms
        measured += life.measured_ms
    return Coverage(applied, measured) if applied else None
