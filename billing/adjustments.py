"""What an earlier period came to differently, once usage was known that had been late.

It goes to the next invoice. The lines of a difference are what they came to with that usage less
what they came to without it, each rounded as on an invoice. So usage that becomes known in two
steps costs what it would have cost in one, to the cent.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from billing.credits import Credit
from billing.money import Money
from billing.rating import PricedUsage, Rating
from metering.lateness import LateWindow
from metering.meters import Meter
from metering.period import Period


class Component(StrEnum):
    """What of a period a difference is in. The value names it in tables."""

    FEE = "fee"
    FEE_DISCOUNT = "fee_discount"
    USAGE = "usage"
    DISCOUNT = "discount"
    TRUE_UP = "true_up"
    CREDIT = "credit"
    # So much in all, which a person named.
    AMOUNT = "amount"


class Unbilled(StrEnum):
    """Why late usage cannot be billed, beside the reasons of `billing.rating.Unpriced`."""

    # Its period cannot be rated again: the records are dropped after their retention.
    USAGE_NOT_KEPT = "usage_not_kept"
    # The period's invoice was taken back and no other took its place.
    INVOICE_VOID = "invoice_void"
    # Together with it, less than nothing would have been used.
    BELOW_ZERO = "below_zero"
    # A price or a discount rule of the period is no good.
    PRICES_AT_FAULT = "prices_at_fault"


@dataclass(frozen=True, slots=True)
class Adjustment:
    """A line about an earlier billing period: what one part of it came to more or less.

    `period` is the span of time of the part, inside the billing period or all of it. `quantity`
    is in the meter's stored unit; it and the amount may be negative. Of credit, `credit_id` says
    which: an amount below zero is used of it, one above zero is there again.
    """

    component: Component
    billing_period: Period
    period: Period
    amount: Money
    meter: Meter | None = None
    quantity: int = 0
    credit_id: int | None = None
    # Of a fee or its discount: the line's own words.
    description: str = ""
    # The row that finds it again, of a correction that was decided on and waits for an invoice.
    correction_line_id: int | None = None


@dataclass(frozen=True, slots=True)
class CreditMove:
    """What becomes of one credit because a closed period needs more of it, or less.

    `used` came from what it still held, `restored` from what had expired: both are spent.
    `returned` had been spent and is there again.
    """

    credit: Credit
    used: Money
    restored: Money
    returned: Money

    @property
    def spent(self) -> Money:
        """What is spent of it, less what is there again."""
        return self.used + self.restored - self.returned


@dataclass(frozen=True, slots=True)
class Carried:
    """What earlier periods leave to the next invoice: its lines, and what goes with them.

    `late_usage` is what these lines settle, window by window.
    """

    adjustments: tuple[Adjustment, ...] = ()
    credit_moves: tuple[CreditMove, ...] = ()
    late_usage: tuple[LateWindow, ...] = ()


NOTHING_CARRIED = Carried()


@dataclass(frozen=True, slots=True)
class Charged:
    """What a period's usage came to: its lines, the discounts on them, what lifts it to a minimum.

    Discounts are above zero.
    """

    rating: Rating
    discounts: Money
    true_up: Money

    @property
    def spent(self) -> Money:
        """What credits may pay: the usage fee after discounts."""
        return self.rating.usage_fee - self.discounts


@dataclass(frozen=True, slots=True)
class CreditPool:
    """A credit that may pay a closed period's usage: `credit` holds what is left of it now.

    `expired` is what lapsed of it unused, and `used` what the period has spent of it so far.
    """

    credit: Credit
    expired: Money
    used: Money


def with_late_usage(
    spans: Sequence[PricedUsage], late: Iterable[LateWindow]
) -> tuple[PricedUsage, ...]:
    """Return the usage with what was late added to the spans that its windows are in.

    Raises ValueError when a window is in none of them, or a span comes out below zero.
    """
    added: defaultdict[int, Counter[Meter]] = defaultdict(Counter)
    for window in late:
        at = next((n for n, span in enumerate(spans) if window.window_start in span.period), None)
        if at is None:
            raise ValueError(f"No span has the window from {window.window_start}.")
        added[at][window.meter] += window.quantity
    whole = []
    for at, span in enumerate(spans):
        usage = Counter(span.usage)
        usage.update(added[at])
        if any(quantity < 0 for quantity in usage.values()):
            raise ValueError(f"Less was used than nothing in {span.period}.")
        # Meters without usage are left out, as where the records are read.
        whole.append(replace(span, usage=dict(+usage)))
    return tuple(whole)


def usage_differences(
    before: Charged, after: Charged, *, billing_period: Period
) -> tuple[Adjustment, ...]:
    """Return the lines by which a period's usage comes to `after` instead of `before`.

    A line for each meter and span of one price; discounts and the true-up to a committed minimum
    where they differ.
    """
    currency = after.rating.currency
    amounts: defaultdict[tuple[Period, Meter], Money] = defaultdict(lambda: Money.zero(currency))
    quantities: Counter[tuple[Period, Meter]] = Counter()
    for line in after.rating.lines:
        amounts[line.period, line.meter] += line.amount
        quantities[line.period, line.meter] += line.quantity
    for line in before.rating.lines:
        amounts[line.period, line.meter] -= line.amount
        quantities[line.period, line.meter] -= line.quantity
    order = list(Meter)
    lines = [
        Adjustment(
            Component.USAGE,
            billing_period,
            period,
            amounts[period, meter],
            meter,
            quantities[period, meter],
        )
        for period, meter in sorted(amounts, key=lambda key: (key[0], order.index(key[1])))
        # A quantity that was free is shown all the same.
        if amounts[period, meter] or quantities[period, meter]
    ]
    for component, amount in (
        (Component.DISCOUNT, before.discounts - after.discounts),
        (Component.TRUE_UP, after.true_up - before.true_up),
    ):
        if amount:
            lines.append(Adjustment(component, billing_period, billing_period, amount))
    return tuple(lines)


def move_credits(
    pools: Sequence[CreditPool], *, before: Money, after: Money
) -> tuple[CreditMove, ...]:
    """Return what becomes of a closed period's credits when it spends `after`, not `before`.

    `pools` are in the order in which they are used. What it spends more is paid by what is left
    of them, or lapsed unused; what it spent too much of them comes back, the last first.
    """
    nothing = Money.zero(after.currency)
    if before < after:
        wanted = after - before
        moves = []
        for pool in pools:
            used = min(wanted, pool.credit.balance)
            restored = min(wanted - used, pool.expired)
            wanted = wanted - used - restored
            moves.append(CreditMove(pool.credit, used, restored, nothing))
    else:
        spent = Money.total((pool.used for pool in pools), after.currency)
        too_much = max(nothing, spent - after) if after < before else nothing
        moves = []
        for pool in reversed(pools):
            returned = min(too_much, pool.used)
            too_much -= returned
            moves.append(CreditMove(pool.credit, nothing, nothing, returned))
        moves.reverse()
    return tuple(move for move in moves if move.used or move.restored or move.returned)


def credit_lines(moves: Iterable[CreditMove], *, billing_period: Period) -> tuple[Adjustment, ...]:
    """Return the lines of what a closed period's credits pay, or paid too much."""
    return tuple(
        Adjustment(
            Component.CREDIT,
            billing_period,
            billing_period,
            -move.spent,
            credit_id=move.credit.credit_id,
        )
        for move in moves
    )


def pools_after(pools: Sequence[CreditPool], moves: Iterable[CreditMove]) -> list[CreditPool]:
    """Return the pools as the moves leave them; `used` is the period's the moves are for."""
    by_id = {move.credit.credit_id: move for move in moves}
    return [
        replace(
            pool,
            credit=replace(pool.credit, balance=pool.credit.balance - move.used + move.returned),
            expired=pool.expired - move.restored,
            used=pool.used + move.spent,
        )
        if (move := by_id.get(pool.credit.credit_id))
        else pool
        for pool in pools
    ]


def credits_after(
    held: Sequence[Credit], moves: Sequence[CreditMove], period: Period
) -> tuple[Credit, ...]:
    """Return the credits that `period` finds once the moves have been made.

    `held` are those with something left that may pay for it.
    """
    left = {move.credit.credit_id: move.credit for move in moves}
    for credit_id, credit in left.items():
        left[credit_id] = replace(credit, balance=Money.zero(credit.balance.currency))
    left |= {credit.credit_id: credit for credit in held if credit.credit_id in left}
    for move in moves:
        credit = left[move.credit.credit_id]
        balance = credit.balance - move.used + move.returned
        left[move.credit.credit_id] = replace(credit, balance=balance)
    found = [left.pop(credit.credit_id, credit) for credit in held]
    back = [credit for credit in left.values() if credit.is_eligible(period) and credit.balance]
    return (*found, *back)
